"""Random layouts of folders and labels of lists: each file is read, or counted, or the folder is refused in a line.

Splits have the names that people give them. ONCEFORALL_FUZZ=long draws ten times as many, at random.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_picture_folders import CLASSES, SETTINGS, _grey, load

from onceforall.data import DataSet, DataSpec, load_data
from onceforall.errors import UserError

ROLES = {"val": ["val", "valid", "Validation", "DEV"], "test": ["test", "Testing", "eval", "EVALUATION"]}
TRAIN = ["train", "Training", "TRAIN"]
CONTENTS = ["classes", "classes", "empty", "flat", "dangling"]


@dataclass(frozen=True)
class Stray:
    """What is put into a folder beside what belongs there: how many of it are read, how many left out, and whether the
    folder is refused for it."""

    write: Callable[[Path, int], object]
    read: int = 0
    left: int = 1
    refused: bool = False


def _file(name: str, form: str = "PNG", mode: str = "RGB") -> Callable[[Path, int], object]:
    return lambda folder, level: _grey(level, (12, 12)).convert(mode).save(folder / name, form)


IN_CLASS = {
    "jfif": Stray(_file("s.jfif", "JPEG"), read=1, left=0), "jpe": Stray(_file("s.JPE", "JPEG"), read=1, left=0),
    "pgm": Stray(_file("s.pgm", "PPM", "L"), read=1, left=0), "heic": Stray(_file("s.heic")), "bare": Stray(_file("s")),
    "hidden": Stray(_file(".s.png")), "text": Stray(lambda folder, _: (folder / "s.txt").touch()),
    "linked": Stray(lambda folder, _: (folder / "s").symlink_to(folder.parent)),
}
IN_SPLIT = {
    "stray": Stray(_file("s.png")), "zip": Stray(lambda folder, _: (folder / "bee.zip").touch()),
    "hidden": Stray(lambda folder, _: (folder / ".cache").mkdir()),
    "class of links": Stray(lambda folder, _: (folder / "cat").symlink_to("nowhere"), refused=True),
    "up": Stray(lambda folder, _: (folder / "up").symlink_to("..")),
}
AT_ROOT = {
    "zip": Stray(lambda folder, _: (folder / "val.zip").touch()),
    "other": Stray(lambda folder, level: _classes(folder / "unsorted", 1)),
    "hidden": Stray(lambda folder, _: (folder / ".git").mkdir()), "stray": Stray(_file("s.png")),
}


def _classes(split: Path, count: int) -> None:
    for name, level in CLASSES.items():
        (split / name).mkdir(parents=True)
        for i in range(count):
            _grey(level, (12, 12)).save(split / name / f"{i}.png")


def _evaluation(folder: Path, content: str) -> None:
    if content == "dangling":
        folder.symlink_to("nowhere")
    elif content == "classes":
        _classes(folder, 3)
    else:
        folder.mkdir()
        if content == "flat":
            _grey(0, (12, 12)).save(folder / "s.png")


STRAYS = {"class": IN_CLASS, "split": IN_SPLIT, "root": AT_ROOT}
PLACES = [(place, kind) for place, kinds in STRAYS.items() for kind in kinds]


@dataclass(frozen=True)
class Layout:
    """The name of the training split (None: the classes lie in the root), the other splits by name with what is in
    them, and what is put beside it all: place and kind."""

    train: str | None
    others: dict[str, str]
    strays: list[tuple[str, str]]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(st.lists(st.sampled_from([*ROLES["val"], *ROLES["test"]]), max_size=3, unique=True))
    train = draw(st.sampled_from([*TRAIN, *TRAIN, None]))
    strays = draw(st.lists(st.sampled_from(PLACES), max_size=4, unique=True))
    plain = train is None and not names  # where what is beside the splits would be a class
    return Layout(train, {name: draw(st.sampled_from(CONTENTS)) for name in names},
                  [(place, kind) for place, kind in strays if not (plain and place == "root")])


def is_refused(layout: Layout) -> bool:
    """Whether it is not clear what is meant, or labels would move."""
    doubled = any(sum(name in layout.others for name in names) > 1 for names in ROLES.values())
    lost = any(content == "dangling" or (content == "flat" and name in ROLES["val"])
               for name, content in layout.others.items())
    no_training = layout.train is None and bool(layout.others)
    return doubled or lost or no_training or any(STRAYS[place][kind].refused for place, kind in layout.strays)


def sizes(layout: Layout) -> tuple[int, int, dict[str, int]]:
    """How many pictures are read, how many files and folders left out, and the size of each split that is given."""
    strays = [STRAYS[place][kind] for place, kind in layout.strays]
    full = [name for name, content in layout.others.items() if content == "classes"]
    left = sum({"empty": 1, "flat": 2}.get(content, 0) for content in layout.others.values())
    given = {} if not full else {"test": 6} if len(full) == 1 else {"test": 6, "held_out": 6}
    return (12 + 6 * len(full) + sum(stray.read for stray in strays), left + sum(stray.left for stray in strays), given)


def build(layout: Layout, root: Path) -> None:
    train = root / (layout.train or "")
    _classes(train, 6)
    for name, content in layout.others.items():
        _evaluation(root / name, content)
    folders = {"class": train / "white", "split": train, "root": root}
    for place, kind in layout.strays:
        STRAYS[place][kind].write(folders[place], CLASSES["white"])


def loaded(spec: DataSpec, *, refused: bool) -> DataSet | None:
    """The data set, None where it is `refused` as it has to be."""
    if not refused:
        return load_data(spec)
    with pytest.raises(UserError) as error:
        load_data(spec)
    assert str(error.value).isprintable()
    return None


@pytest.mark.slow
def test_any_layout() -> None:
    @SETTINGS
    @given(layout=layouts())
    def holds(layout: Layout) -> None:
        root = Path(tempfile.mkdtemp())
        try:
            build(layout, root)
            data = loaded(DataSpec("folder", root=str(root)), refused=is_refused(layout))
            if data is None:
                return
            read, left, given = sizes(layout)
            seen, found = load(root, strict=True, workers=0), data.found
            assert found is not None
            assert sum(seen.values()) == sum(sum(split.counts) for split in found.splits) == read
            assert sum(row.count for row in found.origin.left_out) == left
            assert {name: seen[name] for name in given} == given
            assert all(line.isprintable() for line in found.text().split("\n"))
        finally:
            shutil.rmtree(root)

    holds()


@pytest.fixture(scope="module")
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    _grey(0, (12, 12)).save(folder / "a.png")
    return folder


def test_any_labels(one_picture: Path) -> None:
    """A label without pictures is named; labels that start at 1 are refused."""
    @SETTINGS
    @given(labels=st.lists(st.integers(0, 6), min_size=2, max_size=8), start=st.integers(0, 1), mark=st.booleans())
    def holds(labels: list[int], start: int, mark: bool) -> None:
        labels = [label + start for label in labels]
        text = "".join(f"a.png {label}\n" for label in labels)
        (one_picture / "list.txt").write_text(text, encoding="utf-8-sig" if mark else "utf-8")
        spec = DataSpec("list", train_file=str(one_picture / "list.txt"), train_path=str(one_picture))
        every = range(max(labels) + 1)
        data = loaded(spec, refused=len(set(labels)) > 1 and set(labels) == set(every[1:]))
        if data is None:
            return
        assert data.found is not None
        counts = [sum(split.counts[label] for split in data.found.splits) for label in every]
        assert counts == [labels.count(label) for label in every]
        assert (0 in counts) == any("have no training picture" in note for note in data.found.origin.notes)

    holds()
