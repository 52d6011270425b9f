"""Search space: which sub-networks one supernet contains, a row a stage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import prod
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from onceforall.errors import UserError
from onceforall.space.arch import Arch, Value
from onceforall.space.rows import FORM, Head, Name, Padding, StageSpace, Stem, V, Width, both, listed, subset

Gene = tuple[int | str, ...]  # ("resolution",), ("stem", "width"), (stage, "depth"), (stage, block, "kernel"), ..


@dataclass(frozen=True)
class SearchSpace:
    """All sub-networks of one supernet. Its rows say everything.

    Args:
        name: for people, and for the catalogue.
        resolutions: sides of the square input, in pixels.
        stem: what comes before the stages.
        stages: a row for each.
        head: what comes after them.
        in_channels: of the pictures.
        bn_eps: what BN adds to variances.
        padding: zeros around the maps. "centre" has half the kernel at both ends; "same", as in TensorFlow, has more at
            the end where the stride is 2 and the map's side is even.
    """

    __pydantic_config__ = FORM

    name: Name
    resolutions: Annotated[tuple[Annotated[int, Field(ge=8, le=4096)], ...], Field(min_length=1)]
    stem: Stem
    stages: Annotated[tuple[StageSpace, ...], Field(max_length=100)]
    head: Head
    in_channels: Annotated[int, Field(ge=1, le=1000)] = 3
    bn_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    padding: Padding = "centre"

    @cached_property
    def largest(self) -> Arch:
        """Every choice at its largest."""
        return Arch(max(self.resolutions), tuple(stage.end(-1) for stage in self.stages),
                    tuple(values[-1] for values in self.widths))

    @cached_property
    def smallest(self) -> Arch:
        """Every choice at its smallest."""
        return Arch(min(self.resolutions), tuple(stage.end(0) for stage in self.stages),
                    tuple(values[0] for values in self.widths))

    @cached_property
    def middle(self) -> Arch:
        """The middle of every choice."""
        sizes = sorted(self.resolutions)
        return Arch(sizes[len(sizes) // 2], tuple(stage.middle for stage in self.stages),
                    tuple(values[len(values) // 2] for values in self.widths))

    @property
    def count(self) -> int:
        """Sub-networks a resolution."""
        return prod(map(len, self.widths)) * prod(stage.count for stage in self.stages)

    @property
    def slots(self) -> int:
        """Block places: the largest depths added up."""
        return sum(max(stage.depth) for stage in self.stages)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The elastic dimensions of its blocks."""
        return tuple(dict.fromkeys(name for stage in self.stages for name, _ in stage.elastic))

    @cached_property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """The choices of each elastic width: the stem's, the stages', the head's."""
        rows = (self.stem.width, *(stage.width for stage in self.stages), self.head.mix)
        return tuple(width for width in rows if isinstance(width, tuple))

    @cached_property
    def genes(self) -> dict[Gene, tuple[Value, ...]]:
        """The encoding's entries in their order: which choice each is of, its dimension last, and its values."""
        out: dict[Gene, tuple[Value, ...]] = {("resolution",): self.resolutions}
        if isinstance(self.stem.width, tuple):
            out["stem", "width"] = self.stem.width
        for s, stage in enumerate(self.stages):
            if isinstance(stage.width, tuple):
                out[s, "width"] = stage.width
            out[s, "depth"] = stage.depth
            for b in range(max(stage.depth)):
                out |= {(s, b, name): values for name, values in stage.choices_at(b).items()}
        if isinstance(self.head.mix, tuple):
            out["head", "width"] = self.head.mix
        return out

    def sample(self, rng: random.Random) -> Arch:
        """One sub-network: every choice drawn uniformly (Cai et al. 2020, section 3.3)."""
        resolution = rng.choice(self.resolutions)
        stages = []
        for stage in self.stages:
            depth = rng.choice(stage.depth)
            stages.append(tuple(stage.block({n: rng.choice(v) for n, v in stage.choices_at(b, depth).items()})
                                for b in range(depth)))
        return Arch(resolution, tuple(stages), tuple(rng.choice(values) for values in self.widths))

    def contains(self, arch: Arch) -> bool:
        """Whether `arch` is one of this space's sub-networks."""
        return self._fault(arch) is None

    def check(self, arch: Arch) -> Arch:
        """`arch` itself, or a UserError that names the first place where it leaves the space."""
        if fault := self._fault(arch):
            raise UserError(*fault)
        return arch

    def covers(self, other: SearchSpace) -> bool:
        """Whether every sub-network of `other` is one of this space's."""
        if len(self.stages) != len(other.stages) or len(self.widths) != len(other.widths) or (
                self._around != other._around):
            return False
        rows = all(map(StageSpace.covers, self.stages, other.stages))
        widths = all(set(b) <= set(a) for a, b in zip(self.widths, other.widths, strict=True))
        return rows and widths and set(other.resolutions) <= set(self.resolutions)

    def alike(self, other: SearchSpace) -> bool:
        """Whether both have the same rows, whatever choices are left in them."""
        mine, others = ([row.constants for row in space.stages] for space in (self, other))
        return (self.name, self._around) == (other.name, other._around) and mine == others

    @property
    def _around(self) -> tuple[object, ...]:
        """What it has beside its stages, but widths, and strides, which differ with the size of pictures."""
        stem, head = self.stem, self.head
        return (self.in_channels, self.padding, stem.act, stem.kernel, stem.pool, tuple(
            row.constants[2:] for row in stem.stages), head.act, head.ratio, head.mix_bias, head.mix_norm)

    def at(self, resolutions: Sequence[int]) -> SearchSpace:
        """The same blocks at other resolutions."""
        return replace(self, resolutions=tuple(resolutions))

    def restrict(self, *, resolutions: Sequence[int] | None = None, depth: Sequence[int] | None = None,
                 **choices: Sequence[Value]) -> SearchSpace:
        """The part of the space with only these choices, as `restrict(kernel=(7,), depth=(4,))`; a stage with but one
        choice keeps it."""
        if unknown := [name for name in choices if name not in self.dimensions]:
            raise UserError(f"{self.name}.{unknown[0]}", "is no elastic dimension of this space",
                            f"it has {', '.join([*self.dimensions, 'depth', 'resolutions'])}")
        wanted = {name: subset(f"{self.name}.{name}", values, _union(row.choices.get(name, ()) for row in self.stages))
                  for name, values in choices.items()}
        depths = subset(f"{self.name}.depth", depth, _union(stage.depth for stage in self.stages))

        def part(name: str, own: tuple[Value, ...]) -> tuple[Value, ...]:
            return self._part(name, wanted.get(name, own), own)

        stages = tuple(replace(row.each(part), depth=self._part("depth", depths, row.depth)) for row in self.stages)
        sizes = subset(f"{self.name}.resolutions", resolutions, self.resolutions)
        return replace(self, stages=stages, resolutions=sizes)

    def _part(self, name: str, wanted: Sequence[Value], own: tuple[V, ...]) -> tuple[V, ...]:
        """The wanted ones of a list of choices; a list of but one choice is kept."""
        return own if len(own) == 1 else subset(f"{self.name}.{name}", [v for v in wanted if v in own] or wanted, own)

    def each(self, name: str, values: Sequence[Sequence[Value]]) -> SearchSpace:
        """The part of the space with choices of a dimension of each stage, as `each("kernel", [(3,), (5, 7), ..])`;
        with `each("width", ..)` of each elastic width."""
        place = f"{self.name}.{name}"
        if name == "width":
            return self._at_widths([subset(place, part, own) for part, own in zip(values, self.widths, strict=True)])

        def narrowed(stage: StageSpace, wanted: Sequence[Value]) -> StageSpace:
            if name == "depth":
                return replace(stage, depth=subset(place, wanted, stage.depth))
            picked = subset(place, wanted, stage.choices[name]) if name in stage.choices else ()
            return stage.each(lambda n, own: self._part(n, picked, own) if n == name else own)

        pairs = zip(self.stages, values, strict=True)
        return replace(self, stages=tuple(narrowed(stage, part) for stage, part in pairs))

    def compound(self, whole: SearchSpace | None = None) -> SearchSpace:
        """The part of the space with one expand ratio a stage, tied to its depth (CompOFA, Sahni et al. 2021).

        Args:
            whole: the space whose ratios are tied, the smallest to the smallest depth and so on; this one by default.
                A stage that lacks a ratio has the next larger one. A stage of one depth stays as it is.

        Raises:
            UserError: the space has other dimensions.
        """
        ratios = [(stage.depth, stage.choices.get("expand", ())) for stage in (whole or self).stages]
        if self.dimensions != ("kernel", "expand") or any(len(d) not in (1, len(e)) for d, e in ratios):
            raise UserError(self.name, "has no blocks with kernel and expand ratio, as many ratios as depths")
        return replace(self, stages=tuple(
            stage if len(depth) == 1 else replace(stage, tied=tuple(zip(depth, expand, strict=True)))
            for stage, (depth, expand) in zip(self.stages, ratios, strict=True)))

    @cached_property
    def free(self) -> SearchSpace:
        """The space with nothing tied."""
        return replace(self, stages=tuple(replace(stage, tied=()) for stage in self.stages))

    @property
    def top(self) -> SearchSpace:
        """Its largest sub-network alone, at all resolutions."""
        stages = tuple(stage.top for stage in self.stages)
        return replace(self, stages=stages)._at_widths([values[-1:] for values in self.widths])

    def common(self, other: SearchSpace) -> SearchSpace:
        """The part of the space that another one of its family has too; its largest choice where that has none."""
        stages = tuple(stage.common(row) for stage, row in zip(self.stages, other.stages, strict=True))
        widths = [both(own, others) for own, others in zip(self.widths, other.widths, strict=True)]
        return replace(self, stages=stages)._at_widths(widths)

    def _at_widths(self, widths: Sequence[tuple[int, ...]]) -> SearchSpace:
        """The same with these choices of the elastic widths."""
        left = iter(widths)

        def own(width: Width) -> Width:
            return next(left) if isinstance(width, tuple) else width

        return replace(self, stem=replace(self.stem, width=own(self.stem.width)),
                       stages=tuple(replace(stage, width=own(stage.width)) for stage in self.stages),
                       head=replace(self.head, mix=own(self.head.mix)))

    def encode(self, arch: Arch) -> list[int]:
        """`arch` as integers, an index for each of `genes`, 0 for what its blocks do not have. Equal archs give equal
        vectors."""
        found = self._picks(self.check(arch))
        return [values.index(found[gene]) if gene in found else 0 for gene, values in self.genes.items()]

    def _picks(self, arch: Arch) -> dict[Gene, Value]:
        """The choices of an arch."""
        widths = (gene for gene in self.genes if gene[-1] == "width")
        out: dict[Gene, Value] = {("resolution",): arch.resolution, **dict(zip(widths, arch.widths, strict=True))}
        for s, blocks in enumerate(arch.stages):
            out[s, "depth"] = len(blocks)
            out |= {(s, b, name): value for b, block in enumerate(blocks) for name, value in block.choices}
        return out

    def decode(self, vector: Sequence[int]) -> Arch:
        """The arch of an integer vector; entries of what its blocks do not have are not looked at."""
        if len(vector) != len(self.genes):
            raise UserError("encoding", f"{len(vector)} integers; {self.name} needs {len(self.genes)}")
        at = dict(zip(self.genes, vector, strict=True))

        def pick(*gene: int | str) -> Any:
            return self.genes[gene][at[gene]]

        stages = tuple(tuple(stage.block({n: pick(s, b, n) for n, _ in stage.elastic})
                             for b in range(pick(s, "depth"))) for s, stage in enumerate(self.stages))
        return Arch(pick("resolution"), stages, tuple(pick(*gene) for gene in self.genes if gene[-1] == "width"))

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of values of each entry of `encode`'s vector."""
        return tuple(map(len, self.genes.values()))

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON values: its rows, with the choices that are left. `SearchSpace.from_dict` reads it back."""
        return dict(_form().dump_python(self, mode="json", exclude_defaults=True))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> SearchSpace:
        """The space of `to_dict`. It need not be in the catalogue.

        Raises:
            UserError: a row is missing, of the wrong type, or contradicts itself.
        """
        try:
            return _form().validate_json(json.dumps(values))
        except ValidationError as error:
            first = error.errors()[0]
            place, cause = ".".join(["space", *map(str, first["loc"])]), first.get("ctx", {}).get("error")
            if isinstance(cause, UserError):
                raise UserError(f"{place}.{cause.place}", cause.problem, cause.remedy) from None
            raise UserError(place, f"is not the description of a search space ({first['msg']})") from None
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError("space", f"is not the description of a search space ({error})") from None

    def _fault(self, arch: Arch) -> tuple[str, str] | None:
        if arch.resolution not in self.resolutions:
            return "arch resolution", f"{arch.resolution} is not one of {listed(self.resolutions)}"
        if len(arch.stages) != len(self.stages):
            return "arch", f"has {len(arch.stages)} stages; {self.name} has {len(self.stages)}"
        for s, (stage, blocks) in enumerate(zip(self.stages, arch.stages, strict=True)):
            if len(blocks) not in stage.depth:
                return f"arch stage {s + 1}", f"depth {len(blocks)} is not one of {listed(stage.depth)}"
            for b, block in enumerate(blocks):
                if fault := stage.fault(block, b, len(blocks)):
                    return f"arch stage {s + 1} block {b + 1}", fault
        return self._fault_of_widths(arch.widths)

    def _fault_of_widths(self, widths: Sequence[int]) -> tuple[str, str] | None:
        if len(widths) != len(self.widths):
            return "arch", f"has {len(widths)} widths; {self.name} has {len(self.widths)} that are elastic"
        for w, (width, own) in enumerate(zip(widths, self.widths, strict=True)):
            if width not in own or isinstance(width, bool):
                return f"arch width {w + 1}", f"{width!r} is not one of {listed(own)}"
        return None


def _union(lists: Iterable[Sequence[V]]) -> tuple[V, ...]:
    return tuple(sorted({value for values in lists for value in values}))


@cache
def _form() -> TypeAdapter[SearchSpace]:
    return TypeAdapter(SearchSpace)
