"""Plan: the concrete layers of one sub-network. The only place with channel arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from onceforall.errors import UserError
from onceforall.space.arch import Arch, Block, Value
from onceforall.space.rows import Head, StageSpace, Width
from onceforall.space.search_space import SearchSpace


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, not under it by more than a tenth (Howard et al. 2019)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer with what directly belongs to it.

    `name`: its dotted path in supernet and extracted net alike; `size`: side of its square input map in
    pixels; `norm`: batch normalisation follows; `act`: "relu", "relu6", "hswish", "swish", "hsigmoid" or None, after
    that, or before the convolution where `act_first`; `pool`: "mean" means windows of stride x stride before the
    convolution, which then has no stride; "max" of 3 x 3 at stride 2 at the end.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    size: int = 1
    bias: bool = False
    norm: bool = True
    act: str | None = None
    act_first: bool = False
    pool: str | None = None

    @property
    def conv_size(self) -> int:
        """Side of the convolution's output map, at padding kernel // 2; windows that a border cuts count."""
        return (self.size - 1) // self.stride + 1

    @property
    def out_size(self) -> int:
        """Side of the output map."""
        return (self.conv_size - 1) // 2 + 1 if self.pool == "max" else self.conv_size

    @property
    def conv_stride(self) -> int:
        """The convolution's own stride."""
        return 1 if self.pool == "mean" else self.stride

    @property
    def role(self) -> str:
        """The last part of the name, such as `depthwise`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class BlockPlan:
    """One block: its layers in the order they run, whether its input is added to its output (`shortcut`: through which
    layer), and the activation after that.

    Layers whose names go on with `se` are a gate (reduce, excite) on what the layer before them gives.
    """

    name: str
    path: tuple[Layer, ...]
    residual: bool
    shortcut: Layer | None = None
    act: str | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All its layers, the shortcut's last."""
        return self.path if self.shortcut is None else (*self.path, self.shortcut)

    def parts(self) -> dict[str, tuple[Layer, ...]]:
        """The path's layers by the next word of their name: each alone, a gate's two together."""
        out: dict[str, tuple[Layer, ...]] = {}
        for layer in self.path:
            word = layer.name.removeprefix(f"{self.name}.").partition(".")[0]
            out[word] = (*out.get(word, ()), layer)
        return out

    def layer(self, role: str) -> Layer | None:
        """The layer of that role ("expand", "depthwise", "reduce", "excite", "project"), None if absent."""
        return next((layer for layer in self.layers if layer.role == role), None)

    def __getitem__(self, role: str) -> Layer:
        return next(layer for layer in self.layers if layer.role == role)


@dataclass(frozen=True)
class Plan:
    """All layers of one sub-network, in the order of the forward pass; the global mean stands between `features` and
    `head`, whose last layer is the classifier."""

    resolution: int
    stem: Layer
    first: tuple[BlockPlan, ...]
    stages: tuple[tuple[BlockPlan, ...], ...]
    features: tuple[Layer, ...]
    head: tuple[Layer, ...]

    def blocks(self) -> Iterator[BlockPlan]:
        """Stem blocks, then the elastic stages' blocks."""
        yield from self.first
        for blocks in self.stages:
            yield from blocks

    def layers(self) -> Iterator[Layer]:
        """Every layer, in order."""
        yield self.stem
        for block in self.blocks():
            yield from block.layers
        yield from self.features
        yield from self.head


@lru_cache(maxsize=256)  # of 20 KiB each
def lower(space: SearchSpace, arch: Arch, num_classes: int = 1000) -> Plan:
    """The plan of `arch`, a sub-network of `space`, tied or not; raises UserError where it is not one."""
    space.free.check(arch)
    widths = iter(arch.widths)

    def own(width: Width) -> int:
        return next(widths) if isinstance(width, tuple) else width

    stem = Layer("stem", space.in_channels, own(space.stem.width), 3, space.stem.stride, size=arch.resolution,
                 act=space.stem.act)
    cursor = _Cursor(stem.outputs, stem.out_size)
    first = tuple(cursor.block(f"first.{i}", stage, stage.end(-1)[0], 0, own(stage.width))
                  for i, stage in enumerate(space.stem.stages))
    stages = []
    for s, (stage, blocks) in enumerate(zip(space.stages, arch.stages, strict=True)):
        width = own(stage.width)
        stages.append(tuple(cursor.block(f"stages.{s}.{b}", stage, block, b, width) for b, block in enumerate(blocks)))
    features, head = _head(space.head, cursor, own(space.head.mix), num_classes)
    return Plan(arch.resolution, stem, first, tuple(stages), features, head)


def variants(space: SearchSpace, widths: Sequence[int]) -> Iterator[Arch]:
    """Sub-networks of all blocks that together have every combination of the choices of every block.

    Args:
        space: of which they are; what is tied in it is free here.
        widths: the elastic widths of all of them, in channels.
    """
    ways = [[stage.ways(b) for b in range(max(stage.depth))] for stage in space.stages]
    for way in range(max((len(block) for blocks in ways for block in blocks), default=1)):
        yield Arch(max(space.resolutions), tuple(
            tuple(stage.block(block[min(way, len(block) - 1)]) for block in blocks)
            for stage, blocks in zip(space.stages, ways, strict=True)), tuple(widths))


@dataclass
class _Cursor:
    """Where the walk through the network stands: channels and map size that reach the next block."""

    width: int
    size: int

    def block(self, name: str, stage: StageSpace, block: Block, index: int, width: int) -> BlockPlan:
        """The stage's next block, to `width` channels; 0: as many as come in."""
        if stage.kind not in KINDS:
            raise UserError(f"space {name}", f"{stage.kind!r} is not a kind of block; known: {', '.join(KINDS)}",
                            "import the module that adds it to KINDS")
        plan = KINDS[stage.kind](Place(name, stage, block, index, self.width, width or self.width, self.size))
        self.width, self.size = plan.path[-1].outputs, plan.path[-1].out_size
        return plan


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


def _head(head: Head, cursor: _Cursor, mix: int, num_classes: int) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers before the global mean, and those after it."""
    features, mixed, width = [], [], cursor.width
    if expand := head.expand or head.ratio * width:
        features.append(Layer("head.expand", width, expand, size=cursor.size, act=head.act))
        width = expand
    if mix:
        mixed.append(Layer("head.mix", width, mix, norm=False, act=head.act))
        width = mix
    return tuple(features), (*mixed, Layer("head.classifier", width, num_classes, bias=True, norm=False))


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
