"""A look at every picture: what is broken, and what two splits share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from deep import KINDS as DEPTHS
from PIL import Image

from onceforall.data import ArrayPictures, DataSet, DataSpec, load_data
from onceforall.data.check import checked


@pytest.fixture
def root(tmp_path: Path, write_picture) -> Path:
    """Different pictures in train and val."""
    for seed, (split, name) in enumerate((split, name) for split in ("train", "val") for name in ("ant", "bee")):
        for i in range(4):
            write_picture(tmp_path / split / name / f"{i}.png", (9, 7), seed=10 * seed + i)
    return tmp_path


def look(root: Path, **options: object) -> tuple[list[str], list[tuple[tuple[str, str], int, tuple[str, str]]]]:
    spec = DataSpec("folder", root=str(root), train_portion=1.0)
    found = checked(load_data(spec, in_memory=False), **options)  # type: ignore[arg-type]
    short = [str(Path(one.path).relative_to(root)) for one in found.broken]
    return short, [(two.splits, two.count, tuple(str(Path(path).relative_to(root)) for path in two.example))
                   for two in found.twice]


def test_a_sound_folder(root: Path) -> None:
    heard: list[dict[str, object]] = []
    assert look(root, listener=heard.append) == ([], [])
    assert heard == [{"kind": "check", "done": 16, "of": 16}]


def test_broken_files_are_named(root: Path) -> None:
    (root / "val" / "ant" / "1.png").write_bytes(b"no picture")
    (root / "train" / "bee" / "9.jpg").symlink_to("nowhere")
    assert look(root) == (["train/bee/9.jpg", "val/ant/1.png"], [])


def test_pictures_in_two_splits_are_found_by_their_pixels(root: Path) -> None:
    """Under another name, in another class, in another form of file."""
    with Image.open(root / "train" / "ant" / "2.png") as image:
        image.save(root / "val" / "bee" / "x.bmp")
        image.resize((7, 9)).save(root / "val" / "bee" / "y.png")
    (root / "val" / "ant" / "z.png").write_bytes((root / "train" / "bee" / "0.png").read_bytes())
    assert look(root) == ([], [(("training", "test"), 2, ("train/bee/0.png", "val/ant/z.png"))])


def test_pictures_of_two_classes(root: Path) -> None:
    """Within a split, and in two; of three equal pictures one is right at most."""
    for copy in ("train/bee/x.png", "val/bee/y.png", "train/ant/z.png"):
        (root / copy).write_bytes((root / "train" / "ant" / "2.png").read_bytes())
    found = checked(load_data(DataSpec("folder", root=str(root), train_portion=1.0), in_memory=False)).disputed
    assert found is not None
    assert (found.count, [str(Path(path).relative_to(root)) for path in found.example]) == (
        2, ["train/ant/2.png", "train/bee/x.png"])
    for copy in ("train/bee/x.png", "val/bee/y.png"):
        (root / copy).unlink()
    assert checked(load_data(DataSpec("folder", root=str(root), train_portion=1.0), in_memory=False)).disputed is None


@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_pictures_are_read_at_the_depth_of_the_data_set(tmp_path: Path, depth: str) -> None:
    """They are no broken ones, and those that differ by a little are not the same."""
    kind = DEPTHS[depth]
    for i, (split, name) in enumerate((split, name) for split in ("train", "val") for name in ("ant", "bee")):
        (tmp_path / split / name).mkdir(parents=True)
        levels = np.arange(6 * i, 256, 4, dtype=np.uint8)[:50].reshape(5, 10)
        kind.write(levels, tmp_path / split / name / kind.name)
    assert look(tmp_path) == ([], [])


def test_pictures_in_memory() -> None:
    images = torch.randint(0, 256, (6, 3, 5, 4), dtype=torch.uint8)
    images[5] = images[1]
    parts = [ArrayPictures(images[a:b], torch.zeros(b - a, dtype=torch.int64)) for a, b in ((0, 3), (3, 4), (4, 6))]
    found = checked(DataSet(*parts, ("a",), (0, 0, 0), (1, 1, 1)))
    assert [(two.splits, two.count, two.example) for two in found.twice] == [
        (("training", "test"), 1, ("picture 1", "picture 1"))]
