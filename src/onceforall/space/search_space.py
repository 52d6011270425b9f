"""Search space: which sub-networks one supernet contains, a row a stage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from onceforall.errors import UserError
from onceforall.space.arch import Arch, Value
from onceforall.space.rows import StageSpace, V, Width, both, subset
from onceforall.space.table import Gene, SpaceTable


@dataclass(frozen=True)
class SearchSpace(SpaceTable):
    """All sub-networks of one supernet. Its rows say everything.

    Args:
        name: a name for people, and for the catalogue.
        resolutions: sides of the square input, in pixels.
        stem: the layers before the stages.
        stages: a row for each stage.
        head: the layers after the stages.
        in_channels: channels of the pictures.
        bn_eps: what BN adds to variances.
        padding: the rule for zeros around the maps. "centre" puts half the kernel at both ends. "same", as in
            TensorFlow, puts more at the end where the stride is 2 and the map's side is even.
    """

    def sample(self, rng: random.Random) -> Arch:
        """Draw every choice uniformly (Cai et al. 2020, section 3.3).

        Args:
            rng: the source of randomness; its state moves on.

        Returns:
            One sub-network.
        """
        resolution = rng.choice(self.resolutions)
        stages = []
        for stage in self.stages:
            depth = rng.choice(stage.depth)
            stages.append(tuple(stage.block({n: rng.choice(v) for n, v in stage.choices_at(b, depth).items()})
                                for b in range(depth)))
        return Arch(resolution, tuple(stages), tuple(rng.choice(values) for values in self.widths))

    def at(self, resolutions: Sequence[int]) -> SearchSpace:
        """The same rows at other resolutions.

        Args:
            resolutions: any sides of the square input, in pixels. The space need not have them.
        """
        return replace(self, resolutions=tuple(resolutions))

    def restrict(self, *, resolutions: Sequence[int] | None = None, depth: Sequence[int] | None = None,
                 **choices: Sequence[Value]) -> SearchSpace:
        """The part of the space that has only the choices that are named.

            space.restrict(kernel=(7,), depth=(4,))

        Args:
            resolutions: sides of the square input, in pixels; None: all of the space's.
            depth: numbers of blocks of a stage; None: all of the space's.
            choices: values of an elastic dimension, by its name. A stage keeps a list that has a single choice.

        Returns:
            A space with the same name and rows, and fewer choices.

        Raises:
            UserError: the space has no such dimension, or a stage has none of its choices left.
        """
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
        """The choices of a list that are wanted. A list with a single choice stays as it is."""
        return own if len(own) == 1 else subset(f"{self.name}.{name}", [v for v in wanted if v in own] or wanted, own)

    def each(self, name: str, values: Sequence[Sequence[Value]]) -> SearchSpace:
        """The part of the space that has other choices of one dimension in each stage.

            space.each("kernel", [(3,), (5, 7), (3, 5), (3,), (5,)])

        Args:
            name: an elastic dimension of the blocks, "depth" or "width".
            values: the choices that each stage keeps; of "width" those that each elastic width keeps, in channels.

        Raises:
            UserError: a stage does not have one of these choices.
        """
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
            whole: the space whose ratios are tied; None: this one. The smallest ratio goes with the smallest depth, and
                so on. A stage that lacks a ratio has the next larger one. A stage of one depth stays as it is.

        Raises:
            UserError: the blocks have other dimensions than kernel and expand, or a stage has not as many ratios as
                depths.
        """
        ratios = [(stage.depth, stage.choices.get("expand", ())) for stage in (whole or self).stages]
        if self.dimensions != ("kernel", "expand") or any(len(d) not in (1, len(e)) for d, e in ratios):
            raise UserError(self.name, "has no blocks with kernel and expand ratio, as many ratios as depths")
        return replace(self, stages=tuple(
            stage if len(depth) == 1 else replace(stage, tied=tuple(zip(depth, expand, strict=True)))
            for stage, (depth, expand) in zip(self.stages, ratios, strict=True)))

    @cached_property
    def free(self) -> SearchSpace:
        """The same space with nothing tied."""
        return replace(self, stages=tuple(replace(stage, tied=()) for stage in self.stages))

    @property
    def top(self) -> SearchSpace:
        """The part of the space that has its largest sub-network alone, at all resolutions."""
        stages = tuple(stage.top for stage in self.stages)
        return replace(self, stages=stages)._at_widths([values[-1:] for values in self.widths])

    def largest_of(self, name: str) -> SearchSpace:
        """The part of the space that has only the largest choice of one dimension.

        Args:
            name: an elastic dimension of the blocks, "depth" or "resolution". A stage without it stays as it is.
        """
        if name == "resolution":
            return self.at([max(self.resolutions)])
        if name == "depth":
            return replace(self, stages=tuple(replace(row, depth=row.depth[-1:]) for row in self.stages))
        return replace(self, stages=tuple(row.each(lambda n, own: own[-1:] if n == name else own)
                                          for row in self.stages))

    def common(self, other: SearchSpace) -> SearchSpace:
        """The part of the space that another space has, too.

        Args:
            other: a space with as many stages and elastic widths.

        Returns:
            The choices that both have. A list without such a choice keeps its largest.
        """
        stages = tuple(stage.common(row) for stage, row in zip(self.stages, other.stages, strict=True))
        widths = [both(own, others) for own, others in zip(self.widths, other.widths, strict=True)]
        return replace(self, stages=stages)._at_widths(widths)

    def _at_widths(self, widths: Sequence[tuple[int, ...]]) -> SearchSpace:
        """The same space with other choices of its elastic widths."""
        left = iter(widths)

        def own(width: Width) -> Width:
            return next(left) if isinstance(width, tuple) else width

        return replace(self, stem=replace(self.stem, width=own(self.stem.width)),
                       stages=tuple(replace(stage, width=own(stage.width)) for stage in self.stages),
                       head=replace(self.head, mix=own(self.head.mix)))

    def encode(self, arch: Arch) -> list[int]:
        """Write an arch as integers.

        Args:
            arch: a sub-network of this space.

        Returns:
            An index into the values of each of `genes`. A gene that the arch does not have is 0, so that equal archs
            give equal lists.

        Raises:
            UserError: the space does not have the arch.
        """
        found = self._picks(self.check(arch))
        return [values.index(found[gene]) if gene in found else 0 for gene, values in self.genes.items()]

    def _picks(self, arch: Arch) -> dict[Gene, Value]:
        """The choices of an arch, by gene."""
        widths = (gene for gene in self.genes if gene[-1] == "width")
        out: dict[Gene, Value] = {("resolution",): arch.resolution, **dict(zip(widths, arch.widths, strict=True))}
        for s, blocks in enumerate(arch.stages):
            out[s, "depth"] = len(blocks)
            out |= {(s, b, name): value for b, block in enumerate(blocks) for name, value in block.choices}
        return out

    def decode(self, vector: Sequence[int]) -> Arch:
        """Read what `encode` writes.

        Args:
            vector: an index for each of `genes`. It is not read for a gene that the arch does not have.

        Returns:
            The arch.

        Raises:
            UserError: the number of integers is another one.
        """
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
        """How many values each of `genes` has."""
        return tuple(map(len, self.genes.values()))

    def to_dict(self) -> dict[str, Any]:
        """The rows as JSON values, with the choices that are left. `from_dict` reads them back."""
        return dict(_form().dump_python(self, mode="json", exclude_defaults=True))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> SearchSpace:
        """Read what `to_dict` writes.

        Args:
            values: the rows as JSON values.

        Returns:
            The space. It need not be in the catalogue.

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


def _union(lists: Iterable[Sequence[V]]) -> tuple[V, ...]:
    return tuple(sorted({value for values in lists for value in values}))


@cache
def _form() -> TypeAdapter[SearchSpace]:
    return TypeAdapter(SearchSpace)
