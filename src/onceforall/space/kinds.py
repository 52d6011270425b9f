"""The kinds of block: each makes a block of its place. Here and in `lowering` is the only channel arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from onceforall.errors import UserError
from onceforall.space.arch import Value
from onceforall.space.plan import (
    DEPTHWISE,
    EXCITE,
    EXPAND,
    PROJECT,
    REDUCE,
    SE,
    SHORTCUT,
    BlockPlan,
    Layer,
    make_divisible,
)
from onceforall.space.rows import StageSpace


@dataclass(frozen=True)
class Place:
    """Where a block stands: its stage, its number there, the channels that come in and go out, its map's size; its
    choices and what is fixed, by name."""

    name: str
    stage: StageSpace
    values: Mapping[str, Value]
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
        be otherwise: not where its width is elastic; and no block where `noskip` is fixed at 1."""
        return self.stride == 1 and self.inputs == self.outputs and not self["noskip"] and (
            self.index > 0 or not isinstance(self.stage.width, tuple))

    def hidden(self, channels: int) -> int:
        """Channels inside the block: as many as its `hidden` says, or `expand` times `channels`; of that the part that
        its `fraction` says. What a ratio gives is made divisible, by the channels of a group too."""
        own, part, width = int(self["hidden"]), self["fraction"] or 1, int(self["group_width"])
        ratio = 1 if own else self["expand"] or 1
        whole = (own or channels) if ratio == 1 else make_divisible(round(channels * ratio), _divisor(width))
        return whole if part == 1 else min(whole, part_of((own or channels) * ratio, part, width))

    def expands(self, hidden: int) -> bool:
        """Whether there is an expansion: where hidden channels are elastic, and where they are others than the inputs
        or the ratio is not 1; else where `expansion` is fixed at 1."""
        elastic = {"hidden", "fraction"} & dict(self.stage.elastic).keys()
        return bool(elastic or self["expansion"]) or hidden != self.inputs or self["expand"] not in (0, 1)

    def groups(self, hidden: int) -> int:
        """Groups of `group_width` of the hidden channels; 1 where that is not given."""
        width = int(self["group_width"]) or hidden
        if hidden % width:
            raise UserError(f"space {self.name}", f"{hidden} hidden channels are no groups of {width}")
        return hidden // width

    def gate(self, place: str, channels: int) -> list[Layer]:
        """The layers of the stage's squeeze-and-excitation on a map of `channels`, where it has one at that place."""
        gate = self.stage.gate
        if gate is None or gate.place != place:
            return []
        squeezed = int(self["squeezed"]) or make_divisible(
            int((self.inputs if gate.of == "inputs" else channels) * gate.ratio), gate.divisor)
        return [Layer(f"{self.name}.{SE}.{REDUCE}", channels, squeezed, bias=True, norm=False, act=gate.act),
                Layer(f"{self.name}.{SE}.{EXCITE}", squeezed, channels, bias=True, norm=False, act=gate.gate)]

    def __getitem__(self, dimension: str) -> Value:
        """The block's choice of a dimension, or what is fixed; 0 where neither is said."""
        return self.values.get(dimension, 0)


def part_of(channels: float, share: float, group_width: int = 0) -> int:
    """A share of hidden channels, made divisible by 8 and by the channels of a group."""
    return min(math.ceil(channels), make_divisible(round(channels * share), _divisor(group_width)))


def _divisor(group_width: int) -> int:
    return group_width if group_width > 8 else math.lcm(8, group_width or 8)


def mbconv(at: Place) -> BlockPlan:
    """Inverted bottleneck: expand 1x1, depthwise, squeeze-and-excitation, project 1x1 (Sandler et al. 2018).

    A `start` is the kernel of another depthwise layer before the expansion, and at `kernel` 0 there is none after it
    (MobileNetV4, Qin et al. 2024). The layer at the start has the stride where it is the only one of both, or where
    `early_stride` is fixed at 1; the projection has it where there is neither.
    """
    name, act, hidden, inputs = at.name, at.stage.act, at.hidden(at.inputs), at.inputs
    start, kernel = int(at["start"]), int(at["kernel"])
    first = bool(start and (at["early_stride"] or not kernel))
    path, size = [], at.size
    if start:
        path.append(Layer(f"{name}.start", inputs, inputs, start, at.stride if first else 1, inputs, size))
        size = path[-1].out_size
    if at.expands(hidden):
        path.append(Layer(f"{name}.{EXPAND}", inputs, hidden, size=size, act=act))
    if kernel:
        stride = 1 if first else at.stride
        path.append(Layer(f"{name}.{DEPTHWISE}", hidden, hidden, kernel, stride, hidden, size, act=act))
        size = path[-1].out_size
    path += at.gate("middle", hidden)
    path.append(Layer(f"{name}.{PROJECT}", hidden, at.outputs, stride=1 if start or kernel else at.stride, size=size))
    return BlockPlan(name, (*path, *at.gate("end", at.outputs)), at.same)


def _fused_mbconv(at: Place) -> BlockPlan:
    """Fused inverted bottleneck: expand k x k, project 1x1; one k x k convolution at ratio 1 (Tan and Le 2021)."""
    name, act, hidden, kernel = at.name, at.stage.act, at.hidden(at.inputs), int(at["kernel"] or 3)
    if not at.expands(hidden):
        path = [Layer(f"{name}.conv", at.inputs, at.outputs, kernel, at.stride, size=at.size, act=act),
                *at.gate("middle", at.outputs)]
    else:
        expand = Layer(f"{name}.{EXPAND}", at.inputs, hidden, kernel, at.stride, size=at.size, act=act)
        path = [expand, *at.gate("middle", hidden),
                Layer(f"{name}.{PROJECT}", hidden, at.outputs, size=expand.out_size)]
    return BlockPlan(name, (*path, *at.gate("end", at.outputs)), at.same)


def _conv(at: Place) -> BlockPlan:
    """One convolution, 3x3 unless it has a `kernel`; where it keeps the width, its input is added to it."""
    layer = Layer(f"{at.name}.conv", at.inputs, at.outputs, int(at["kernel"] or 3), at.stride, size=at.size,
                  act=at.stage.act, pool="max" if at["pool"] else None)
    return BlockPlan(at.name, (layer,), at.same)


def _bottleneck(at: Place) -> BlockPlan:
    """Bottleneck: 1x1, 3x3 unless it has a `kernel`, 1x1, and a shortcut (He et al. 2016).

    The shortcut is mean pooling and 1x1 (ResNet-D, He et al. 2019), or 1x1 with the stride. The middle
    layer has groups of `group_width` channels where that is given (ResNeXt, RegNet).
    """
    name, act, hidden = at.name, at.stage.act, at.hidden(at.outputs)
    reduce = Layer(f"{name}.conv1", at.inputs, hidden, size=at.size, act=act)
    middle = Layer(f"{name}.conv2", hidden, hidden, int(at["kernel"] or 3), at.stride, at.groups(hidden), at.size,
                   act=act)
    path = (reduce, middle, *at.gate("middle", hidden),
            Layer(f"{name}.conv3", hidden, at.outputs, size=middle.out_size), *at.gate("end", at.outputs))
    return BlockPlan(name, path, True, _shortcut(at), act)


def _basic(at: Place) -> BlockPlan:
    """Basic block: two convolutions, 3x3 unless it has a `kernel`, and a bottleneck's shortcut (He et al. 2016)."""
    name, act, hidden, kernel = at.name, at.stage.act, at.hidden(at.outputs), int(at["kernel"] or 3)
    first = Layer(f"{name}.conv1", at.inputs, hidden, kernel, at.stride, size=at.size, act=act)
    path = (first, *at.gate("middle", hidden),
            Layer(f"{name}.conv2", hidden, at.outputs, kernel, size=first.out_size), *at.gate("end", at.outputs))
    return BlockPlan(name, path, True, _shortcut(at), act)


def _shortcut(at: Place) -> Layer | None:
    """Mean pooling and 1x1, or 1x1 with the stride where `strided` is fixed at 1; none where the input is added."""
    return None if at.same else Layer(f"{at.name}.{SHORTCUT}", at.inputs, at.outputs, stride=at.stride, size=at.size,
                                      pool="mean" if at.stride > 1 and not at["strided"] else None)


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
    shortcut = None if at.same else Layer(f"{name}.{SHORTCUT}", at.inputs, at.outputs, stride=at.stride, size=at.size)
    return BlockPlan(name, tuple(path), True, shortcut)


def _sepconv(at: Place) -> BlockPlan:
    """One separable convolution with its activation at the end, and no shortcut (Chollet 2017)."""
    depthwise = Layer(f"{at.name}.depthwise1", at.inputs, at.inputs, 3, groups=at.inputs, size=at.size, norm=False)
    return BlockPlan(at.name, (depthwise, Layer(f"{at.name}.pointwise1", at.inputs, at.outputs, size=at.size,
                                                act=at.stage.act)), False)


KINDS: dict[str, Callable[[Place], BlockPlan]] = {
    "mbconv": mbconv, "fused_mbconv": _fused_mbconv, "conv": _conv, "bottleneck": _bottleneck,
    "basic": _basic, "separable": _separable,
    "sepconv": _sepconv}
