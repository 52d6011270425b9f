"""Lowering: from a sub-network of a space to its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from onceforall.errors import UserError
from onceforall.space.arch import Arch, Block
from onceforall.space.kinds import KINDS, Place
from onceforall.space.plan import CLASSIFIER, BlockPlan, Layer, Plan
from onceforall.space.rows import Head, Padding, StageSpace, Width
from onceforall.space.search_space import SearchSpace


@lru_cache(maxsize=256)  # of 20 KiB each
def lower(space: SearchSpace, arch: Arch, num_classes: int = 1000) -> Plan:
    """The plan of a sub-network of a space, whether it keeps to what is tied there or not; raises UserError for any
    other arch."""
    space.free.check(arch)
    widths = iter(arch.widths)

    def own(width: Width) -> int:
        return next(widths) if isinstance(width, tuple) else width

    stem = Layer("stem", space.in_channels, own(space.stem.width), space.stem.kernel, space.stem.stride,
                 size=arch.resolution, act=space.stem.act, pool="max" if space.stem.pool else None,
                 padding=space.padding)
    cursor = _Cursor(stem.outputs, stem.out_size, space.padding)
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
    """Where the walk through the network stands: channels and map size that reach the next block, and the padding."""

    width: int
    size: int
    padding: Padding

    def block(self, name: str, stage: StageSpace, block: Block, index: int, width: int) -> BlockPlan:
        """The stage's next block, to `width` channels; 0 stands for as many as come in."""
        if stage.kind not in KINDS:
            raise UserError(f"space {name}", f"{stage.kind!r} is not a kind of block; known: {', '.join(KINDS)}",
                            "import the module that adds it to KINDS")
        values = stage.values(block, index)
        plan = KINDS[stage.kind](Place(name, stage, values, index, self.width, width or self.width, self.size))
        self.width, self.size = plan.last.outputs, plan.last.out_size
        if self.padding == "centre" and not stage.acts:
            return plan
        acts = dict(stage.acts)
        return plan.each(lambda layer: replace(layer, act=acts.get(layer.role, layer.act), padding=self.padding))


def _head(head: Head, cursor: _Cursor, mix: int, num_classes: int) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """The layers before the global mean, and those after it."""
    features, mixed, width = [], [], cursor.width
    if expand := head.expand or head.ratio * width:
        features.append(Layer("head.expand", width, expand, size=cursor.size, act=head.act))
        width = expand
    if mix:
        mixed.append(Layer("head.mix", width, mix, bias=head.mix_bias, norm=head.mix_norm, act=head.act))
        width = mix
    return tuple(features), (*mixed, Layer(f"head.{CLASSIFIER}", width, num_classes, bias=True, norm=False))
