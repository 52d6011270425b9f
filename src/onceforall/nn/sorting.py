"""Channel sorting: the hidden channels of each block, most important first, before expand becomes elastic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from onceforall.nn.ops import ElasticConvNormAct
from onceforall.nn.supernet import Supernet
from onceforall.space import Arch, BlockPlan, Layer, SearchSpace, variants
from onceforall.space.plan import GATE, REDUCE

V = TypeVar("V")


@torch.no_grad()
def sort_channels(net: Supernet, trained: SearchSpace, *, keep_squeeze: bool = True,
                  spread: Mapping[str, Tensor] | None = None) -> None:
    """Sort every block's hidden channels by importance, in place (Cai et al. 2020, section 3.3, elastic width).

    The importance of a channel is the L1 norm of the weights that read it: the projection's for a hidden channel, the
    exciting layer's for a squeezed channel. The largest sub-network answers as before. Channels around a convolution of
    several groups that is not depthwise keep their places.

    Args:
        net: the supernet.
        trained: the space that its weights were trained in. A channel stays within the band of the smallest of its
            widths that already has it, so that its sub-networks answer as before.
        keep_squeeze: whether squeezed channels stay within bands too. The authors' code sorts them in full, which
            changes what sub-networks of a trained narrower width answer.
        spread: for the name of each convolution how much each channel (C,) that it reads changes its outputs, as
            `input_spread` gives it. Importance is then this number times the L2 norm of the weights that read the
            channel.
    """
    narrower = [net.plan(arch) for arch in _trained(net.space, trained)]
    for block in net.plan(net.space.free.largest).blocks():
        others = [other for plan in narrower for other in plan.blocks() if other.name == block.name]
        for writers, readers, gate in _groups(block):
            role = readers[0].role
            if any(other.last.role == writers[0].role for other in others):
                continue  # these channels are the output of a block with fewer layers, which others are added to
            order = _order(_importance(net, readers[0], spread),
                           [found.inputs for b in others if (found := b.layer(role))])
            for layer in writers:
                _permute_outputs(_layer(net, layer), order)
            for layer in readers:
                _permute_inputs(_layer(net, layer), order)
            if gate:
                reduce, excite = (_layer(net, layer) for layer in gate)
                squeeze = _order(_importance(net, gate[1], spread),
                                 [b[REDUCE].outputs for b in others] if keep_squeeze else [])
                _permute_outputs(reduce, squeeze)
                _permute_inputs(excite, squeeze)


def _trained(space: SearchSpace, trained: SearchSpace) -> Iterator[Arch]:
    """A few sub-networks of `trained` that together are narrow in every way, and as deep as those of `space`."""
    def some(values: Sequence[V], i: int) -> V:
        return values[min(i, len(values) - 1)]

    deep = replace(trained, stages=tuple(replace(stage, depth=full.depth[-1:], tied=())
                                         for stage, full in zip(trained.stages, space.stages, strict=True)))
    for w in range(max(map(len, trained.widths), default=1)):
        yield from variants(deep, [some(values, w) for values in trained.widths])


def _groups(block: BlockPlan) -> Iterator[tuple[list[Layer], list[Layer], list[Layer]]]:
    """The hidden channels of a block that are sorted together: the layers that have them as outputs, those that have
    them as inputs (the one that mixes them first), and a gate's layers between."""
    writers: list[Layer] = []
    gate: list[Layer] = []
    for layer in block.layers:
        if layer.role in GATE:
            gate.append(layer)
        elif layer.depthwise:
            writers += [layer] if writers else []  # the block's own input keeps its order
        elif layer.groups > 1:
            writers, gate = [], []  # channels keep to their groups
        else:
            if writers:
                yield [*writers, *gate[1:]], [layer, *gate[:1]], gate
            writers, gate = [layer], []


def _layer(net: Supernet, layer: Layer) -> ElasticConvNormAct:
    module = net.get_submodule(layer.name)
    assert isinstance(module, ElasticConvNormAct)
    return module


def _importance(net: Supernet, reader: Layer, spread: Mapping[str, Tensor] | None) -> Tensor:
    """The importance (C,) of each channel that a layer reads, as `sort_channels` has it."""
    weight = _layer(net, reader).conv.weight
    if spread is None:
        return weight.abs().sum((0, 2, 3))
    return weight.square().sum((0, 2, 3)).sqrt() * spread[f"{reader.name}.conv"]


def _order(importance: Tensor, bands: Sequence[int]) -> Tensor:
    """Indices of channels by falling importance in each band [0, b1), [b1, b2), ..; ties keep their order."""
    edges = [0, *sorted({b for b in bands if b < len(importance)}), len(importance)]
    return torch.cat([a + torch.argsort(importance[a:b], descending=True, stable=True)
                      for a, b in pairwise(edges)])


def _permute_outputs(layer: ElasticConvNormAct, order: Tensor) -> None:
    tensors = [layer.conv.weight, layer.conv.bias]
    if layer.norm is not None:
        tensors += [layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var]
    for tensor in tensors:
        if tensor is not None:
            tensor.copy_(tensor[order])


def _permute_inputs(layer: ElasticConvNormAct, order: Tensor) -> None:
    layer.conv.weight.copy_(layer.conv.weight[:, order])
