"""Rows of a search space's table: its stem, its stages, its head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Annotated, Literal, TypeVar

from pydantic import ConfigDict, Field

from onceforall.errors import UserError
from onceforall.space.arch import Block, Value

Name = Annotated[str, Field(min_length=1, max_length=200)]
Channels = Annotated[int, Field(ge=0, le=1 << 16)]
Count = Annotated[int, Field(ge=1, le=1000)]
Blocks = Annotated[int, Field(ge=0, le=100)]
Choice = Annotated[int, Field(ge=0, le=1 << 16)] | Annotated[float, Field(ge=0, le=1 << 16)]
Pairs = tuple[tuple[Name, tuple[Choice, ...]], ...]
Padding = Literal["centre", "same"]
Fixed = tuple[tuple[Name, Choice], ...]
Width = Channels | tuple[Channels, ...]  # a tuple, ascending, where the width is elastic
V = TypeVar("V", int, Value)
FORM = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)  # of a row in a file


@dataclass(frozen=True)
class BlockRow:
    """What one block of a stage has of its own: its choices of the dimensions that it names, and what is fixed in it.

    `BlockRow(elastic=(("kernel", (3, 5)),), fixed=(("expand", 2.5),))`; both override what the stage says.
    """

    __pydantic_config__ = FORM

    elastic: Pairs = ()
    fixed: Fixed = ()


@dataclass(frozen=True)
class Gate:
    """A squeeze-and-excitation gate (Hu et al. 2018); by default MobileNetV3's (Howard et al. 2019).

    It is squeezed to `ratio` times the channels of the map that it is on, or of the block's `inputs`, rounded down and
    then made divisible by `divisor`. `act` follows the squeezing layer, and `gate` is what the map is multiplied by.
    It stands in the `middle` of a block, after its depthwise or widest convolution, or at the `end`, after the last.
    """

    __pydantic_config__ = FORM

    ratio: Annotated[float, Field(gt=0, le=16)] = 0.25
    of: Literal["map", "inputs"] = "map"
    divisor: Count = 8
    act: Name = "relu"
    gate: Name = "hsigmoid"
    place: Literal["middle", "end"] = "middle"


@dataclass(frozen=True)
class StageSpace:
    """One row of the paper's table.

    Args:
        width: output channels; 0 is as many as come in, a tuple is elastic.
        depth: allowed numbers of blocks, ascending.
        elastic: the choices of each block, ascending, such as (("kernel", (3, 5, 7)), ("expand", (3, 4, 6))).
        kind: the kind of block, as `kinds` knows it.
        fixed: what is no choice there, such as (("kernel", 3),).
        se: whether there is MobileNetV3's squeeze-and-excitation, or another one.
        idle: ("layers", 1, "expand") where a block with one layer has no expand ratio.
        tied: ((2, 3), (3, 4), (4, 6)) where all blocks of a stage have the expand ratio that goes with its depth, or
            the next larger one that there is.
        blocks: a row for each block, where they differ.
        acts: (("depthwise", None),) where layers of that role have another activation, or none.
    """

    __pydantic_config__ = FORM

    width: Width
    depth: tuple[Blocks, ...]
    stride: Count
    act: Name
    se: bool | Gate
    elastic: Pairs
    kind: Name = "mbconv"
    fixed: Fixed = ()
    idle: tuple[Name, Choice, Name] | None = None
    tied: tuple[tuple[Blocks, Choice], ...] = ()
    blocks: tuple[BlockRow, ...] = ()
    acts: tuple[tuple[Name, Name | None], ...] = ()

    def __post_init__(self) -> None:
        own = [("depth", self.depth), *([("width", self.width)] if isinstance(self.width, tuple) else [])]
        _check_lists((*own, *self.elastic))
        if 0 in self.depth and (self.width or self.stride > 1):
            raise UserError("depth", "0 is for a stage that keeps width and size: what follows has the same input",
                            "give width 0 and stride 1")
        if self.blocks and len(self.blocks) < max(self.depth):
            raise UserError("blocks", f"has {len(self.blocks)} rows for {max(self.depth)} blocks")
        for b, row in enumerate(self.blocks, 1):
            _check_lists(row.elastic)
            if unknown := [name for name, _ in row.elastic if name not in dict(self.elastic)]:
                raise UserError(f"blocks {b}", f"{unknown[0]} is no elastic dimension of the stage",
                                "all blocks of a stage have the same dimensions")
        self._check_fixed()
        if self.tied and ("expand" not in self.choices or not {*self.depth} <= {depth for depth, _ in self.tied}):
            raise UserError("tied", "does not give an expand ratio for each depth")

    def _check_fixed(self) -> None:
        """Raise UserError for a name that is fixed and elastic, and for pooling that only some depths would have."""
        rows = [("fixed", self.fixed), *((f"blocks {b}", row.fixed) for b, row in enumerate(self.blocks, 1))]
        for place, fixed in rows:
            for name, _ in fixed:
                if name in dict(self.elastic):
                    raise UserError(f"{place}: {name}", "is fixed and elastic", "give elastic a single value")
        if len(self.depth) > 1 and any(dict(fixed).get("pool") for fixed in (self.fixed, *(
                row.fixed for row in self.blocks[min(self.depth):]))):
            raise UserError("pool", "is fixed in a block that not every depth has: what follows has another size",
                            "give pooling a stage of its own, of one depth")

    @property
    def gate(self) -> Gate | None:
        """The squeeze-and-excitation of its blocks; None where they have none."""
        return (Gate() if self.se else None) if isinstance(self.se, bool) else self.se

    @property
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """The choices of each elastic dimension, ascending, of all blocks of the stage together."""
        return {name: tuple(sorted({value for own in self._lists for value in own[name]})) for name, _ in self.elastic}

    def choices_at(self, block: int, depth: int | None = None) -> Mapping[str, tuple[Value, ...]]:
        """The choices of one block, by its number. With `depth` those that a stage of so many blocks leaves it."""
        own = self._lists[min(block, len(self._lists) - 1)]
        if depth is None or not self.tied:
            return own
        return {name: self.left(name, values, depth) for name, values in own.items()}

    @cached_property
    def _lists(self) -> list[Mapping[str, tuple[Value, ...]]]:
        """The choices of each block; a single entry where all blocks are alike."""
        return [dict(self.elastic) | dict(row.elastic) for row in self.blocks or (BlockRow(),)]

    def left(self, name: str, values: tuple[V, ...], depth: int) -> tuple[V, ...]:
        """The values of a dimension that a stage of so many blocks leaves to a block."""
        if not self.tied or name != "expand":
            return values
        ratio = dict(self.tied)[depth]
        return (next((value for value in values if value >= ratio), values[-1]),)

    def each(self, change: Callable[[str, tuple[Value, ...]], tuple[Value, ...]]) -> StageSpace:
        """The row with every list of choices changed: `change` is given a dimension and its values. The stage's own
        list stays as it is where every block has another one."""
        def changed(name: str, values: tuple[Value, ...]) -> tuple[Value, ...]:
            unused = bool(self.blocks) and all(name in dict(row.elastic) for row in self.blocks)
            return values if unused else change(name, values)

        return replace(self, elastic=tuple((n, changed(n, v)) for n, v in self.elastic), blocks=tuple(
            replace(row, elastic=tuple((n, change(n, v)) for n, v in row.elastic)) for row in self.blocks))

    def covers(self, other: StageSpace) -> bool:
        """Whether the row has all depths and choices of another one, and nothing else differs."""
        return set(other.depth) <= set(self.depth) and self.constants == other.constants and all(
            set(other.choices_at(b, depth)[name]) <= set(values) for depth in other.depth for b in range(depth)
            for name, values in self.choices_at(b, depth).items())

    def common(self, other: StageSpace) -> StageSpace:
        """The row with the choices that another row has, too."""
        blocks = tuple(replace(row, elastic=tuple((n, both(v, other.choices_at(b).get(n, ()))) for n, v in row.elastic))
                       for b, row in enumerate(self.blocks))
        return replace(self, depth=both(self.depth, other.depth), blocks=blocks, elastic=tuple(
            (n, both(v, dict(other.elastic).get(n, ()))) for n, v in self.elastic))

    @property
    def top(self) -> StageSpace:
        """The row with only the largest of every choice."""
        depth = self.depth[-1]
        return replace(self.each(lambda name, values: self.left(name, values, depth)[-1:]), depth=(depth,))

    def dimensions(self, picks: Mapping[str, Value]) -> tuple[str, ...]:
        """The elastic dimensions that a block with these choices has."""
        idle = self.idle[2] if self.idle and picks.get(self.idle[0]) == self.idle[1] else None
        return tuple(name for name, _ in self.elastic if name != idle)

    def block(self, picks: Mapping[str, Value]) -> Block:
        """The block that has these choices, without a choice that is idle."""
        return Block(tuple((name, picks[name]) for name in self.dimensions(picks)))

    def values(self, block: Block, index: int) -> dict[str, Value]:
        """The choices of the block of that number, and what is fixed in it."""
        own = self.blocks[index].fixed if self.blocks else ()
        return dict((*self.fixed, *own, *block.choices))

    def fault(self, block: Block, index: int, depth: int) -> str:
        """Why a block cannot be the stage's block of that number at that depth; empty where it can."""
        names, wanted = tuple(n for n, _ in block.choices), self.dimensions(dict(block.choices))
        if names != wanted:
            return f"has {', '.join(names) or 'no choices'} instead of {', '.join(wanted) or 'none'}"
        choices, whole = self.choices_at(index, depth), self.choices_at(index)
        for name, value in block.choices:
            if value not in choices[name] or isinstance(value, bool):
                shown = f"{value:g}" if isinstance(value, float) else repr(value)
                tied = f", which goes with depth {depth}" if choices[name] != whole[name] else ""
                return f"{name} {shown} is not one of {listed(choices[name])}{tied}"
        return ""

    @property
    def constants(self) -> tuple[object, ...]:
        """What the row says apart from its choices."""
        return (self.kind, self.stride, self.act, self.acts, self.gate, self.fixed, self.idle,
                *(name for name, _ in self.elastic), None if isinstance(self.width, tuple) else self.width,
                *(row.fixed for row in self.blocks))

    @property
    def count(self) -> int:
        """How many different stages the row allows at one width."""
        return sum(prod(len({self.block(way) for way in self.ways_at(b, depth).values()}) for b in range(depth))
                   for depth in self.depth)

    def ways(self, block: int) -> list[dict[str, Value]]:
        """Every combination of the choices of a block, idle ones too, in the order of the encoding."""
        choices = self.choices_at(block)
        return [dict(zip(choices, picks, strict=True)) for picks in product(*choices.values())]

    def ways_at(self, block: int, depth: int) -> dict[int, dict[str, Value]]:
        """Those of `ways` that a stage of so many blocks leaves to a block, by their number."""
        left = self.choices_at(block, depth)
        return {i: way for i, way in enumerate(self.ways(block))
                if all(value in left[name] for name, value in way.items())}

    def end(self, pick: int) -> tuple[Block, ...]:
        """The stage with every choice at one end: the smallest for 0, the largest for -1."""
        depth = self.depth[pick]
        return tuple(self.block({name: values[pick] for name, values in self.choices_at(b, depth).items()})
                     for b in range(depth))

    @property
    def middle(self) -> tuple[Block, ...]:
        """The stage with the middle of every choice (the upper one of two)."""
        depth = self.depth[len(self.depth) // 2]
        return tuple(self.block({name: values[len(values) // 2] for name, values in self.choices_at(b, depth).items()})
                     for b in range(depth))


def _check_lists(lists: Sequence[tuple[str, tuple[Value, ...]]]) -> None:
    """Raise UserError for choices that do not ascend, and for a dimension that is named twice."""
    for name, values in lists:
        if not values or any(a >= b for a, b in pairwise(values)):
            raise UserError(name, f"{list(values)} is not a list of choices in ascending order")
    if len(dict(lists)) < len(lists):
        raise UserError("elastic", "names a dimension twice, or one of the stage's own: depth, width")


@dataclass(frozen=True)
class Stem:
    """What comes before the elastic stages: a convolution, max pooling where `pool`, blocks that are not elastic."""

    __pydantic_config__ = FORM

    width: Width
    stride: Count
    act: Name
    stages: tuple[StageSpace, ...] = ()
    kernel: Count = 3
    pool: bool = False


@dataclass(frozen=True)
class Head:
    """1x1 convolution to `expand` channels (to `ratio` times as many as come in, where that is given), global mean, a
    hidden layer of `mix` channels, classifier; 0: there is none. The hidden layer is a linear one with a `mix_bias`, or
    with normalisation after it (`mix_norm`), or with neither."""

    __pydantic_config__ = FORM

    expand: Channels
    mix: Width
    act: Name
    ratio: Annotated[int, Field(ge=0, le=1000)] = 0
    mix_bias: bool = False
    mix_norm: bool = False


def listed(values: Sequence[Value]) -> str:
    """The values as a text, `3, 5, 7`; many of them as `128, 132, .., 224`."""
    texts = [f"{v:g}" for v in values]
    return ", ".join(texts if len(texts) <= 9 else [*texts[:2], "..", texts[-1]])


def subset(place: str, wanted: Sequence[Value] | None, allowed: tuple[V, ...]) -> tuple[V, ...]:
    """Those of the `allowed` choices that are wanted, ascending; None wants all. Raises UserError for one that is not
    allowed."""
    if wanted is None:
        return allowed
    wrong = [v for v in wanted if isinstance(v, bool) or v not in allowed]
    if wrong or not wanted:
        raise UserError(place, f"{wrong[0] if wrong else 'an empty list'} is not one of {listed(allowed)}")
    if len(set(wanted)) < len(wanted):
        raise UserError(place, f"{listed(wanted)} has a choice twice", "list each once")
    return tuple(sorted({v for v in allowed if v in wanted}))  # the space's own: 3.0 is in (3, 5, 7), and no depth


def both(own: tuple[V, ...], others: Sequence[V]) -> tuple[V, ...]:
    """The choices that two lists have in common; the largest own one where there is none."""
    return tuple(value for value in own if value in others) or own[-1:]


def elastic(choices: Mapping[str, Sequence[Value]]) -> Pairs:
    """Choices such as `{"kernel": (3, 5, 7)}` in the hashable form of `StageSpace.elastic`, ascending."""
    return tuple((name, tuple(sorted(values))) for name, values in choices.items())
