"""Search space: which sub-networks one supernet contains, a row a stage."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, TypeVar

from onceforall.space.arch import Arch, Block, Value
from onceforall.space.errors import UserError

V = TypeVar("V", int, Value)
Pairs = tuple[tuple[str, tuple[Value, ...]], ...]


@dataclass(frozen=True)
class StageSpace:
    """One row of the paper's table.

    `width`: output channels; `depth`: allowed numbers of blocks; `elastic`: the choices of each block,
    ascending, such as (("kernel", (3, 5, 7)), ("expand", (3, 4, 6))).
    """

    width: int
    depth: tuple[int, ...]
    stride: int
    act: str
    se: bool
    elastic: Pairs
    kind: str = "mbconv"

    @property
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """Elastic dimension to its choices, ascending."""
        return dict(self.elastic)

    def blocks(self, pick: int) -> tuple[Block, ...]:
        """The stage at one end: pick 0 is all smallest, -1 all largest."""
        return (Block(tuple((name, values[pick]) for name, values in self.elastic)),) * self.depth[pick]

    @property
    def middle(self) -> tuple[Block, ...]:
        """The stage with the middle of every choice (the upper one of two)."""
        block = Block(tuple((name, values[len(values) // 2]) for name, values in self.elastic))
        return (block,) * self.depth[len(self.depth) // 2]


@dataclass(frozen=True)
class Stem:
    """What comes before the elastic stages: a 3x3 convolution, then blocks that are not elastic."""

    width: int
    stride: int
    act: str
    stages: tuple[StageSpace, ...] = ()


@dataclass(frozen=True)
class Head:
    """1x1 convolution to `expand` channels, global mean, 1x1 convolution to `mix`, classifier; 0: there is none."""

    expand: int
    mix: int
    act: str


@dataclass(frozen=True)
class SearchSpace:
    """All sub-networks of one supernet. `name` is what `search_space(name)` rebuilds the full space from."""

    name: str
    resolutions: tuple[int, ...]
    stem: Stem
    stages: tuple[StageSpace, ...]
    head: Head
    in_channels: int = field(default=3)
    bn_eps: float = 1e-5

    @cached_property
    def largest(self) -> Arch:
        """Every choice at its largest."""
        return Arch(max(self.resolutions), tuple(stage.blocks(-1) for stage in self.stages))

    @cached_property
    def smallest(self) -> Arch:
        """Every choice at its smallest."""
        return Arch(min(self.resolutions), tuple(stage.blocks(0) for stage in self.stages))

    @cached_property
    def middle(self) -> Arch:
        """The middle of every choice."""
        sizes = sorted(self.resolutions)
        return Arch(sizes[len(sizes) // 2], tuple(stage.middle for stage in self.stages))

    @property
    def count(self) -> int:
        """Sub-networks a resolution."""
        return prod(sum(_ways(stage) ** depth for depth in stage.depth) for stage in self.stages)

    @property
    def slots(self) -> int:
        """Block places: the largest depths added up."""
        return sum(max(stage.depth) for stage in self.stages)

    def sample(self, rng: random.Random) -> Arch:
        """One sub-network: every choice drawn uniformly (Cai et al. 2020, section 3.3)."""
        resolution = rng.choice(self.resolutions)
        stages = []
        for stage in self.stages:
            depth = rng.choice(stage.depth)
            stages.append(tuple(Block(tuple((n, rng.choice(v)) for n, v in stage.elastic))
                                for _ in range(depth)))
        return Arch(resolution, tuple(stages))

    def contains(self, arch: Arch) -> bool:
        """Whether `arch` is one of this space's sub-networks."""
        return self._fault(arch) is None

    def check(self, arch: Arch) -> Arch:
        """`arch` itself, or a UserError that names the first place where it leaves the space."""
        fault = self._fault(arch)
        if fault is not None:
            raise UserError(*fault)
        return arch

    def covers(self, other: SearchSpace) -> bool:
        """Whether every sub-network of `other` is one of this space's."""
        return set(other.resolutions) <= set(self.resolutions) and len(self.stages) == len(other.stages) and all(
            set(b.depth) <= set(a.depth) and replace(b, depth=a.depth, elastic=a.elastic) == a
            and b.choices.keys() == a.choices.keys() and all(set(b.choices[n]) <= set(v) for n, v in a.elastic)
            for a, b in zip(self.stages, other.stages, strict=True))

    def at(self, resolutions: Sequence[int]) -> SearchSpace:
        """The same blocks at other resolutions."""
        return replace(self, resolutions=tuple(resolutions))

    def restrict(self, *, resolutions: Sequence[int] | None = None, depth: Sequence[int] | None = None,
                 **choices: Sequence[Value]) -> SearchSpace:
        """The part of the space with only these choices, as `restrict(kernel=(7,), depth=(4,))`; a stage with but one
        choice keeps it."""
        for name in choices:
            if not any(name in stage.choices for stage in self.stages):
                raise UserError(f"{self.name}.{name}", "is no elastic dimension of this space",
                                f"it has {', '.join(self.stages[0].choices)}, depth, resolutions")
        depths = self._parts("depth", depth, [stage.depth for stage in self.stages])
        elastics: list[dict[str, tuple[Value, ...]]] = [stage.choices for stage in self.stages]
        for name, wanted in choices.items():
            having = [values for values in elastics if name in values]
            for values, part in zip(having, self._parts(name, wanted, [v[name] for v in having]), strict=True):
                values[name] = part
        return replace(
            self, resolutions=_subset(f"{self.name}.resolutions", resolutions, self.resolutions),
            stages=tuple(replace(stage, depth=d, elastic=tuple(e.items()))
                         for stage, d, e in zip(self.stages, depths, elastics, strict=True)))

    def _parts(self, name: str, wanted: Sequence[V] | None, own: Sequence[tuple[V, ...]]) -> list[tuple[V, ...]]:
        """The wanted choices of each stage, of its own; a stage that has but another one keeps it."""
        if wanted is None:
            return list(own)
        part = _subset(f"{self.name}.{name}", wanted, tuple(sorted({v for values in own for v in values})))
        return [values if len(values) == 1 else _subset(f"{self.name}.{name}", [v for v in part if v in values] or part,
                                                        values) for values in own]

    def each(self, name: str, values: Sequence[Value]) -> SearchSpace:
        """The part of the space with one choice of a dimension a stage, as `each("kernel", (3, 5, 3, 3, 5))`."""
        return replace(self, stages=tuple(
            replace(stage, elastic=tuple((n, _subset(f"{self.name}.{n}", [value], v) if n == name else v)
                                         for n, v in stage.elastic))
            for stage, value in zip(self.stages, values, strict=True)))

    def encode(self, arch: Arch) -> list[int]:
        """`arch` as integers: index of the resolution, then for each stage index of the depth and of each
        block's choices, 0 where a block does not exist. Equal archs give equal vectors."""
        vector = [self.resolutions.index(self.check(arch).resolution)]
        for stage, blocks in zip(self.stages, arch.stages, strict=True):
            vector.append(stage.depth.index(len(blocks)))
            for b in range(max(stage.depth)):
                vector += [values.index(blocks[b][n]) if b < len(blocks) else 0 for n, values in stage.elastic]
        return vector

    def decode(self, vector: Sequence[int]) -> Arch:
        """The arch of an integer vector; entries of blocks that do not exist are not looked at."""
        if len(vector) != len(self.cardinalities):
            raise UserError("encoding", f"{len(vector)} integers; {self.name} needs {len(self.cardinalities)}")
        entries = iter(vector)
        resolution = self.resolutions[next(entries)]
        stages = []
        for stage in self.stages:
            depth = stage.depth[next(entries)]
            slots = [Block(tuple((n, v[i]) for (n, v), i in zip(stage.elastic, picks, strict=True)))
                     for picks in _chunks(entries, max(stage.depth), len(stage.elastic), depth)]
            stages.append(tuple(slots))
        return Arch(resolution, tuple(stages))

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of values of each entry of `encode`'s vector."""
        sizes = [len(self.resolutions)]
        for stage in self.stages:
            sizes += [len(stage.depth), *([len(v) for _, v in stage.elastic] * max(stage.depth))]
        return tuple(sizes)

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON values: its name and the choices that are left; `SearchSpace.from_dict` reads it back."""
        return {"name": self.name, "resolutions": list(self.resolutions), "stages": [
            {"depth": list(stage.depth), **{name: list(values) for name, values in stage.elastic}}
            for stage in self.stages]}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> SearchSpace:
        """The space of `to_dict`; raises UserError where the catalogue's space of that name does not have it."""
        from onceforall.space.catalog import search_space
        try:
            full, rows = search_space(values["name"]), list(values["stages"])
            _only_keys(values, ("name", "resolutions", "stages"), "space")
            for row, stage in zip(rows, full.stages, strict=True):
                _only_keys(row, ("depth", *stage.choices), "space.stages")
            resolutions = _subset("space.resolutions", tuple(values["resolutions"]), full.resolutions)
            stages = tuple(replace(
                stage, depth=_subset("space.depth", tuple(row["depth"]), stage.depth),
                elastic=tuple((n, _subset(f"space.{n}", tuple(row[n]), v)) for n, v in stage.elastic))
                for stage, row in zip(full.stages, rows, strict=True))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError("space", f"is not the description of a search space ({error})") from None
        return replace(full, resolutions=resolutions, stages=stages)

    def _fault(self, arch: Arch) -> tuple[str, str] | None:
        if arch.resolution not in self.resolutions:
            return "arch resolution", f"{arch.resolution} is not one of {_listed(self.resolutions)}"
        if len(arch.stages) != len(self.stages):
            return "arch", f"has {len(arch.stages)} stages; {self.name} has {len(self.stages)}"
        for s, (stage, blocks) in enumerate(zip(self.stages, arch.stages, strict=True)):
            if len(blocks) not in stage.depth:
                return f"arch stage {s + 1}", f"depth {len(blocks)} is not one of {_listed(stage.depth)}"
            for b, block in enumerate(blocks):
                if tuple(n for n, _ in block.choices) != tuple(stage.choices):
                    return (f"arch stage {s + 1} block {b + 1}",
                            f"has {', '.join(n for n, _ in block.choices)} instead of {', '.join(stage.choices)}")
                for (name, value), (_, allowed) in zip(block.choices, stage.elastic, strict=True):
                    if value not in allowed or isinstance(value, bool):
                        shown = f"{value:g}" if isinstance(value, float) else repr(value)
                        return (f"arch stage {s + 1} block {b + 1}",
                                f"{name} {shown} is not one of {_listed(allowed)}")
        return None


def _ways(stage: StageSpace) -> int:
    return prod(len(values) for _, values in stage.elastic)


def _chunks(entries: Iterator[int], slots: int, size: int, depth: int) -> list[list[int]]:
    chunks = [[next(entries) for _ in range(size)] for _ in range(slots)]
    return chunks[:depth]


def _subset(place: str, wanted: Sequence[V] | None, allowed: tuple[V, ...]) -> tuple[V, ...]:
    if wanted is None:
        return allowed
    wrong = [v for v in wanted if isinstance(v, bool) or v not in allowed]
    if wrong or not wanted:
        raise UserError(place, f"{wrong[0] if wrong else 'an empty list'} is not one of {_listed(allowed)}")
    if len(set(wanted)) < len(wanted):
        raise UserError(place, f"{_listed(wanted)} has a choice twice", "list each once")
    return tuple(sorted({v for v in allowed if v in wanted}))  # the space's own: 3.0 is in (3, 5, 7), and no depth


def _only_keys(values: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise UserError(f"{place}.{unknown[0]}", "is not a known key", f"known: {', '.join(known)}")


def _listed(values: Sequence[Value]) -> str:
    """`3, 5, 7`; a long even run as `128, 132, .., 224`."""
    texts = [f"{v:g}" for v in values]
    return ", ".join(texts if len(texts) <= 9 else [*texts[:2], "..", texts[-1]])


def elastic(choices: Mapping[str, Sequence[Value]]) -> Pairs:
    """`{"kernel": (3, 5, 7)}` in the hashable form of `StageSpace.elastic`, choices ascending."""
    return tuple((name, tuple(sorted(values))) for name, values in choices.items())
