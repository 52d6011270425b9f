"""Channel sorting: the hidden channels of each block, most important first, before expand becomes elastic."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from onceforall.nn.blocks import ElasticMBConv
from onceforall.nn.ops import ElasticConvNormAct
from onceforall.nn.supernet import Supernet
from onceforall.space import SearchSpace


@torch.no_grad()
def sort_channels(net: Supernet, trained: SearchSpace, *, keep_squeeze: bool = True) -> None:
    """Sort every block's hidden channels by importance, in place; the largest sub-network answers as before.

    Importance of a hidden channel: L1 norm of the projection weights that read it; of an SE squeeze channel: L1 norm
    of the excite weights that read it (Cai et al. 2020, section 3.3, elastic width). `trained` is the space the
    weights were trained in: a channel stays within the band of the smallest of its expand ratios that already has it;
    SE's squeeze channels likewise, unless `keep_squeeze` is False, as in the authors' code: they are then sorted in
    full, which changes what sub-networks of a trained narrower ratio answer.
    """
    expands = sorted({e for stage in trained.stages for e in stage.choices["expand"]})
    bands = [net.space.restrict(expand=(e,)) for e in expands]
    narrower = [net.plan(space.largest) for space in bands]
    for blocks in zip(net.plan(net.space.largest).blocks(), *(plan.blocks() for plan in narrower), strict=True):
        module = net.get_submodule(blocks[0].name)
        assert isinstance(module, ElasticMBConv)
        if module.expand is None:
            continue
        order = _order(module.project.conv.weight.abs().sum((0, 2, 3)), [b["depthwise"].outputs for b in blocks[1:]])
        _permute_outputs(module.expand, order)
        _permute_outputs(module.depthwise, order)
        _permute_inputs(module.project, order)
        if module.se is not None:
            _permute_inputs(module.se.reduce, order)
            _permute_outputs(module.se.excite, order)
            squeeze = _order(module.se.excite.conv.weight.abs().sum((0, 2, 3)),
                             [b["reduce"].outputs for b in blocks[1:]] if keep_squeeze else [])
            _permute_outputs(module.se.reduce, squeeze)
            _permute_inputs(module.se.excite, squeeze)


def _order(importance: Tensor, bands: Sequence[int]) -> Tensor:
    """Indices by falling importance within each band [0, b1), [b1, b2), ..; ties keep their order."""
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
