"""Arch: one sub-network as a value: its resolution and, for each stage, the blocks that exist."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from onceforall.errors import UserError

if TYPE_CHECKING:
    from onceforall.space.search_space import SearchSpace

Value = int | float
_PLAIN = "b"  # a block without choices


@dataclass(frozen=True)
class Block:
    """The choices of one block that exists, in the order of its stage's elastic dimensions.

    `Block((("kernel", 5), ("expand", 4)))["kernel"] == 5`.
    """

    choices: tuple[tuple[str, Value], ...]

    def __getitem__(self, dimension: str) -> Value:
        return dict(self.choices)[dimension]

    def __str__(self) -> str:
        return "".join(f"{name[0]}{value:g}" for name, value in self.choices) or _PLAIN


@dataclass(frozen=True)
class Arch:
    """A sub-network as a value.

    A block that is skipped is not there, so that equal networks are equal values. It prints as one line,
    `224:k5e4,k7e6/...` (stages are parted by `/`), with widths `224:w24,64:k5e4,..`, which `Arch.parse` reads back.

    Args:
        resolution: side of its square input, in pixels.
        stages: the blocks of each stage.
        widths: the elastic widths in channels: the stem's, the stages', the head's. Those that are not elastic are not
            there.
    """

    resolution: int
    stages: tuple[tuple[Block, ...], ...]
    widths: tuple[int, ...] = ()

    def __str__(self) -> str:
        widths = f"w{','.join(map(str, self.widths))}:" if self.widths else ""
        return f"{self.resolution}:{widths}" + "/".join(",".join(map(str, blocks)) for blocks in self.stages)

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks in each stage."""
        return tuple(len(blocks) for blocks in self.stages)

    def at(self, resolution: int) -> Arch:
        """The same sub-network at another resolution.

        Args:
            resolution: side of the square input, in pixels.
        """
        return Arch(resolution, self.stages, self.widths)

    @staticmethod
    def parse(space: SearchSpace, text: str) -> Arch:
        """Read an arch from a text.

            Arch.parse(space, "largest@160")

        Args:
            space: the space that the sub-network is of. What a compound space ties may differ, since its supernet
                can run that, too.
            text: the one-line form, or largest, middle or smallest, alone or with @ and a resolution in pixels.

        Returns:
            The arch.

        Raises:
            UserError: the text has another form, or a choice that the space lacks. The place says which block.
        """
        word, _, size = text.strip().partition("@")
        if word in ("largest", "middle", "smallest"):
            arch: Arch = getattr(space, word)
            return space.check(arch.at(_integer(size, "arch resolution")) if size else arch)
        head, colon, body = text.strip().partition(":")
        if not colon:
            raise UserError("arch", f"{text!r} has no ':' after the resolution",
                            f"the form is {space.largest}, or largest, middle, smallest")
        widths: tuple[int, ...] = ()
        if space.widths:
            listed, colon, body = body.partition(":")
            if not colon or not listed.startswith("w"):
                raise UserError("arch", f"{text!r} has no widths after the resolution",
                                f"the form is {space.largest}, or largest, middle, smallest")
            widths = tuple(_integer(width, f"arch width {w + 1}", "channels")
                           for w, width in enumerate(listed[1:].split(",")))
        stages = body.split("/")
        if len(stages) != len(space.stages):
            raise UserError("arch", f"{len(stages)} stages are given; {space.name} has {len(space.stages)}",
                            "part them with '/'")
        return space.free.check(Arch(_integer(head, "arch resolution"), tuple(
            tuple(_parse_block(space, s, b, word) for b, word in enumerate(stage.split(",")))
            if stage or 0 not in space.stages[s].depth else () for s, stage in enumerate(stages)), widths))

    @staticmethod
    def from_genotype(space: SearchSpace, genotype: Sequence[int], *, resolution: int | None = None,
                      operators: Sequence[str] | None = None) -> Arch:
        """Read a genotype of NNablaNAS.

        Args:
            space: the space that the sub-network is of.
            genotype: for each place of a block an index into `operators`. Their number stands for a skipped block.
            resolution: side of the square input, in pixels; None: the largest of the space.
            operators: names such as "MB6 7x7"; None: those of the space.

        Returns:
            The arch.

        Raises:
            UserError: the genotype does not fit the space. The place is the position of its entry.
        """
        arch: Arch = _border("nnabla.genotype").decode(space, genotype, resolution=resolution, operators=operators)
        return arch

    def to_genotype(self, space: SearchSpace, *, operators: Sequence[str] | None = None) -> list[int]:
        """Write the arch as a genotype of NNablaNAS, which does not hold the resolution.

        Args:
            space: the space that the arch is of.
            operators: names such as "MB6 7x7"; None: those of the space.

        Returns:
            What `from_genotype` reads.

        Raises:
            UserError: the space does not have the arch, or none of the operators is one of its blocks.
        """
        genotype: list[int] = _border("nnabla.genotype").encode(space, self, operators=operators)
        return genotype

    def foreign(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """Write the arch in the forms of other projects.

        Args:
            space: the space that the arch is of.

        Returns:
            The forms of each project that knows the family of networks, by the project's name.
        """
        found: dict[str, dict[str, Any]] = _border("foreign").forms(space, self)
        return found

    def check_foreign(self, space: SearchSpace, values: Mapping[str, Any]) -> None:
        """Check that forms of other projects are of this sub-network.

        Args:
            space: the space that the arch is of.
            values: what `foreign` gives.

        Raises:
            UserError: one of them is of another sub-network.
        """
        _border("foreign").check(space, self, values)

    @staticmethod
    def from_dict(space: SearchSpace, values: Mapping[str, Any]) -> Arch:
        """Read the form of the authors' code.

            Arch.from_dict(space, {"ks": 7, "e": 6, "d": 4, "image_size": 224})

        Args:
            space: the space that the sub-network is of.
            values: kernels and expand ratios of all places of a block, depths of all stages, and the resolution in
                pixels. A number stands for a list of it.

        Returns:
            The arch.

        Raises:
            UserError: a key is missing or unknown, or the space lacks a value.
        """
        arch: Arch = _border("mit.arch_dict").decode(space, values)
        return arch

    def to_dict(self, space: SearchSpace) -> dict[str, Any]:
        """Write the form of the authors' code.

        Args:
            space: the space that the arch is of.

        Returns:
            What `from_dict` reads. The places of blocks that do not exist hold the smallest choice.

        Raises:
            UserError: the space does not have the arch, or is none of the authors' families.
        """
        values: dict[str, Any] = _border("mit.arch_dict").encode(space, self)
        return values


def foreign_words(foreign: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What `Arch.foreign` gives, as texts for people, by the name of the form."""
    return {name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
            for forms in foreign.values() for name, value in forms.items()}


def _border(module: str) -> Any:
    """A module that knows the forms of another project, imported when it is asked for."""
    return import_module(f"onceforall.interop.{module}")


def _integer(text: str, place: str, unit: str = "pixels") -> int:
    if not re.fullmatch(r" *[1-9][0-9]{0,5} *", text):
        raise UserError(place, f"{text!r} is not a whole number of {unit}")
    return int(text)


def _parse_block(space: SearchSpace, stage: int, index: int, text: str) -> Block:
    """One block's word, such as `k5e4`."""
    place, row = f"arch stage {stage + 1} block {index + 1}", space.stages[stage]
    choices = row.choices_at(index)
    form = "".join(f"{name[0]}{values[-1]:g}" for name, values in choices.items()) or _PLAIN
    last = row.idle[2] if row.idle else None
    pattern = "".join(rf"(?:{name[0]}([0-9.]+)){'?' if name == last else ''}" for name in choices) or _PLAIN
    match = re.fullmatch(pattern, text.strip(" "))
    if match is None:
        raise UserError(place, f"{text!r} is not of the form {form}")
    values = []
    for (name, allowed), digits in zip(choices.items(), match.groups(), strict=True):
        value = next((v for v in allowed if f"{v:g}" == digits), None)
        if value is None and digits is not None:
            raise UserError(place, f"{name} {digits} is not one of {', '.join(f'{v:g}' for v in allowed)}")
        values += [] if value is None else [(name, value)]
    return Block(tuple(values))
