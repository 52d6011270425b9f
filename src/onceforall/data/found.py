"""What was found of a data set and what was left out: the block that verbs show before they begin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from typing import Any, TypeAlias

from onceforall.errors import printable

MAX_CLASSES = 20  # that get a line each; more are summarised
MAX_LEFT = 12  # kinds of file left out that get a line

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Left:
    """Files or folders of one kind that are left out: why, how many, and one of them, relative to the data's folder."""

    reason: str
    count: int
    example: str

    def __str__(self) -> str:
        such = ":" if self.count == 1 else ", such as"
        return f"{self.count:,} {self.reason}{such} {self.example}"


class LeftOut:
    """Counts what is left out below the folder `root`, for each of its folders and each reason."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], str] = {}

    def note(self, reason: str, example: Path, *, count: int = 1) -> None:
        """Count one more file or folder (or `count`), `example` among them."""
        path = example.relative_to(self._root) if example.is_relative_to(self._root) else example
        key = reason, path.parts[0] if len(path.parts) > 1 else ""
        self._counts[key] = self._counts.get(key, 0) + count
        name = path.as_posix()
        self._examples[key] = min(self._examples.get(key, name), name)

    @property
    def rows(self) -> tuple[Left, ...]:
        """What was counted so far, the most frequent first."""
        rows = [Left(reason, count, self._examples[reason, place]) for (reason, place), count in self._counts.items()]
        return tuple(sorted(rows, key=lambda row: (-row.count, row.example)))


@dataclass(frozen=True)
class Split:
    """One split: its name, where its pictures come from, and how many there are of each class."""

    name: str
    source: str
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What reading found, before pictures are held out.

    Args:
        where: the folder, the list file or the name of the data set.
        train: where the training pictures lie.
        held_out: where those held out lie; empty: they are carved from the training pictures.
        test: likewise.
        sizes: (width, height) of the pictures that were looked at.
        formats: the number of files, by their ending.
        left_out: what is not used, and why.
        notes: what else there is to say.
    """

    where: str
    train: str = ""
    held_out: str = ""
    test: str = ""
    sizes: tuple[Size, ...] = ()
    formats: Mapping[str, int] = field(default_factory=dict)
    left_out: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """A data set as it was found: its classes and splits, and what reading saw (`origin`)."""

    origin: Origin
    classes: tuple[str, ...]
    splits: tuple[Split, ...]

    def text(self) -> str:
        """The block of lines that verbs show.

        Up to 20 classes have a line each. No line holds what a terminal would obey.
        """
        total, origin = sum(sum(split.counts) for split in self.splits), self.origin
        rows = [("", f"{origin.where}: {_number(total, 'picture')}, {_number(len(self.classes), 'class', 'classes')}")]
        rows += [(split.name, f"{sum(split.counts):,}  {split.source}".rstrip()) for split in self.splits]
        rows += [("sizes", _sizes(origin.sizes))] if origin.sizes else []
        rows += [("formats", ", ".join(f"{count:,} {e or 'without an ending'}" for e, count in origin.formats.items()))
                 ] if origin.formats else []
        rows += self._class_rows()
        rows += [("left out", str(row)) for row in origin.left_out[:MAX_LEFT]]
        if (more := len(origin.left_out) - MAX_LEFT) > 0:
            rows.append(("left out", f"and {_number(more, 'further kind')}"))
        rows += [("note", note) for note in origin.notes]
        return "\n".join(printable(f"  {name:<9} {value}" if name else value) for name, value in rows)

    def _class_rows(self) -> list[tuple[str, str]]:
        if len(self.classes) > MAX_CLASSES:
            return [("a class", f"{split.name}: {self._summary(split)}") for split in self.splits]
        width = max(map(len, self.classes))
        counts = zip(*(split.counts for split in self.splits), strict=True)
        return [("class", f"{name:<{width}}  " + ", ".join(
            f"{count:,} {split.name}" for count, split in zip(row, self.splits, strict=True)))
            for name, row in zip(self.classes, counts, strict=True)]

    def _summary(self, split: Split) -> str:
        fewest, most = (split.counts.index(extreme(split.counts)) for extreme in (min, max))
        return (f"fewest {split.counts[fewest]:,} ({self.classes[fewest]}), median {median_low(split.counts):,}, "
                f"most {split.counts[most]:,} ({self.classes[most]})")

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values, with every class."""
        origin = self.origin
        return {
            "data": origin.where, "classes": list(self.classes),
            "splits": {split.name: {"source": split.source, "pictures": sum(split.counts),
                                    "of_class": list(split.counts)} for split in self.splits},
            "sizes": [list(size) for size in _ends(origin.sizes)], "formats": dict(origin.formats),
            "left_out": [{"reason": row.reason, "count": row.count, "example": row.example} for row in origin.left_out],
            "notes": list(origin.notes)}


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _ends(sizes: Sequence[Size]) -> list[Size]:
    """The smallest, the median and the largest size, by pixels; a single size where all are equal."""
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return ordered[:1] if len(set(sizes)) < 2 else [ordered[0], ordered[len(ordered) // 2], ordered[-1]]


def _sizes(sizes: Sequence[Size]) -> str:
    """The sizes of the pictures that were looked at, in words."""
    words = [f"{width}x{height}" for width, height in _ends(sizes)]
    if len(words) == 1:
        return f"{words[0]} pixels"
    return f"{words[0]} to {words[2]} pixels, median {words[1]}, of {len(sizes)} looked at"
