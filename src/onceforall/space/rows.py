"""Rows of a search space's table: its stem, its stages, its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Annotated

from pydantic import ConfigDict, Field

from onceforall.errors import UserError
from onceforall.space.arch import Block, Value

Name = Annotated[str, Field(min_length=1, max_length=200)]
Channels = Annotated[int, Field(ge=0, le=1 << 16)]
Count = Annotated[int, Field(ge=1, le=1000)]
Blocks = Annotated[int, Field(ge=0, le=100)]
Choice = Annotated[int, Field(ge=0, le=1 << 16)] | Annotated[float, Field(ge=0, le=1 << 16)]
Pairs = tuple[tuple[Name, tuple[Choice, ...]], ...]
Width = Channels | tuple[Channels, ...]  # a tuple, ascending, where the width is elastic
FORM = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # of a row in a file


@dataclass(frozen=True)
class StageSpace:
    """One row of the paper's table.

    `width`: output channels (0: as many as come in); `depth`: allowed numbers of blocks; `elastic`: the choices of each
    block, ascending, such as (("kernel", (3, 5, 7)), ("expand", (3, 4, 6))); `fixed`: what is no choice there; `kind`:
    the kind of block, as `plan` knows it; `idle`: ("layers", 1, "expand") where a block with one layer has no expand
    ratio; `tied`: ((2, 3), (3, 4), (4, 6)) where all blocks of a stage have the expand ratio that goes with its depth,
    or the next larger one that there is.
    """

    __pydantic_config__ = FORM

    width: Width
    depth: tuple[Blocks, ...]
    stride: Count
    act: Name
    se: bool
    elastic: Pairs
    kind: Name = "mbconv"
    fixed: tuple[tuple[Name, Choice], ...] = ()
    idle: tuple[Name, Choice, Name] | None = None
    tied: tuple[tuple[Blocks, Choice], ...] = ()

    def __post_init__(self) -> None:
        lists = {"depth": self.depth, **dict(self.elastic)}
        if isinstance(self.width, tuple):
            lists["width"] = self.width
        for name, values in lists.items():
            if not values or any(a >= b for a, b in pairwise(values)):
                raise UserError(name, f"{list(values)} is not a list of choices in ascending order")
        if len(lists) < len(self.elastic) + 1 + isinstance(self.width, tuple):
            raise UserError("elastic", "names a dimension twice, or one of the stage's own: depth, width")
        if self.tied and ("expand" not in self.choices or not {*self.depth} <= {depth for depth, _ in self.tied}):
            raise UserError("tied", "does not give an expand ratio for each depth")

    @property
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """Elastic dimension to its choices, ascending."""
        return dict(self.elastic)

    def at_depth(self, depth: int) -> dict[str, tuple[Value, ...]]:
        """Those that are left to a stage of so many blocks."""
        if not self.tied:
            return self.choices
        ratio, own = dict(self.tied)[depth], self.choices["expand"]
        return {**self.choices, "expand": (next((value for value in own if value >= ratio), own[-1]),)}

    def dimensions(self, picks: Mapping[str, Value]) -> tuple[str, ...]:
        """The elastic dimensions that a block with these choices has."""
        idle = self.idle[2] if self.idle and picks.get(self.idle[0]) == self.idle[1] else None
        return tuple(name for name, _ in self.elastic if name != idle)

    def block(self, picks: Mapping[str, Value]) -> Block:
        """The block of these choices, without the one that is idle."""
        return Block(tuple((name, picks[name]) for name in self.dimensions(picks)))

    def value(self, block: Block, name: str) -> Value:
        """A block's choice of a dimension, or what is fixed."""
        return dict(block.choices).get(name, dict(self.fixed).get(name, 0))

    def fault(self, block: Block, depth: int) -> str:
        """Why a block is none of the stage's at that depth; nothing where it is one."""
        names, wanted = tuple(n for n, _ in block.choices), self.dimensions(dict(block.choices))
        if names != wanted:
            return f"has {', '.join(names) or 'no choices'} instead of {', '.join(wanted) or 'none'}"
        choices = self.at_depth(depth)
        for name, value in block.choices:
            if value not in choices[name] or isinstance(value, bool):
                shown = f"{value:g}" if isinstance(value, float) else repr(value)
                tied = f", which goes with depth {depth}" if choices[name] != self.choices[name] else ""
                return f"{name} {shown} is not one of {listed(choices[name])}{tied}"
        return ""

    @property
    def ways(self) -> list[dict[str, Value]]:
        """Every combination of the choices of a block, idle ones too, in the order of the encoding."""
        return [dict(zip(self.choices, picks, strict=True)) for picks in product(*self.choices.values())]

    def ways_at(self, depth: int) -> dict[int, dict[str, Value]]:
        """Those that are left to a stage of so many blocks, by their number."""
        left = self.at_depth(depth)
        return {i: way for i, way in enumerate(self.ways) if all(value in left[name] for name, value in way.items())}

    def blocks(self, pick: int) -> tuple[Block, ...]:
        """The stage at one end: pick 0 is all smallest, -1 all largest."""
        depth = self.depth[pick]
        return (self.block({name: values[pick] for name, values in self.at_depth(depth).items()}),) * depth

    @property
    def middle(self) -> tuple[Block, ...]:
        """The stage with the middle of every choice (the upper one of two)."""
        depth = self.depth[len(self.depth) // 2]
        return (self.block({name: values[len(values) // 2] for name, values in self.at_depth(depth).items()}),) * depth


@dataclass(frozen=True)
class Stem:
    """What comes before the elastic stages: a 3x3 convolution, then blocks that are not elastic."""

    __pydantic_config__ = FORM

    width: Width
    stride: Count
    act: Name
    stages: tuple[StageSpace, ...] = ()


@dataclass(frozen=True)
class Head:
    """1x1 convolution to `expand` channels (to `ratio` times as many as come in, where that is given), global mean, 1x1
    convolution to `mix`, classifier; 0: there is none."""

    __pydantic_config__ = FORM

    expand: Channels
    mix: Width
    act: Name
    ratio: Annotated[int, Field(ge=0, le=1000)] = 0


def listed(values: Sequence[Value]) -> str:
    """`3, 5, 7`; a long even run as `128, 132, .., 224`."""
    texts = [f"{v:g}" for v in values]
    return ", ".join(texts if len(texts) <= 9 else [*texts[:2], "..", texts[-1]])


def elastic(choices: Mapping[str, Sequence[Value]]) -> Pairs:
    """`{"kernel": (3, 5, 7)}` in the hashable form of `StageSpace.elastic`, choices ascending."""
    return tuple((name, tuple(sorted(values))) for name, values in choices.items())
