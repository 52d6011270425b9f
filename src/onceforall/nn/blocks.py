"""Blocks of the supernet: the layers of a block's plan on shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from onceforall.nn.ops import ElasticConvNormAct, activation
from onceforall.space import BlockPlan, Layer
from onceforall.space.plan import DEPTHWISE, EXCITE, EXPAND, REDUCE, SE, SHORTCUT


class ElasticSqueezeExcite(nn.Module):
    """Channel attention: mean over the map, reduce, excite, multiply (Hu et al. 2018)."""

    def __init__(self, reduce: Layer, excite: Layer) -> None:
        super().__init__()
        self.reduce, self.excite = ElasticConvNormAct(reduce), ElasticConvNormAct(excite)

    def forward(self, images: Tensor, plan: BlockPlan) -> Tensor:
        gate: Tensor = self.reduce(images.mean((2, 3), keepdim=True), plan[REDUCE])
        gate = self.excite(gate, plan[EXCITE])
        return images * gate


class ElasticBlock(nn.Module):
    """The block `largest` with elastic channels, and the kernels and as many layers as its plans `ways` have.
    `common`: its first parts, which give narrower plans the first channels of what they give the widest."""

    def __init__(self, largest: BlockPlan, ways: Sequence[BlockPlan]) -> None:
        super().__init__()
        parts = largest.parts()
        for name, layers in parts.items():
            kernels = sorted({layer.kernel for way in ways for layer in way.path if layer.name == layers[0].name})
            self.add_module(name, ElasticSqueezeExcite(*layers) if name == SE else ElasticConvNormAct(
                layers[0], kernels))
        self.shortcut = None if largest.shortcut is None else ElasticConvNormAct(largest.shortcut)
        self.act = activation(largest.act)
        names, always = list(parts), all(DEPTHWISE in way.parts() for way in ways)
        first = names[:names.index(DEPTHWISE) + 1] if always else []
        self.common = tuple(first) if set(first) <= {EXPAND, DEPTHWISE} else ()

    def forward(self, images: Tensor, plan: BlockPlan, users: Sequence[BlockPlan] = ()) -> Tensor:
        """Feature map (B, C, H, W) to (B, plan's output width, H / stride, W / stride); `users` as in `ops`."""
        return self.rest(self._run(self.common, images, plan, users), images, plan, users)

    def hidden(self, images: Tensor, plans: Sequence[BlockPlan]) -> dict[int, Tensor]:
        """The map after the depthwise layer (B, hidden width, H / stride, W / stride) for each kernel of `plans`.

        Each is as wide as the widest plan: a narrower one's is the first channels, since nothing mixes channels between
        expansion and projection. Each plan updates its own channels' statistics.
        """
        widest = max(plans, key=lambda plan: plan[DEPTHWISE].outputs)
        x = self._run(self.common[:-1], images, widest, plans)
        kernels = dict.fromkeys(plan[DEPTHWISE].kernel for plan in plans)
        return {kernel: self.get_submodule(DEPTHWISE)(x, replace(widest[DEPTHWISE], kernel=kernel), [
            layer for layer in _of(plans, DEPTHWISE) if layer.kernel == kernel]) for kernel in kernels}

    def rest(self, hidden: Tensor, images: Tensor, plan: BlockPlan, users: Sequence[BlockPlan] = ()) -> Tensor:
        """The block's output, from the map after its common parts and its input."""
        x = self._run(list(plan.parts())[len(self.common):], hidden, plan, users)
        if plan.residual:
            x = (images if self.shortcut is None else self.shortcut(images, plan.shortcut, _of(users, SHORTCUT))) + x
        out: Tensor = self.act(x)
        return out

    def _run(self, names: Sequence[str], x: Tensor, plan: BlockPlan, users: Sequence[BlockPlan]) -> Tensor:
        """Run some of the parts, one after the other."""
        for name in names:
            part = self.get_submodule(name)
            x = part(x, plan) if name == SE else part(x, plan[name], _of(users, name))
        return x


def _of(plans: Sequence[BlockPlan], role: str) -> list[Layer]:
    return [plan[role] for plan in plans]
