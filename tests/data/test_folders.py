"""Class folders and list files, and what is wrong with them in one line."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from onceforall.data.decode import FORMATS, Broken, read_pixels
from onceforall.data.folders import class_names, read_folder, read_list
from onceforall.data.found import LeftOut
from onceforall.errors import UserError


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


def test_links_that_lead_in_circles_end(split: Path) -> None:
    (split / "a" / "loop").symlink_to(split / "a", target_is_directory=True)
    (split / "up").symlink_to(split.parent, target_is_directory=True)
    (split / "a" / "self").symlink_to(split / "a" / "self")
    (split / "linked").symlink_to(split / "b", target_is_directory=True)
    classes, left = class_names(split), LeftOut(split)
    assert classes == ("a", "b", "linked")
    assert len(read_folder(split, classes, complete=True, left=left)) == 6
    assert {(row.reason, row.example) for row in left.rows} >= {
        ("that leads back, a link", "up"), ("linked to a folder", "a/loop"), ("without an ending", "a/self")}


@pytest.mark.parametrize("target", ["nowhere", "bee"])
def test_a_class_that_is_a_link_to_nothing(split: Path, target: str) -> None:
    """Labels of classes behind it would move."""
    (split / "bee").symlink_to(target)
    with pytest.raises(UserError, match=r"train/bee: may be a class, but is a link to nothing"):
        class_names(split)
    left = LeftOut(split)
    assert len(read_folder(split, ("a", "b", "cat"), complete=False, left=left)) == 4  # no class that is looked for
    assert ("linked to nothing", "bee") in {(row.reason, row.example) for row in left.rows}
    with pytest.raises(UserError, match="bee: may be a class"):
        read_folder(split, ("a", "b", "bee"), complete=False)


def test_a_class_in_two_unicode_forms(tmp_path: Path, write_picture) -> None:
    composed, decomposed = (unicodedata.normalize(form, "größe") for form in ("NFC", "NFD"))
    write_picture(tmp_path / "train" / composed / "1.png")
    write_picture(tmp_path / "val" / decomposed / "1.png")
    assert class_names(tmp_path / "train") == class_names(tmp_path / "val") == (composed,)
    (path,) = read_folder(tmp_path / "val", (composed,), complete=False).paths
    assert Path(path).is_file()
    (tmp_path / "val" / composed).mkdir()
    with pytest.raises(UserError, match="second folder of that name"):
        class_names(tmp_path / "val")


@pytest.mark.parametrize("ending", [".jfif", ".JPE", ".pgm", ".PNM", ".jpg", ".tiff"])
def test_endings_that_are_read(tmp_path: Path, ending: str) -> None:
    (tmp_path / "a").mkdir()
    form = "PPM" if ending.lower() in (".pgm", ".pnm") else "TIFF" if ending == ".tiff" else "JPEG"
    Image.new("L", (9, 7), 100).save(tmp_path / "a" / f"1{ending}", form)
    (path,) = read_folder(tmp_path, ("a",), complete=True).paths
    pixels = read_pixels(path)
    assert not isinstance(pixels, Broken)
    assert pixels.shape == (7, 9, 3)
    assert abs(int(pixels[3, 3, 1]) - 100) < 3


def test_endings_of_forms_that_are_not_read(tmp_path: Path, write_picture) -> None:
    write_picture(tmp_path / "a" / "1.png")
    for name in ("2.cr2", "3.CR2", "4", "5.avif", ".6.png"):
        (tmp_path / "a" / name).touch()
    left = LeftOut(tmp_path)
    assert len(read_folder(tmp_path, ("a",), complete=True, left=left)) == 1 + ("AVIF" in FORMATS)
    counts = {row.reason: (row.count, row.example) for row in left.rows}
    assert counts.pop("ending in .avif", None) == (None if "AVIF" in FORMATS else (1, "a/5.avif"))
    assert counts == {"ending in .cr2": (2, "a/2.cr2"), "without an ending": (1, "a/4"), "hidden": (1, "a/.6.png")}
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "1.cr2").touch()
    with pytest.raises(UserError, match=r"b: holds no pictures, only 1 ending in \.cr2"):
        read_folder(tmp_path, ("a", "b"), complete=True)


def test_what_is_beside_class_folders_is_no_class(split: Path, write_picture) -> None:
    write_picture(split / "stray.png")
    (split / "bee.zip").touch()
    left = LeftOut(split)
    assert len(read_folder(split, class_names(split), complete=True, left=left)) == 4
    assert {(row.reason, row.count, row.example) for row in left.rows if "/" not in row.example} == {
        ("pictures beside the class folders", 1, "stray.png"), ("ending in .zip", 1, "bee.zip"),
        ("hidden", 1, ".hidden")}


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


def test_a_list_file_with_a_byte_order_mark(tmp_path: Path, write_picture) -> None:
    write_picture(tmp_path / "1.png")
    (tmp_path / "list.txt").write_text("1.png 0\r\n1.png 1\r\n", encoding="utf-8-sig", newline="")
    pictures = read_list(str(tmp_path / "list.txt"), str(tmp_path))
    assert pictures.paths == (str(tmp_path / "1.png"),) * 2
    assert pictures.labels.tolist() == [0, 1]


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
