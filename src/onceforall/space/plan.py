"""Plan: the concrete layers of one sub-network. The only place with channel arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from onceforall.space.arch import Arch, Block
from onceforall.space.search_space import Head, SearchSpace, StageSpace


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, not under it by more than a tenth (Howard et al. 2019)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer with what directly follows it.

    `name`: its dotted path in supernet and extracted net alike; `size`: side of its square input map in
    pixels; `norm`: batch normalisation follows; `act`: "relu", "relu6", "hswish", "hsigmoid" or None.
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

    @property
    def out_size(self) -> int:
        """Side of the output map, at padding kernel // 2."""
        return (self.size - 1) // self.stride + 1

    @property
    def role(self) -> str:
        """The last part of the name, such as `depthwise`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class BlockPlan:
    """One block: its layers in the order they run, and whether its input is added to its output.

    Layers whose names go on with `se` are a gate (reduce, excite) on what the layer before them gives.
    """

    name: str
    layers: tuple[Layer, ...]
    residual: bool

    def parts(self) -> dict[str, tuple[Layer, ...]]:
        """The layers by the next word of their name: each alone, a gate's two together."""
        out: dict[str, tuple[Layer, ...]] = {}
        for layer in self.layers:
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
    """The plan of `arch`, a sub-network of `space`; raises UserError where it is not one."""
    space.check(arch)
    stem = Layer("stem", space.in_channels, space.stem.width, 3, space.stem.stride, size=arch.resolution,
                 act=space.stem.act)
    cursor = _Cursor(stem.outputs, stem.out_size)
    first = tuple(cursor.block(f"first.{i}", stage, block, b)
                  for i, stage in enumerate(space.stem.stages) for b, block in enumerate(stage.blocks(-1)))
    stages = tuple(tuple(cursor.block(f"stages.{s}.{b}", stage, block, b) for b, block in enumerate(blocks))
                   for s, (stage, blocks) in enumerate(zip(space.stages, arch.stages, strict=True)))
    features, head = _head(space.head, cursor, num_classes)
    return Plan(arch.resolution, stem, first, stages, features, head)


@dataclass
class _Cursor:
    """Where the walk through the network stands: channels and map size that reach the next block."""

    width: int
    size: int

    def block(self, name: str, stage: StageSpace, block: Block, index: int) -> BlockPlan:
        plan = _LOWER[stage.kind](name, stage, block, self.width, self.size, stage.stride if index == 0 else 1)
        self.width, self.size = plan["project"].outputs, plan["project"].out_size
        return plan


def _head(head: Head, cursor: _Cursor, num_classes: int) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers before the global mean, and those after it."""
    features, mixed, width = [], [], cursor.width
    if head.expand:
        features.append(Layer("head.expand", width, head.expand, size=cursor.size, act=head.act))
        width = head.expand
    if head.mix:
        mixed.append(Layer("head.mix", width, head.mix, norm=False, act=head.act))
        width = head.mix
    return tuple(features), (*mixed, Layer("head.classifier", width, num_classes, bias=True, norm=False))


def _mbconv(name: str, stage: StageSpace, block: Block, width: int, size: int, stride: int) -> BlockPlan:
    """Inverted bottleneck: expand 1x1, depthwise, squeeze-and-excitation, project 1x1 (Sandler et al. 2018)."""
    kernel, expand = int(block["kernel"]), block["expand"]
    hidden = make_divisible(round(width * expand)) if expand != 1 else width
    layers = []
    if expand != 1:
        layers.append(Layer(f"{name}.expand", width, hidden, size=size, act=stage.act))
    depthwise = Layer(f"{name}.depthwise", hidden, hidden, kernel, stride, hidden, size, act=stage.act)
    layers.append(depthwise)
    if stage.se:
        squeeze = make_divisible(hidden // 4)
        layers += [Layer(f"{name}.se.reduce", hidden, squeeze, bias=True, norm=False, act="relu"),
                   Layer(f"{name}.se.excite", squeeze, hidden, bias=True, norm=False, act="hsigmoid")]
    layers.append(Layer(f"{name}.project", hidden, stage.width, size=depthwise.out_size))
    return BlockPlan(name, tuple(layers), stride == 1 and width == stage.width)


_LOWER = {"mbconv": _mbconv}
