"""A search space whose blocks share no layer name with ours: an elastic 3x3 convolution that widens, and a 1x1 one."""

from __future__ import annotations

from onceforall.space import CATALOG, BlockPlan, Head, Layer, SearchSpace, StageSpace, Stem, make_divisible
from onceforall.space.kinds import KINDS, Place
from onceforall.space.rows import elastic


def fused(at: Place) -> BlockPlan:
    """The layers `grow` and `shrink` (Tan and Le 2021, "fused" there)."""
    hidden = make_divisible(at.inputs * at["expand"])
    grow = Layer(f"{at.name}.grow", at.inputs, hidden, 3, at.stride, size=at.size, act=at.stage.act)
    return BlockPlan(at.name, (grow, Layer(f"{at.name}.shrink", hidden, at.outputs, size=grow.out_size)), at.same)


def fused_net() -> SearchSpace:
    """For pictures of 8 and 16 pixels."""
    choices = elastic({"expand": (2, 4)})
    rows = tuple(StageSpace(width, (1, 2), 2, "relu", se=False, elastic=choices, kind="fused") for width in (16, 24))
    return SearchSpace("fused_net", (8, 16), Stem(8, 1, "relu"), rows, Head(0, 48, "relu"))


KINDS["fused"] = fused
CATALOG["fused_net"] = fused_net
