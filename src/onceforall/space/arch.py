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
        """The same sub-network at another input resolution (pixels)."""
        return Arch(resolution, self.stages, self.widths)

    @staticmethod
    def parse(space: SearchSpace, text: str) -> Arch:
        """Read the one-line form, or one of the words `largest`, `middle`, `smallest` (`largest@160`).

        What a compound space ties, a supernet can run all the same, and the other forms too may say. Raises UserError
        with the position and the allowed values.
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
        """Decode NNablaNAS's genotype: an index into `operators` for each block slot, len(operators) = skip."""
        arch: Arch = _border("nnabla.genotype").decode(space, genotype, resolution=resolution, operators=operators)
        return arch

    def to_genotype(self, space: SearchSpace, *, operators: Sequence[str] | None = None) -> list[int]:
        """The same as NNablaNAS's genotype (the resolution is not part of it)."""
        genotype: list[int] = _border("nnabla.genotype").encode(space, self, operators=operators)
        return genotype

    def foreign(self, space: SearchSpace) -> dict[str, dict[str, Any]]:
        """It in the forms of other projects, by project, where they know its family."""
        found: dict[str, dict[str, Any]] = _border("foreign").forms(space, self)
        return found

    def check_foreign(self, space: SearchSpace, values: Mapping[str, Any]) -> None:
        """Raise UserError where one of these forms is of another sub-network."""
        _border("foreign").check(space, self, values)

    @staticmethod
    def from_dict(space: SearchSpace, values: Mapping[str, Any]) -> Arch:
        """Decode the authors' form `{"ks": 20, "e": 20, "d": 5, "image_size"}` (lists, or one value for all)."""
        arch: Arch = _border("mit.arch_dict").decode(space, values)
        return arch

    def to_dict(self, space: SearchSpace) -> dict[str, Any]:
        """The authors' form; slots of skipped blocks hold the smallest choice."""
        values: dict[str, Any] = _border("mit.arch_dict").encode(space, self)
        return values


def foreign_words(foreign: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """What `Arch.foreign` gives, as texts to show, by the names of the forms."""
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
