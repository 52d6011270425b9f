"""Blocks of the supernet, one class a kind: each runs the block of a plan on shared weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from onceforall.nn.ops import ElasticConvNormAct
from onceforall.space import BlockPlan, Layer


class ElasticSqueezeExcite(nn.Module):
    """Channel attention: mean over the map, reduce, ReLU, excite, hard sigmoid, multiply (Hu et al. 2018)."""

    def __init__(self, largest: BlockPlan) -> None:
        super().__init__()
        self.reduce = ElasticConvNormAct(largest["reduce"])
        self.excite = ElasticConvNormAct(largest["excite"])

    def forward(self, images: Tensor, plan: BlockPlan) -> Tensor:
        gate: Tensor = self.reduce(images.mean((2, 3), keepdim=True), plan["reduce"])
        gate = self.excite(gate, plan["excite"])
        return images * gate


class ElasticMBConv(nn.Module):
    """Inverted bottleneck with elastic kernel and hidden width (Sandler et al. 2018; Howard et al. 2019)."""

    def __init__(self, largest: BlockPlan, kernels: Sequence[int]) -> None:
        super().__init__()
        expand = largest.layer("expand")
        self.expand = None if expand is None else ElasticConvNormAct(expand)
        self.depthwise = ElasticConvNormAct(largest["depthwise"], kernels)
        self.se = None if largest.layer("reduce") is None else ElasticSqueezeExcite(largest)
        self.project = ElasticConvNormAct(largest["project"])

    def forward(self, images: Tensor, plan: BlockPlan, users: Sequence[BlockPlan] = ()) -> Tensor:
        """Feature map (B, C, H, W) to (B, plan's output width, H / stride, W / stride); `users` as in `ops`."""
        x = images if self.expand is None else self.expand(images, plan["expand"], _of(users, "expand"))
        x = self.depthwise(x, plan["depthwise"], _of(users, "depthwise"))
        return self.project_from(x, images, plan, users)

    def hidden(self, images: Tensor, plans: Sequence[BlockPlan]) -> dict[int, Tensor]:
        """The map after the depthwise layer (B, hidden width, H / stride, W / stride) for each kernel of `plans`.

        Each is as wide as the widest plan: a narrower one's is the first channels, since nothing mixes channels between
        expansion and projection. Each plan updates its own channels' statistics.
        """
        widest = max(plans, key=lambda plan: plan["depthwise"].outputs)
        x = images if self.expand is None else self.expand(images, widest["expand"], _of(plans, "expand"))
        kernels = dict.fromkeys(plan["depthwise"].kernel for plan in plans)
        return {kernel: self.depthwise(x, replace(widest["depthwise"], kernel=kernel), [
            layer for layer in _of(plans, "depthwise") if layer.kernel == kernel]) for kernel in kernels}

    def project_from(self, hidden: Tensor, images: Tensor, plan: BlockPlan, users: Sequence[BlockPlan] = ()) -> Tensor:
        """The block's output, from the map after its depthwise layer and its input."""
        x: Tensor = hidden if self.se is None else self.se(hidden, plan)
        x = self.project(x, plan["project"], _of(users, "project"))
        return images + x if plan.residual else x


def _of(plans: Sequence[BlockPlan], role: str) -> list[Layer]:
    return [plan[role] for plan in plans]


ELASTIC_BLOCKS = {"mbconv": ElasticMBConv}
