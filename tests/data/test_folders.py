"""Class folders and list files, and what is wrong with them in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceforall.data.folders import class_names, read_folder, read_list
from onceforall.space.errors import UserError


@pytest.fixture
def split(tmp_path: Path, write_picture) -> Path:
    for name in ("b/2.JPG", "b/1.png", "a/deep/3.JPEG", "a/4.webp"):
        write_picture(tmp_path / "train" / name)
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "a" / "._4.webp").write_text("x")
    (tmp_path / "train" / ".hidden").mkdir()
    return tmp_path / "train"


def test_classes_and_pictures_are_sorted(split: Path) -> None:
    classes = class_names(split)
    pictures = read_folder(split, classes, complete=True)
    assert classes == ("a", "b")
    assert [str(Path(path).relative_to(split)) for path in pictures.paths] == [
        "a/4.webp", "a/deep/3.JPEG", "b/1.png", "b/2.JPG",
    ]  # fmt: skip
    assert pictures.labels.tolist() == [0, 0, 1, 1]


def test_links_that_lead_in_circles_end(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    (split / "a" / "loop").symlink_to(split / "a", target_is_directory=True)
    (split / "up").symlink_to(split.parent, target_is_directory=True)
    (split / "self").symlink_to(split / "self")
    (split / "linked").symlink_to(split / "b", target_is_directory=True)
    classes = class_names(split)
    assert classes == ("a", "b", "linked")
    assert len(read_folder(split, classes, complete=True)) == 6
    assert "up: a link back" in caplog.text


@pytest.mark.parametrize("what", ["missing", "file", "empty"])
def test_no_class_folders(tmp_path: Path, what: str) -> None:
    path = tmp_path / "train"
    if what == "file":
        path.write_text("x")
    if what == "empty":
        path.mkdir()
    with pytest.raises(UserError, match="train: (does not exist|is not a folder|holds no class folders)"):
        class_names(path)


def test_a_class_without_pictures(split: Path) -> None:
    (split / "c").mkdir()
    with pytest.raises(UserError, match=r"c: holds no pictures; known endings: \.jpg"):
        read_folder(split, class_names(split), complete=True)
    assert len(read_folder(split, class_names(split), complete=False)) == 4


def test_a_split_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "val" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match="val: holds no pictures"):
        read_folder(tmp_path / "val", ("a",), complete=False)


def test_a_class_that_training_lacks(split: Path) -> None:
    with pytest.raises(UserError, match="b: is a class that train/ lacks"):
        read_folder(split, ("a",), complete=False)


def test_a_list_file(tmp_path: Path, write_picture) -> None:
    write_picture(tmp_path / "in" / "a b" / "1.png")
    (tmp_path / "list.txt").write_text("a b/1.png 3\n\nc.png\t0 \n")
    pictures = read_list(str(tmp_path / "list.txt"), str(tmp_path / "in"))
    assert pictures.paths == (str(tmp_path / "in/c.png"), str(tmp_path / "in/a b/1.png"))
    assert pictures.labels.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [("x.png cat\n", r"list\.txt:1: 'x\.png cat' is not"), ("\nx.png -1\n", r"list\.txt:2"), ("x.png\n", ":1"),
     ("", "lists no pictures"), ("x.png 99999999999\n", ":1"), ("x.png 1\n", "first picture .* does not exist")],
)  # fmt: skip
def test_a_wrong_list_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_list(str(tmp_path / "list.txt"), str(tmp_path))


def test_an_unreadable_list_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_list(str(tmp_path / "none.txt"), str(tmp_path))
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="cannot be read"):
        read_list(str(tmp_path / "binary.txt"), str(tmp_path))
