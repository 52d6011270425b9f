"""The static builder: a sub-network as an ordinary module of torch layers, alone or cut out of a supernet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from onceforall.nn.ops import ElasticConvNormAct, ElasticLinear, Pad, activation, own_padding, pool
from onceforall.nn.supernet import Supernet
from onceforall.space import Arch, BlockPlan, Layer, Plan
from onceforall.space.plan import CLASSIFIER, SE


class SqueezeExcite(nn.Module):
    """Channel attention: mean over the map, reduce, excite, multiply (Hu et al. 2018)."""

    def __init__(self, reduce: Layer, excite: Layer) -> None:
        super().__init__()
        self.reduce, self.excite = conv_norm_act(reduce), conv_norm_act(excite)

    def forward(self, images: Tensor) -> Tensor:
        gate: Tensor = self.excite(self.reduce(images.mean((2, 3), keepdim=True)))
        return images * gate


class PlainBlock(nn.Module):
    """The layers of a block's plan, one after the other; what the plan says is added to what they give."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self._length = len(plan.parts())
        for name, layers in plan.parts().items():
            self.add_module(name, SqueezeExcite(*layers) if name == SE else conv_norm_act(layers[0]))
        self.residual = plan.residual
        self.shortcut = None if plan.shortcut is None else conv_norm_act(plan.shortcut)
        self.act = None if plan.act is None else activation(plan.act)

    def forward(self, images: Tensor) -> Tensor:
        """Feature map (B, C, H, W) to (B, output width, H / stride, W / stride)."""
        x = images
        for layer in islice(self._modules.values(), self._length):  # by name they would take 7 % of a small net's time
            assert layer is not None
            x = layer(x)
        if self.residual:
            x = (images if self.shortcut is None else self.shortcut(images)) + x
        return x if self.act is None else self.act(x)


class GlobalMean(nn.Module):
    """Mean over the map, (B, C, H, W) to (B, C, 1, 1)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3), keepdim=True)


class Subnet(nn.Sequential):
    """One sub-network of plain torch layers: `net(images)` gives logits (B, num_classes). Its tensors hold anything."""

    def __init__(self, plan: Plan, *, dropout: float = 0.0, bn_momentum: float = 0.1, bn_eps: float = 1e-5) -> None:
        *mixed, classifier = plan.head
        head = OrderedDict[str, nn.Module]({layer.role: conv_norm_act(layer) for layer in plan.features})
        head["pool"] = GlobalMean()
        head |= {layer.role: conv_norm_act(layer) for layer in mixed}
        head |= {"flatten": nn.Flatten(), "dropout": nn.Dropout(dropout),
                 CLASSIFIER: _empty(nn.Linear, classifier.inputs, classifier.outputs)}
        super().__init__(OrderedDict[str, nn.Module](
            stem=conv_norm_act(plan.stem), first=_blocks(plan.first),
            stages=nn.Sequential(*map(_blocks, plan.stages)), head=nn.Sequential(head)))
        self.plan = plan
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = bn_momentum, bn_eps


def conv_norm_act(layer: Layer) -> nn.Sequential:
    """The layer's convolution, normalisation, activation and pooling, as plain torch modules whose tensors hold
    anything."""
    act = [] if layer.act is None else [("act", activation(layer.act, first=layer.act_first))]
    parts: list[tuple[str, nn.Module]] = [("conv", _empty(
        nn.Conv2d, layer.inputs, layer.outputs, layer.kernel, layer.conv_stride, own_padding(layer),
        groups=layer.groups, bias=layer.bias))]
    if layer.uneven:
        parts.insert(0, ("pad", Pad(layer)))
    if layer.norm:
        parts.append(("norm", _empty(nn.BatchNorm2d, layer.outputs)))
    parts = [*act, *parts] if layer.act_first else [*parts, *act]
    if layer.pool is not None:
        parts.insert(0 if layer.pool == "mean" else len(parts), ("pool", pool(layer)))
    return nn.Sequential(OrderedDict[str, nn.Module](parts))


def _empty(kind: type[nn.Conv2d | nn.BatchNorm2d | nn.Linear], *sizes: int, **settings: Any) -> nn.Module:
    """A torch layer without the random start, which takes most of the time to build a net."""
    layer: nn.Module = _EMPTY[kind](*sizes, **settings)
    layer.__class__ = kind
    return layer


_EMPTY = {kind: type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})
          for kind in (nn.Conv2d, nn.BatchNorm2d, nn.Linear)}


def build(plan: Plan, state: Mapping[str, Tensor], *, dropout: float = 0.0, bn_momentum: float = 0.1,
          bn_eps: float = 1e-5) -> Subnet:
    """The plan as a module that takes over the tensors of `state`; raises RuntimeError where they do not fit."""
    with torch.device("meta"):  # touches no memory
        net = Subnet(plan, dropout=dropout, bn_momentum=bn_momentum, bn_eps=bn_eps)
    rest = dict(state)
    for prefix, module in net.named_modules():  # as load_state_dict(assign=True) would, in a fifth of the time
        for held in (module._parameters, module._buffers):
            for name, empty in held.items():
                if empty is not None:
                    tensor = rest.pop(f"{prefix}.{name}", None)
                    if tensor is None or tensor.shape != empty.shape:
                        raise RuntimeError(f"{prefix}.{name} of shape {tuple(empty.shape)} is not in the state")
                    held[name] = nn.Parameter(tensor) if isinstance(empty, nn.Parameter) else tensor
    if rest:
        raise RuntimeError(f"{next(iter(rest))} is not in the net")
    return net


@torch.no_grad()
def extract(supernet: Supernet, arch: Arch) -> Subnet:
    """Cut a sub-network out of the supernet.

    Args:
        supernet: the supernet.
        arch: a sub-network of its space.

    Returns:
        A module of plain torch layers with copies of the weights and of the BN statistics. On a CPU it answers as
        `supernet(images, arch)` does, bit for bit, at one thread count and in one memory format. It keeps the mode,
        device, dtype and memory format. Its BN statistics are the supernet's: see `recalibrate`.

    Raises:
        UserError: the space does not have the sub-network.
    """
    plan = supernet.plan(arch)
    return built_like(supernet, plan, {name: tensor.clone() for name, tensor in parts(supernet, plan).items()})


@torch.no_grad()
def parts(supernet: Supernet, plan: Plan) -> dict[str, Tensor]:
    """The state of a sub-network: views of the supernet's tensors; kernels that are transformed are new tensors."""
    return {f"{layer.name}.{name}": tensor.detach() for layer in plan.layers()
            for name, tensor in _elastic(supernet, layer).tensors(layer).items()}


def built_like(supernet: Supernet, plan: Plan, state: Mapping[str, Tensor]) -> Subnet:
    """`build`, with the supernet's dropout, BN settings and mode."""
    norm = supernet.stem.norm
    assert norm is not None
    net = build(plan, state, dropout=supernet.dropout, bn_momentum=norm.momentum or 0.0, bn_eps=norm.eps)
    return net.train(supernet.training)


def _elastic(supernet: Supernet, layer: Layer) -> ElasticConvNormAct | ElasticLinear:
    module = supernet.get_submodule(layer.name)
    assert isinstance(module, ElasticConvNormAct | ElasticLinear)
    return module


def _blocks(plans: Iterable[BlockPlan]) -> nn.Sequential:
    return nn.Sequential(*map(PlainBlock, plans))
