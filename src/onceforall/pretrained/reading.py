"""Reading: a pretrained module as a supernet whose largest sub-network answers as the module does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from onceforall.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from onceforall.data.spec import USUAL_FRAMING, Colour, Framing
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.nn.ops import ElasticConvNormAct, ElasticLinear
from onceforall.pretrained.blocks import network_of
from onceforall.pretrained.refused import first_refused
from onceforall.pretrained.sources import Source, is_named, source_of
from onceforall.pretrained.steps import NO_BLOCK, steps_of
from onceforall.pretrained.table import DEFAULT, Choices, space_of
from onceforall.pretrained.units import Unit
from onceforall.space import SearchSpace
from onceforall.space.plan import CLASSIFIER
from onceforall.weights.nets import open_weights

TOLERANCE = 1e-5  # of the logits' norm, in float32
SIZES = 64, 65  # the maps are even at every stride of the first, and odd of the second


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained network as a supernet.

    Args:
        name: what people call it.
        net: the supernet, in eval mode. Its largest sub-network answers as the network does.
        mean: of each channel of a picture on [0, 1], which normalising subtracts.
        std: of each channel, which it then divides by.
        size: pixels that the network was trained or tested at.
        framing: how pictures are scaled and cut for it when they are scored.
    """

    name: str
    net: Supernet
    mean: Colour
    std: Colour
    size: int
    framing: Framing


@dataclass(frozen=True)
class Outline:
    """What is known of a pretrained network without its weights.

    Args:
        space: its search space.
        num_classes: that its classifier tells apart.
        mean: of each channel, as `Pretrained` has it.
        std: likewise.
        framing: likewise.
        calibrated: whether its BN statistics are those of the largest sub-network. A supernet's are averages over many.
    """

    space: SearchSpace
    num_classes: int
    mean: Colour
    std: Colour
    framing: Framing
    calibrated: bool


def from_pretrained(source: str | nn.Module, *, sizes: Sequence[int] | None = None, choices: Choices = DEFAULT,
                    mean: Colour = IMAGENET_MEAN, std: Colour = IMAGENET_STD,
                    framing: Framing = USUAL_FRAMING) -> Pretrained:
    """Read a pretrained network as a supernet.

        start = from_pretrained("timm:mobilenetv4_conv_small.e2400_r224_in1k", sizes=[128, 160])
        run = train(start, "pictures", stages=..., output="runs/mine")

    Args:
        source: `timm:NAME`, `torchvision:NAME`, `efficientnet_lite0` (1, 2); `timm:NAME:FILE` where there is no network
            to fetch weights from; a run or a file of weights, whose supernet keeps its own choices; or a module of your
            own, which classifies normalised images (B, 3, R, R) and is in eval mode afterwards.
        sizes: resolutions of the supernet, in pixels; None: the source's own, 224 of a module.
        choices: what becomes elastic.
        mean: of the channels of a module's pictures; a named source says it itself.
        std: likewise.
        framing: how they are scaled and cut; likewise.

    Raises:
        UserError: there is no such source, a layer or block of it has no row, or the supernet does not answer as it
            does.
    """
    sizes = _checked(sizes)
    if isinstance(source, nn.Module):
        found = Source(type(source).__name__, source, mean, std, 224, framing)
    else:
        found = _opened(source, weights=True)
    if isinstance(found.module, Supernet):
        net, space = found.module, _own_space(found.module, sizes, choices)
        net = fitted(net, space, net.num_classes).eval()
    else:
        net = supernet_of(found.module, found.name, sizes or (found.size,), choices)
    return Pretrained(found.name, net, found.mean, found.std, found.size, found.framing)


def outline(source: str, *, sizes: Sequence[int] | None = None, choices: Choices = DEFAULT) -> Outline:
    """What is known of a source without its weights: nothing is downloaded, and the answers are not compared.

    Args:
        source: as `from_pretrained` takes it.
        sizes: resolutions in pixels; None: the source's own.
        choices: what becomes elastic.

    Raises:
        UserError: there is no such source, or it has no table.
    """
    sizes = _checked(sizes)
    found = _opened(source, weights=False)
    if isinstance(found.module, Supernet):
        return Outline(_own_space(found.module, sizes, choices), found.module.num_classes, found.mean, found.std,
                       found.framing, calibrated=False)
    space, units = table_of(found.module, found.name, sizes or (found.size,), choices)
    return Outline(space, units[f"head.{CLASSIFIER}"].outputs, found.mean, found.std, found.framing, calibrated=True)


def _opened(source: str, *, weights: bool) -> Source:
    """A named source, or the net of a file with the colours that its pictures were normalised with."""
    if not source or is_named(source) or not Path(source).exists():  # an empty path would be the working folder
        return source_of(source, weights=weights)
    trained = open_weights(source)
    mean, std = (tuple(trained.pictures.get(name, usual))
                 for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    size = max(trained.space.resolutions) if trained.arch is None else trained.arch.resolution
    return Source(Path(source).resolve().name[:100], trained.net, mean, std, size,
                  Framing(**trained.pictures.get("framing", {})))


def _checked(sizes: Sequence[int] | None) -> tuple[int, ...] | None:
    """The sizes, ascending, each once."""
    for size in sizes or ():
        if not isinstance(size, int) or not 8 <= size <= 4096:
            raise UserError("--sizes", f"{size} is not a whole number from 8 to 4096")
    return tuple(sorted(set(sizes))) if sizes else None


def _own_space(net: Supernet, sizes: Sequence[int] | None, choices: Choices) -> SearchSpace:
    """The space of a supernet that is the source, with what its batch normalisation adds to variances."""
    if choices != DEFAULT:
        raise UserError("--kernels, --ratios or --depth", "has no effect on a supernet, which has its own choices",
                        "leave it out")
    assert net.stem.norm is not None
    return replace(net.space, resolutions=tuple(sizes or net.space.resolutions), bn_eps=net.stem.norm.eps)


def table_of(module: nn.Module, name: str, sizes: Sequence[int],
             choices: Choices) -> tuple[SearchSpace, dict[str, Unit]]:
    """The search space of a module that classifies, and its layers by their names in the largest sub-network's plan.

    Raises:
        UserError: it has a layer or a block that no row describes; the place names it.
    """
    try:
        return space_of(network_of(steps_of(module.eval())), name, sizes, choices)
    except UserError as error:
        if (known := first_refused(module)) is not None:  # which says more than where reading stopped
            raise UserError(f"{name}: {known[0]}", f"has {known[1]}", NO_BLOCK) from None
        raise UserError(f"{name}: {error.place}", error.problem, error.remedy) from None


def supernet_of(module: nn.Module, name: str, sizes: Sequence[int], choices: Choices) -> Supernet:
    """The supernet of a module's table with the module's weights, in eval mode.

    Raises:
        UserError: the module cannot be read, or the largest sub-network does not answer as it does.
    """
    dtypes = {parameter.dtype for parameter in module.parameters()} - {torch.float32}
    if dtypes:
        raise UserError(name, f"has weights of {dtypes.pop()}", "give module.float()")
    space, units = table_of(module, name, sizes, choices)
    if any(tensor.is_meta for tensor in module.state_dict().values()):
        raise UserError(name, "has no weights: it is on the device meta", "make it on another one")
    net = Supernet(space, units[f"head.{CLASSIFIER}"].outputs, generator=torch.Generator().manual_seed(0)).eval()
    fill(net, units)
    difference = max(_difference(net, module, size, name) for size in SIZES)
    if not difference <= TOLERANCE:
        raise UserError(name, f"its table answers otherwise: its logits differ by {difference:.2g} of their norm",
                        "this network has a layer that was taken for another one")
    return net


@torch.no_grad()
def fill(net: Supernet, units: Mapping[str, Unit]) -> None:
    """Give the supernet the weights and the BN statistics of a module's layers."""
    for layer in net.plan(net.space.largest).layers():
        unit, ours = units[layer.name], net.get_submodule(layer.name)
        if isinstance(ours, ElasticLinear):
            _copy(ours.weight, unit.layer.weight)
            _copy(ours.bias, unit.layer.bias)
            continue
        assert isinstance(ours, ElasticConvNormAct)
        _copy(ours.conv.weight, unit.layer.weight)
        bias = unit.layer.bias
        if ours.conv.bias is not None:
            _copy(ours.conv.bias, bias)
            bias = None
        if ours.norm is not None:
            if unit.norm is None:
                raise UserError(unit.name, "has no batch normalisation after it", "give the network before folding")
            _copy_norm(ours.norm, unit.norm, bias)


def _copy(ours: Tensor, theirs: Tensor | None) -> None:
    ours.copy_(torch.zeros_like(ours) if theirs is None else theirs.reshape(ours.shape))


def _copy_norm(ours: nn.BatchNorm2d, theirs: nn.BatchNorm2d | nn.BatchNorm1d, bias: Tensor | None) -> None:
    """The convolution's bias goes into the mean, and the difference in eps into the variance."""
    mean, var, weight = ours.running_mean, ours.running_var, ours.weight
    assert mean is not None
    assert var is not None
    _copy(mean, theirs.running_mean)
    _copy(var, theirs.running_var)
    var += theirs.eps - ours.eps
    if bias is not None:
        mean -= bias
    weight.fill_(1) if theirs.weight is None else _copy(weight, theirs.weight)
    _copy(ours.bias, theirs.bias)


@torch.no_grad()
def _difference(net: Supernet, module: nn.Module, size: int, name: str) -> float:
    """Norm of the difference of the logits over their norm."""
    images = torch.randn(2, net.space.in_channels, size, size, generator=torch.Generator().manual_seed(size))
    try:
        expected = module(images)
    except RuntimeError as error:
        raise UserError(name, f"does not take pictures of {size} pixels ({str(error).splitlines()[0]})",
                        "give a network that takes any size") from None
    if expected.shape != (2, net.num_classes):
        raise UserError(name, f"answers {tuple(expected.shape)} on two pictures", f"give logits (2, {net.num_classes})")
    return float((net(images, net.space.largest) - expected).norm() / expected.norm())


def fitted(net: Supernet, space: SearchSpace, num_classes: int, *, seed: int = 0) -> Supernet:
    """The supernet's weights in a space with the same largest sub-network, with a new classifier for other classes.

    Raises:
        UserError: the largest sub-network of the space is another one.
    """
    out = Supernet(space, num_classes, dropout=net.dropout, generator=torch.Generator().manual_seed(seed))
    state = out.state_dict()
    kept = {name: value for name, value in net.state_dict().items() if name in state or "kernel_" not in name}
    if num_classes != net.num_classes:
        kept = {name: value for name, value in kept.items() if not name.startswith(f"head.{CLASSIFIER}.")}
    wrong = [name for name, value in kept.items() if name not in state or state[name].shape != value.shape]
    if wrong:
        raise UserError("network.space", f"does not fit the network that it starts from, which has another {wrong[0]}",
                        "take the rows that --dump-recipe writes, and change choices alone")
    out.load_state_dict(state | kept)
    return out
