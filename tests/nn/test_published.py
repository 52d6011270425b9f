"""Published networks: their rows have as many parameters, and with their weights give the same logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torchvision
from published import TIMM, TORCHVISION
from torch import Tensor, nn

from onceforall.cost import params
from onceforall.nn import build
from onceforall.nn.subnet import Subnet
from onceforall.space import SearchSpace, lower
from onceforall.testing.module import randomise

LARGE = {"efficientnet_v2_s", "resnext50_32x4d", "mobilenetv4_conv_medium", "resnet50d", "seresnet50"}
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


def marked(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in names]


def in_order(net: nn.Module, images: Tensor) -> list[nn.Module]:
    """Its layers with weights in the order in which they run; a block's shortcut last."""
    names = {module: name for name, module in net.named_modules()}
    ran: list[nn.Module] = []
    hooks = [module.register_forward_hook(lambda module, *_: ran.append(module)) for module in names
             if isinstance(module, LAYERS)]
    net(images)
    for hook in hooks:
        hook.remove()
    blocks = {name.partition(".proj.")[0]: [] for name in names.values() if ".proj." in name}  # of RegNet
    for module in [module for module in ran if ".proj." in names[module]]:
        ran.remove(module)
        blocks[names[module].partition(".proj.")[0]].append(module)
    for block, shortcut in blocks.items():
        after = max(i for i, module in enumerate(ran) if names[module].startswith(f"{block}."))
        ran[after + 1:after + 1] = shortcut
    return ran


@torch.no_grad()
def filled(space: SearchSpace, reference: nn.Module, images: Tensor) -> Subnet:
    """The space's only sub-network with the tensors of `reference`, in the order in which the layers run."""
    plan = lower(space, space.largest)
    net = Subnet(plan, bn_eps=space.bn_eps).to(images.dtype).eval()
    for ours, theirs in zip(in_order(net, images), in_order(reference, images), strict=True):
        state = theirs.state_dict()
        for name, tensor in ours.state_dict().items():
            tensor.copy_(state[name].reshape(tensor.shape))  # a linear layer on one pixel is a 1x1 convolution
    return build(plan, net.state_dict(), bn_eps=space.bn_eps).eval()


def check(space: SearchSpace, reference: nn.Module, size: int) -> None:
    reference = reference.double().eval()
    randomise(reference)
    assert space.count == 1
    assert params(space, space.largest) == sum(p.numel() for p in reference.parameters())
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    net = filled(space, reference, images)
    with torch.no_grad():
        expected = reference(images)
        torch.testing.assert_close(net(images), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
    assert expected.std() > 1e-3


@pytest.mark.parametrize("name", marked(TORCHVISION))
def test_networks_of_torchvision(name):
    check(TORCHVISION[name], getattr(torchvision.models, name)(weights=None), 48)


@pytest.mark.parametrize("size", [48, 65])
@pytest.mark.parametrize("name", marked(TIMM))
def test_networks_of_timm(name, size):
    """At an odd size, too, where TensorFlow's padding is another one."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    check(TIMM[name], timm.create_model(name, pretrained=False), size)


@pytest.mark.parametrize("name", [*TORCHVISION, *TIMM])
def test_files_hold_them(name):
    space = {**TORCHVISION, **TIMM}[name]
    assert SearchSpace.from_dict(space.to_dict()) == space
