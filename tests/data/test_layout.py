"""Where the splits of a folder are: the names that people use, and what is refused or left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onceforall.data import DataSet, DataSpec, load_data
from onceforall.errors import UserError


def fill(split: Path, count: int, *, classes: tuple[str, ...] = ("ant", "bee"), level: int = 0) -> None:
    """`count` pictures in each class folder of a split, all of one grey `level`."""
    for name in classes:
        (split / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(split / name / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty black training pictures a class."""
    fill(tmp_path / "data" / "train", 20)
    return tmp_path / "data"


def load(root: Path, **options: object) -> DataSet:
    return load_data(DataSpec("folder", root=str(root), **options))  # type: ignore[arg-type]


def sources(data: DataSet) -> dict[str, str]:
    """Where each split came from."""
    assert data.found is not None
    return {split.name: split.source for split in data.found.splits}


def left_out(data: DataSet) -> set[tuple[str, int, str]]:
    assert data.found is not None
    return {(row.reason, row.count, row.example) for row in data.found.origin.left_out}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Validation", "Val", "VAL", "dev", "test", "testing",
                                  "Test", "eval", "evaluation"])
def test_names_of_the_split_to_test_on(root: Path, name: str) -> None:
    fill(root / name, 3, level=255)
    data = load(root)
    assert (len(data.train), len(data.held_out), len(data.test)) == (36, 4, 6)
    assert int(data.test.images.min()) == 255
    assert int(data.train.images.max()) == 0
    assert sources(data)["test"] == f"{name}/"


@pytest.mark.parametrize("name", ["Train", "training", "TRAINING"])
def test_names_of_the_split_to_train_on(root: Path, name: str) -> None:
    (root / "train").rename(root / name)
    fill(root / "val", 3)
    data = load(root)
    assert (len(data.train), len(data.test)) == (36, 6)
    assert sources(data)["training"] == f"{name}/"


def test_a_split_to_validate_on_beside_one_to_test_on(root: Path) -> None:
    fill(root / "dev", 3, level=100)
    fill(root / "Testing", 2, level=255)
    data = load(root)
    assert (len(data.train), len(data.held_out), len(data.test)) == (40, 6, 4)
    assert (int(data.held_out.images.max()), int(data.test.images.min())) == (100, 255)
    assert sources(data) == {"training": "train/", "held-out": "dev/", "test": "Testing/"}


@pytest.mark.parametrize(("one", "other"), [("val", "validation"), ("dev", "valid"), ("Val", "val"), ("eval", "test"),
                                            ("Train", "train")])
def test_two_folders_of_one_meaning_are_refused(root: Path, one: str, other: str) -> None:
    for name in (one, other):
        fill(root / name, 2)
    with pytest.raises(UserError, match=f"holds {one}/ and {other}/, which mean the same split"):
        load(root)


@pytest.mark.parametrize("inside", [None, "notes.txt", ".DS_Store"])
def test_an_empty_split_is_said(root: Path, inside: str | None) -> None:
    (root / "val").mkdir()
    if inside is not None:
        (root / "val" / inside).touch()
    data = load(root)
    assert (len(data.train), len(data.held_out), len(data.test)) == (28, 4, 8)
    reason = {None: set(), "notes.txt": {("ending in .txt", 1, "val/notes.txt")},
              ".DS_Store": {("hidden", 1, "val/.DS_Store")}}[inside]
    assert left_out(data) == {("split without class folders", 1, "val"), *reason}
    assert sources(data)["test"].startswith("20 % of train/, class by class, seed 2020")


def test_pictures_without_classes_in_val_are_refused(root: Path) -> None:
    fill(root, 3, classes=("val",))
    with pytest.raises(UserError, match=r"val: holds 3 pictures, but no class folders; sort them into val/<class>/"):
        load(root)


def test_test_pictures_without_labels_are_left_out(root: Path) -> None:
    fill(root, 3, classes=("test",))
    data = load(root)
    assert (len(data.train), len(data.held_out), len(data.test)) == (28, 4, 8)
    assert ("pictures without a class folder", 3, "test/0.png") in left_out(data)
    fill(root / "val", 2)
    assert sources(load(root))["test"] == "val/"


@pytest.mark.parametrize("name", ["train", "val", "Testing"])
def test_a_split_that_is_a_link_to_nothing_is_refused(root: Path, name: str) -> None:
    if name == "train":
        (root / "train").rename(root / "other")
    (root / name).symlink_to("nowhere")
    with pytest.raises(UserError, match=f"{name}: is a link to nothing"):
        load(root)


def test_what_lies_beside_the_splits_is_named(root: Path, tmp_path: Path) -> None:
    fill(root / "val", 2)
    fill(root, 3, classes=("unsorted",))
    for name in ("val.zip", "labels.csv", ".git", "cover.png"):
        (root / name).touch()
    fill(tmp_path / "more", 1)
    (root / "train" / "ant" / "link").symlink_to(tmp_path / "more" / "ant")
    assert left_out(load(root)) == {
        ("folders that no split is called by", 1, "unsorted"), ("ending in .zip", 1, "val.zip"),
        ("ending in .csv", 1, "labels.csv"), ("hidden", 1, ".git"), ("pictures beside the splits", 1, "cover.png"),
        ("linked to a folder", 1, "train/ant/link")}


def test_the_same_folder_twice_is_said(root: Path) -> None:
    (root / "val").symlink_to("train")
    data = load(root)
    assert data.found is not None
    assert data.found.origin.notes == ("val/ is train/: the same pictures",)


def test_a_folder_of_classes(tmp_path: Path) -> None:
    fill(tmp_path / "plain", 20)
    (tmp_path / "plain" / "README.md").touch()
    data, again = load(tmp_path / "plain"), load(tmp_path / "plain")
    assert data.classes == ("ant", "bee")
    assert (len(data.train), len(data.held_out), len(data.test)) == (28, 4, 8)
    assert data.test.labels.tolist() == again.test.labels.tolist() == [0] * 4 + [1] * 4
    assert data.found is not None
    assert data.found.splits[2].counts == (4, 4)
    assert ("ending in .md", 1, "README.md") in left_out(data)
    assert "20 % of plain/, class by class, seed 2020" in data.found.text()


def test_a_folder_above_the_data_is_refused(root: Path) -> None:
    fill(root.parent / "other", 1)
    with pytest.raises(UserError, match=r"holds no train/, but data/train/ is there; give .*/data"):
        load(root.parent)


@pytest.mark.parametrize("splits", [("val",), ("test",), ("dev", "Testing")])
def test_no_training_pictures(tmp_path: Path, splits: tuple[str, ...]) -> None:
    """They are scored where nothing else is wanted."""
    for i, name in enumerate(splits):
        fill(tmp_path / name, 3, level=100 * (i + 1))
    with pytest.raises(UserError, match=r"train: does not exist"):
        load(tmp_path)
    data = load(tmp_path, score_only=True)
    assert (len(data.train), len(data.held_out), len(data.test)) == (0, 0, 6)
    assert int(data.test.images.max()) == 100 * len(splits)


def test_a_folder_of_classes_is_scored_as_a_whole(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    assert len(load(tmp_path, score_only=True).test) == 10
    fill(tmp_path / "sorted" / "train", 5)
    data = load(tmp_path / "sorted", score_only=True)  # as ever where there are training pictures
    assert (len(data.train), len(data.test)) == (8 - 2, 2)


def test_the_block(root: Path) -> None:
    """Counts of each split and class, sizes, formats; no line that a terminal would obey."""
    fill(root / "val", 3)
    Image.new("L", (30, 20)).save(root / "train" / "ant" / "large.JPG")
    (root / "notes\x1b[2J.txt").touch()
    data = load(root)
    assert data.found is not None
    lines = data.found.text().split("\n")
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines)
    for words in ("47 pictures, 2 classes", "8x6 to 30x20 pixels, median 8x6", "46 .png, 1 .jpg",
                  "ant  19 training, 2 held-out, 3 test", "bee  18 training, 2 held-out, 3 test", "1 ending in .txt"):
        assert words in text
    values = data.found.to_dict()
    assert values["splits"]["test"] == {"source": "val/", "pictures": 6, "of_class": [3, 3]}
    assert values["sizes"] == [[8, 6], [8, 6], [30, 20]]
    assert values["formats"] == {".png": 46, ".jpg": 1}


def test_the_block_of_many_classes_is_short(tmp_path: Path) -> None:
    fill(tmp_path / "train", 2, classes=tuple(f"c{i:02d}" for i in range(40)))
    fill(tmp_path / "train", 9, classes=("c07",))
    found = load(tmp_path, train_portion=1.0).found
    assert found is not None
    assert len(found.text().split("\n")) < 12
    assert "training: fewest 1 (c00), median 1, most 7 (c07)" in found.text()


def test_broken_pictures_are_counted(root: Path) -> None:
    fill(root / "val", 3)
    (root / "train" / "bee" / "0.png").write_bytes(b"")
    (root / "val" / "ant" / "0.png").write_bytes(b"")
    assert ("broken", 2, "train/bee/0.png") in left_out(load(root))
