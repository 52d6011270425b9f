"""The kinds of block: each makes a block of its place. Here and in `lowering` is the only channel arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from onceforall.space.arch import Block, Value
from onceforall.space.plan import BlockPlan, Layer, make_divisible
from onceforall.space.rows import StageSpace


@dataclass(frozen=True)
class Place:
    """Where a block stands: its stage, its number there, the channels that come in and go out, its map's size."""

    name: str
    stage: StageSpace
    block: Block
    index: int
    inputs: int
    outputs: int
    size: int

    @property
    def stride(self) -> int:
        """The stage's, in its first block."""
        return self.stage.stride if self.index == 0 else 1

    @property
    def same(self) -> bool:
        """Whether what comes in can be added to what goes out. A stage's first block does so only where it could never
        be otherwise: not where its width is elastic."""
        return self.stride == 1 and self.inputs == self.outputs and (
            self.index > 0 or not isinstance(self.stage.width, tuple))

    def hidden(self, channels: int) -> int:
        """Channels inside the block: as many as its `hidden` says, or `expand` times `channels`; of that the part that
        its `fraction` says. What a ratio gives is made divisible."""
        own, part = int(self["hidden"]), self["fraction"] or 1
        ratio = part if own else (self["expand"] or 1) * part
        return (own or channels) if ratio == 1 else make_divisible(round((own or channels) * ratio))

    def __getitem__(self, dimension: str) -> Value:
        return self.stage.value(self.block, dimension, self.index)


def mbconv(at: Place) -> BlockPlan:
    """Inverted bottleneck: expand 1x1, depthwise, squeeze-and-excitation, project 1x1 (Sandler et al. 2018)."""
    name, act, hidden = at.name, at.stage.act, at.hidden(at.inputs)
    expanded = hidden != at.inputs or at["expand"] not in (0, 1)
    path = [Layer(f"{name}.expand", at.inputs, hidden, size=at.size, act=act)] if expanded else []
    depthwise = Layer(f"{name}.depthwise", hidden, hidden, int(at["kernel"]), at.stride, hidden, at.size, act=act)
    path.append(depthwise)
    if at.stage.se:
        squeeze = make_divisible(hidden // 4)
        path += [Layer(f"{name}.se.reduce", hidden, squeeze, bias=True, norm=False, act="relu"),
                 Layer(f"{name}.se.excite", squeeze, hidden, bias=True, norm=False, act="hsigmoid")]
    path.append(Layer(f"{name}.project", hidden, at.outputs, size=depthwise.out_size))
    return BlockPlan(name, tuple(path), at.same)


def _conv(at: Place) -> BlockPlan:
    """One 3x3 convolution; where it keeps the width, its input is added to it."""
    layer = Layer(f"{at.name}.conv", at.inputs, at.outputs, 3, at.stride, size=at.size, act=at.stage.act,
                  pool="max" if at["pool"] else None)
    return BlockPlan(at.name, (layer,), at.same)


def _bottleneck(at: Place) -> BlockPlan:
    """Bottleneck of ResNet-D: 1x1, 3x3, 1x1, and on the shortcut mean and 1x1 (He et al. 2016; He et al. 2019)."""
    name, act, hidden = at.name, at.stage.act, at.hidden(at.outputs)
    reduce = Layer(f"{name}.conv1", at.inputs, hidden, size=at.size, act=act)
    middle = Layer(f"{name}.conv2", hidden, hidden, 3, at.stride, size=at.size, act=act)
    shortcut = None if at.same else Layer(f"{name}.shortcut", at.inputs, at.outputs, stride=at.stride, size=at.size,
                                          pool="mean" if at.stride > 1 else None)
    return BlockPlan(name, (reduce, middle, Layer(f"{name}.conv3", hidden, at.outputs, size=middle.out_size)), True,
                     shortcut, act)


def _separable(at: Place) -> BlockPlan:
    """Separable convolutions, each after its activation, then max pooling where there is a stride; on the shortcut 1x1
    where it has another width or size (Chollet 2017)."""
    name, count = at.name, int(at["layers"])
    widths = [at.inputs, *[at.hidden(at.inputs)] * (count - 1), at.outputs]
    path = []
    for i, (width, wider) in enumerate(pairwise(widths), 1):
        path += [Layer(f"{name}.depthwise{i}", width, width, int(at["kernel"]), groups=width, size=at.size, norm=False,
                       act=at.stage.act, act_first=True),
                 Layer(f"{name}.pointwise{i}", width, wider, size=at.size,
                       pool="max" if at.stride > 1 and i == count else None)]
    shortcut = None if at.same else Layer(f"{name}.shortcut", at.inputs, at.outputs, stride=at.stride, size=at.size)
    return BlockPlan(name, tuple(path), True, shortcut)


def _sepconv(at: Place) -> BlockPlan:
    """One separable convolution with its activation at the end, and no shortcut (Chollet 2017)."""
    depthwise = Layer(f"{at.name}.depthwise1", at.inputs, at.inputs, 3, groups=at.inputs, size=at.size, norm=False)
    return BlockPlan(at.name, (depthwise, Layer(f"{at.name}.pointwise1", at.inputs, at.outputs, size=at.size,
                                                act=at.stage.act)), False)


KINDS: dict[str, Callable[[Place], BlockPlan]] = {
    "mbconv": mbconv, "conv": _conv, "bottleneck": _bottleneck, "separable": _separable,
    "sepconv": _sepconv}
