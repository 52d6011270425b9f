"""The table of a search space: its rows, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Annotated

from pydantic import Field

from onceforall.errors import UserError
from onceforall.space.arch import Arch, Value
from onceforall.space.rows import FORM, Head, Name, Padding, StageSpace, Stem, listed

Gene = tuple[int | str, ...]  # ("resolution",), ("stem", "width"), (stage, "depth"), (stage, block, "kernel"), ..


@dataclass(frozen=True)
class SpaceTable:
    """The rows of a search space, and which archs they allow. Its fields are described by `SearchSpace`."""

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
        """The sub-network with every choice at its largest."""
        return Arch(max(self.resolutions), tuple(stage.end(-1) for stage in self.stages),
                    tuple(values[-1] for values in self.widths))

    @cached_property
    def smallest(self) -> Arch:
        """The sub-network with every choice at its smallest."""
        return Arch(min(self.resolutions), tuple(stage.end(0) for stage in self.stages),
                    tuple(values[0] for values in self.widths))

    @cached_property
    def middle(self) -> Arch:
        """The sub-network with the middle one of every choice."""
        sizes = sorted(self.resolutions)
        return Arch(sizes[len(sizes) // 2], tuple(stage.middle for stage in self.stages),
                    tuple(values[len(values) // 2] for values in self.widths))

    @property
    def count(self) -> int:
        """How many sub-networks there are at one resolution."""
        return prod(map(len, self.widths)) * prod(stage.count for stage in self.stages)

    @property
    def slots(self) -> int:
        """How many blocks the deepest sub-network has."""
        return sum(max(stage.depth) for stage in self.stages)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of the elastic dimensions of its blocks, such as "kernel"."""
        return tuple(dict.fromkeys(name for stage in self.stages for name, _ in stage.elastic))

    @cached_property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """The choices of each elastic width, in channels: of the stem, the stages and the head."""
        rows = (self.stem.width, *(stage.width for stage in self.stages), self.head.mix)
        return tuple(width for width in rows if isinstance(width, tuple))

    @cached_property
    def genes(self) -> dict[Gene, tuple[Value, ...]]:
        """The values of each entry of the encoding, in its order. A key ends with the dimension that it is of."""
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

    def contains(self, arch: Arch) -> bool:
        """Whether an arch is one of this space's sub-networks.

        Args:
            arch: any arch.
        """
        return self._fault(arch) is None

    def check(self, arch: Arch) -> Arch:
        """Check that an arch is one of this space's sub-networks.

        Args:
            arch: any arch.

        Returns:
            The same arch.

        Raises:
            UserError: it is of another space. The place is the first one where it leaves this space.
        """
        if found := self._fault(arch):
            raise UserError(*found)
        return arch

    def covers(self, other: SpaceTable) -> bool:
        """Whether every sub-network of another space is one of this space's, too.

        Args:
            other: any space. Its name does not matter.
        """
        if len(self.stages) != len(other.stages) or len(self.widths) != len(other.widths) or (
                self._around != other._around):
            return False
        rows = all(map(StageSpace.covers, self.stages, other.stages))
        widths = all(set(b) <= set(a) for a, b in zip(self.widths, other.widths, strict=True))
        return rows and widths and set(other.resolutions) <= set(self.resolutions)

    def alike(self, other: SpaceTable) -> bool:
        """Whether both spaces are parts of the same space.

        Args:
            other: any space. What its rows fix has to be equal. Its choices may be others.
        """
        mine, others = ([row.constants for row in space.stages] for space in (self, other))
        return (self.name, self._around) == (other.name, other._around) and mine == others

    @property
    def _around(self) -> tuple[object, ...]:
        """What the stem and the head fix. Strides do not count: they differ with the size of pictures."""
        stem, head = self.stem, self.head
        return (self.in_channels, self.padding, stem.act, stem.kernel, stem.pool, tuple(
            row.constants[2:] for row in stem.stages), head.act, head.ratio, head.mix_bias, head.mix_norm)

    def _fault(self, arch: Arch) -> tuple[str, str] | None:
        """The first place where an arch leaves the space, and what is wrong there; None where it does not leave it."""
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
