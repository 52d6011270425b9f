"""What a network of others has to do that is read as a supernet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from onceforall.cost import macs, params
from onceforall.nn import Supernet, extract, sort_channels
from onceforall.pretrained.reading import from_pretrained, table_of
from onceforall.pretrained.table import DEFAULT
from onceforall.pretrained.units import Unit
from onceforall.space import SearchSpace

SIZES, TOLERANCE = (64, 61), 1e-7  # of the logits' norm, in float64
UNIT, MARGIN = 2.0 ** -52, 100  # the last bit of a picture; how many times what it changes sorting may change


def check_module(module: nn.Module) -> Supernet:
    """Check that a network is read as it is, with random weights and statistics, so that a wrong mapping shows.

    The largest sub-network has to answer as the module does at an even and an odd size, before and after its channels
    are sorted, and to have its MACs and parameters; extracted ones have to answer as in the supernet; the space has to
    survive a file.

    Args:
        module: it classifies images (B, C, R, R); its weights are overwritten.

    Returns:
        The supernet.

    Raises:
        UserError: the module has no table.
        AssertionError: a rule does not hold; the message says which.
    """
    randomise(module)
    net = from_pretrained(module, sizes=SIZES[:1]).net  # which compares in float32
    space = net.space
    _, units = table_of(module, space.name, SIZES[:1], DEFAULT)
    generator = torch.Generator().manual_seed(3)
    pictures = [torch.randn(2, space.in_channels, size, size, generator=generator) for size in SIZES]
    with torch.no_grad():
        assert module(pictures[-1]).std() > 1e-3, "its logits are all alike: other weights are needed to compare"
        _check_counts(net, module, units)
        net, module = net.double(), module.double()  # deep nets with random weights make rounding large
        before = [(images.double(), module(images.double())) for images in pictures]
        for images, expected in before:
            _compare(net, images, expected, TOLERANCE, "before sorting")
        sort_channels(net, space.top)
        # sums in another order are rounded otherwise, which some nets with random weights enlarge a million times
        rounding = [float((module(images * (1 + UNIT)) - expected).norm() / expected.norm())
                    for images, expected in before]
        assert MARGIN * min(rounding) < 0.5, "its logits depend on the last bit of a picture: other weights are needed"
        for (images, expected), changed in zip(before, rounding, strict=True):
            if MARGIN * changed < 0.5:
                _compare(net, images, expected, max(TOLERANCE, MARGIN * changed), "after sorting")
        for arch in (space.smallest, space.middle):
            same = torch.equal(extract(net, arch)(images), net(images, arch))
            assert same, f"{arch} answers otherwise when it is extracted"
    assert SearchSpace.from_dict(space.to_dict()) == space, "the space is another one after it was in a file"
    return net


def randomise(module: nn.Module) -> None:
    """Statistics as after training, none of them 0 or 1; weights that keep activations in their size; eval mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in module.eval().modules():
            if isinstance(layer, nn.BatchNorm2d):
                if layer.running_mean is not None and layer.running_var is not None:
                    layer.running_mean.normal_(0, 0.1, generator=generator)
                    layer.running_var.uniform_(0.5, 1.5, generator=generator)
                if layer.affine:
                    layer.weight.uniform_(0.8, 1.2, generator=generator)
                    layer.bias.normal_(0, 0.1, generator=generator)
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    layer.bias.normal_(0, 0.1, generator=generator)


def _compare(net: Supernet, images: Tensor, expected: Tensor, tolerance: float, when: str) -> None:
    difference = float((net(images, net.space.largest) - expected).norm() / expected.norm())
    assert difference <= tolerance, f"the largest sub-network's logits differ by {difference:.2g} of their norm {when}"


def _check_counts(net: Supernet, module: nn.Module, units: Mapping[str, Unit]) -> None:
    """MACs of the convolutions and linear layers, as hooks see them; parameters but for biases that BN makes idle."""
    counted = 0

    def add(layer: nn.Module, _: object, out: Tensor) -> None:
        nonlocal counted
        assert isinstance(layer.weight, Tensor)
        counted += out[0].numel() * layer.weight[0].numel()

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    module(torch.zeros(1, net.space.in_channels, SIZES[0], SIZES[0]))
    for hook in hooks:
        hook.remove()
    found = macs(net.space, net.space.largest, num_classes=net.num_classes)
    assert found == counted, f"the largest sub-network has {found:,} MACs, and the module {counted:,}"
    idle = sum(unit.layer.bias.numel() for unit in units.values()
               if unit.norm is not None and unit.layer.bias is not None)
    own = sum(parameter.numel() for parameter in module.parameters()) - idle
    found = params(net.space, net.space.largest, num_classes=net.num_classes)
    assert found == own, f"the largest sub-network has {found:,} parameters, and the module {own:,}"
