"""Blocks of the supernet, one class a kind: each runs the block of a plan on shared weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from onceforall.nn.ops import ElasticConvNormAct
from onceforall.space import BlockPlan


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

    def forward(self, images: Tensor, plan: BlockPlan) -> Tensor:
        """Feature map (B, C, H, W) to (B, plan's output width, H / stride, W / stride)."""
        x: Tensor = images if self.expand is None else self.expand(images, plan["expand"])
        x = self.depthwise(x, plan["depthwise"])
        if self.se is not None:
            x = self.se(x, plan)
        x = self.project(x, plan["project"])
        return images + x if plan.residual else x


ELASTIC_BLOCKS = {"mbconv": ElasticMBConv}
