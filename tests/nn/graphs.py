"""What tests of written graphs share: layers of every kind, what torch answers, and whole sub-networks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from onceforall.nn import Supernet, extract
from onceforall.nn.folding import fold
from onceforall.space import Layer, search_space
from onceforall.space.parts import Part, parts
from onceforall.space.plan import ACTIVATIONS

TORCH = {"relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "swish": F.silu, "sigmoid": torch.sigmoid,
         "hsigmoid": F.hardsigmoid, "gelu": F.gelu, "mish": F.mish}


def numbers():
    """The same random weights each time."""
    def values(layer: Layer, kind: str) -> np.ndarray:
        shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
        source = np.random.default_rng(int(kind == "bias"))
        return source.standard_normal(shape if kind == "weight" else layer.outputs).astype(np.float32)
    return values


def expected(layer: Layer, images: Tensor) -> Tensor:
    values = numbers()
    weight, bias = (torch.from_numpy(values(layer, kind)) for kind in ("weight", "bias"))
    if layer.act_first:
        images = TORCH[layer.act](images)
    if layer.pool == "mean":
        images = F.avg_pool2d(images, layer.stride, ceil_mode=True, count_include_pad=False)
    start, end = layer.pads(images.shape[-1])
    out = F.conv2d(F.pad(images, (start, end, start, end)), weight, bias if layer.norm else None, layer.conv_stride,
                   groups=layer.groups)
    if layer.act and not layer.act_first:
        out = TORCH[layer.act](out)
    return F.max_pool2d(out, 3, 2, 1) if layer.pool == "max" else out


LAYERS = [
    *(Layer("x", 4, 6, kernel, stride, size=size, padding=padding)
      for kernel, stride, size, padding in product((1, 3, 5, 7), (1, 2), (8, 9), ("centre", "same"))),
    *(Layer("x", 4, outputs, 5, 2, groups=4, size=size, padding=padding, act="relu6")
      for outputs, size, padding in product((4, 8), (8, 9), ("centre", "same"))),
    Layer("x", 8, 12, 3, 2, groups=2, size=9), Layer("x", 4, 6, 3, size=9, norm=False),
    *(Layer("x", 4, 6, 3, stride, size=size, pool=pool, act="relu")
      for stride, size, pool in product((2,), (8, 9, 13), ("mean", "max"))),
    *(Layer("x", 4, 6, 3, size=8, act=act, act_first=first) for act, first in product(ACTIVATIONS[1:], (False, True))),
]


def whole(name: str, pick: Any) -> tuple[torch.nn.Module, list[Part], Any]:
    """A sub-network with random weights, its parts, and its weights for the writer."""
    space = search_space(f"{name}?width_mult=0.15")
    net = fold(extract(Supernet(space, 10, generator=torch.Generator().manual_seed(5)), pick(space)).eval())
    state = net.state_dict()

    def values(layer: Layer, kind: str) -> np.ndarray:
        return state.get(f"{layer.name}.conv.{kind}", state.get(f"{layer.name}.{kind}")).numpy()
    return net, [part for _, part in parts(net.plan)], values
