"""Reading: a pretrained module as a supernet whose largest sub-network answers as the module does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from onceforall.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from onceforall.data.spec import Colour
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.nn.ops import ElasticConvNormAct, ElasticLinear
from onceforall.pretrained.blocks import network_of
from onceforall.pretrained.sources import SOURCES, Source, source_of
from onceforall.pretrained.steps import Unit, steps_of
from onceforall.pretrained.table import DEFAULT, Choices, space_of
from onceforall.space import SearchSpace
from onceforall.space.plan import CLASSIFIER
from onceforall.weights.nets import Trained, open_weights

TOLERANCE = 1e-5  # of the logits' norm, in float32


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained network as a supernet.

    Args:
        name: what people call it.
        net: the supernet, in eval mode. Its largest sub-network answers as the network does.
        mean: of each channel of a picture on [0, 1], which normalising subtracts.
        std: of each channel, which it then divides by.
        size: pixels that the network was trained or tested at.
    """

    name: str
    net: Supernet
    mean: Colour
    std: Colour
    size: int


def from_pretrained(source: str | nn.Module, *, sizes: Sequence[int] | None = None, choices: Choices = DEFAULT,
                    mean: Colour = IMAGENET_MEAN, std: Colour = IMAGENET_STD) -> Pretrained:
    """Read a pretrained network as a supernet.

        start = from_pretrained("timm:mobilenetv4_conv_small.e2400_r224_in1k", sizes=[128, 160])
        run = train(start.net, "pictures", stages=..., output="runs/mine")

    Args:
        source: `timm:NAME`, `torchvision:NAME`, `efficientnet_lite0` (1, 2); `timm:NAME:FILE` where there is no network
            to fetch weights from; a run or a file of weights, whose supernet keeps its own choices; or a module of your
            own, which classifies normalised images (B, 3, R, R).
        sizes: resolutions of the supernet, in pixels; None: the source's own, 224 of a module.
        choices: what becomes elastic.
        mean: of the channels of a module's pictures; a named source says it itself.
        std: likewise.

    Raises:
        UserError: there is no such source, a layer or block of it has no row, or the supernet does not answer as it
            does.
    """
    for size in sizes or ():
        if not 8 <= size <= 4096:
            raise UserError("--sizes", f"{size} is not from 8 to 4096 pixels")
    if isinstance(source, nn.Module):
        found = Source(type(source).__name__, source, mean, std, 224)
    elif source.partition(":")[0] not in SOURCES and Path(source).exists():
        trained = open_weights(source)
        if isinstance(trained.net, Supernet):
            return _kept(source, trained, trained.net, sizes)
        found = Source(source, trained.net, *_colours(trained), trained.arch.resolution if trained.arch else 224)
    else:
        found = source_of(source)
    net = supernet_of(found.module, found.name, tuple(sizes or (found.size,)), choices)
    return Pretrained(found.name, net, found.mean, found.std, found.size)


def _kept(source: str, trained: Trained, net: Supernet, sizes: Sequence[int] | None) -> Pretrained:
    """A supernet of a file, with its own choices."""
    space = net.space if sizes is None else net.space.at(sizes)
    return Pretrained(source, fitted(net, space, net.num_classes).eval(), *_colours(trained), max(space.resolutions))


def _colours(trained: Trained) -> tuple[Colour, Colour]:
    """Mean and deviation that its pictures were normalised with; ImageNet's where the file does not say."""
    return (tuple(trained.pictures.get("mean", IMAGENET_MEAN)),
            tuple(trained.pictures.get("std", IMAGENET_STD)))


def pretrained_space(source: str, *, sizes: Sequence[int] | None = None,
                     choices: Choices = DEFAULT) -> tuple[SearchSpace, int]:
    """The search space of a named source and its number of classes, without its weights.

    Args:
        source: `timm:NAME`, `torchvision:NAME` or `efficientnet_lite0` (1, 2).
        sizes: resolutions in pixels; None: the source's own.
        choices: what becomes elastic.

    Raises:
        UserError: there is no such source, or it has no table.
    """
    found = source_of(source, weights=False)
    space, units = table_of(found.module, found.name, tuple(sizes or (found.size,)), choices)
    return space, units[f"head.{CLASSIFIER}"].outputs


def table_of(module: nn.Module, name: str, sizes: Sequence[int],
             choices: Choices) -> tuple[SearchSpace, dict[str, Unit]]:
    """The search space of a module that classifies, and its layers by their names in the largest sub-network's plan.

    Raises:
        UserError: it has a layer or a block that no row describes; the place names it.
    """
    try:
        return space_of(network_of(steps_of(module.eval())), name, sizes, choices)
    except UserError as error:
        raise UserError(f"{name}: {error.place}", error.problem, error.remedy) from None


def supernet_of(module: nn.Module, name: str, sizes: Sequence[int], choices: Choices) -> Supernet:
    """The supernet of a module's table with the module's weights, in eval mode.

    Raises:
        UserError: the module cannot be read, or the largest sub-network does not answer as it does.
    """
    space, units = table_of(module, name, sizes, choices)
    net = Supernet(space, units[f"head.{CLASSIFIER}"].outputs, generator=torch.Generator().manual_seed(0)).eval()
    fill(net, units)
    difference = max(_difference(net, module, size) for size in (64, 75))
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
            _copy_norm(ours.norm, unit.norm, bias)


def _copy(ours: Tensor, theirs: Tensor | None) -> None:
    ours.copy_(torch.zeros_like(ours) if theirs is None else theirs.reshape(ours.shape))


def _copy_norm(ours: nn.BatchNorm2d, theirs: nn.BatchNorm2d | nn.BatchNorm1d | None, bias: Tensor | None) -> None:
    """The convolution's bias goes into the mean. Without a normalisation, scale and statistics do nothing."""
    mean, var, weight, shift = ours.running_mean, ours.running_var, ours.weight, ours.bias
    assert mean is not None
    assert var is not None
    if theirs is None:
        mean.zero_()
        var.fill_(1)
        weight.fill_((1 + ours.eps) ** 0.5)
        _copy(shift, bias)
        return
    _copy(mean, theirs.running_mean)
    _copy(var, theirs.running_var)
    var += theirs.eps - ours.eps
    if bias is not None:
        mean -= bias
    weight.fill_(1) if theirs.weight is None else _copy(weight, theirs.weight)
    _copy(shift, theirs.bias)


@torch.no_grad()
def _difference(net: Supernet, module: nn.Module, size: int) -> float:
    """Norm of the difference of the logits over their norm."""
    images = torch.randn(2, net.space.in_channels, size, size, generator=torch.Generator().manual_seed(size))
    expected = module(images)
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
