"""Pictures with more than 8 bits a pixel: their range is found once, and kept for the whole data set."""

from __future__ import annotations

import logging
import struct
import zlib
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deep import KINDS, Grey
from PIL import Image

from onceforall.data import (
    ArrayPictures,
    Augment,
    DataSpec,
    Depth,
    FilePictures,
    Known,
    Loader,
    TrainBatches,
    eval_batches,
)
from onceforall.data import load_data as load
from onceforall.data.decode import Broken, read_pixels
from onceforall.data.depth import USUAL
from onceforall.data.depth_sample import decided_depth
from onceforall.errors import UserError

CLASSES = {"dark": 0.4, "light": 1.0}


def grey(seed: int, strength: float, side: int) -> Grey:
    """Noise up to a share of the full range, with that level somewhere."""
    levels = np.random.default_rng(seed).integers(0, 256, (side, side + 3)) * strength
    levels[1, 2] = 255 * strength
    return levels.astype(np.uint8)


def write(root: Path, kind: str | None, side: int) -> None:
    """Six training and two validation pictures a class: of one kind of depth, or plain ones."""
    for split, count in (("train", 6), ("val", 2)):
        for name, strength in CLASSES.items():
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                file, save = (f"{i}.png", None) if kind is None else (f"{i}{KINDS[kind].name[1:]}", KINDS[kind].write)
                levels = grey(100 * i + len(name) + count, strength, side)
                save(levels, root / split / name / file) if save else Image.fromarray(levels).save(
                    root / split / name / file)


def batches(root: Path) -> dict[str, torch.Tensor]:
    """What the net is given, in 0..255: in training and in evaluation, once scaled and once as it is."""
    data = load(DataSpec("folder", root=str(root), train_portion=1.0))
    loader, augment = Loader(batch=4, workers=0), Augment(brightness=0, saturation=0)
    out = {"train": [b.images for b in TrainBatches(data.train, [24], augment=augment, loader=loader, seed=0).epoch(0)]}
    for resolution in (24, 60):
        out[f"test {resolution}"] = [b.images for b in eval_batches(data.test, resolution, batch=3)]
    return {name: torch.cat(images) * (1 if images[0].dtype == torch.uint8 else 255) for name, images in out.items()}


@pytest.mark.parametrize("side", [32, 80])  # in memory, and as files
@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_gives_the_pictures_of_8_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str,
                                                  side: int) -> None:
    write(tmp_path / "plain", None, side)
    write(tmp_path / "deep", kind, side)
    with caplog.at_level(logging.WARNING, logger="onceforall"):
        data = load(DataSpec("folder", root=str(tmp_path / "deep")))
    assert isinstance(data.train, ArrayPictures if side == 32 else FilePictures)
    assert data.depth == replace(USUAL, **KINDS[kind].white)
    assert len(caplog.records) == (0 if KINDS[kind].usual else 1)
    plain = batches(tmp_path / "plain")
    for name, images in batches(tmp_path / "deep").items():
        assert (images.float() - plain[name].float()).abs().max() <= 1.01, name
        assert images.max() > 120


def test_pictures_of_8_bits_are_untouched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, None, 80)
    with caplog.at_level(logging.WARNING, logger="onceforall"):
        data = load(DataSpec("folder", root=str(tmp_path)))
    assert data.depth == Depth()
    assert not caplog.records
    for path in data.test.paths:
        levels = np.asarray(Image.open(path))
        for depth in (Depth(), Depth(uint16=99, int32=3, float32=7)):
            assert np.array_equal(read_pixels(path, depth=depth), np.stack([levels] * 3, axis=2))


@pytest.mark.parametrize("kind", KINDS)
def test_brightness_stays_comparable(tmp_path: Path, kind: str) -> None:
    """A picture at a sixteenth of the others' brightness, alone in its split, is read at a sixteenth."""
    write(tmp_path, kind, 32)
    faint = np.full((32, 35), 16, dtype=np.uint8)
    (path,) = (p for p in (tmp_path / "val" / "dark").iterdir() if p.stem == "0")
    KINDS[kind].write(faint, path)
    data = load(DataSpec("folder", root=str(tmp_path)))
    assert isinstance(data.test, ArrayPictures)
    assert abs(data.test.images[0].float() - 16).max() <= 1


def test_the_training_pictures_decide(tmp_path: Path) -> None:
    write(tmp_path, "12 in 16 bits", 80)
    for path in (tmp_path / "val").rglob("*.png"):
        Image.fromarray(np.full((80, 80), 200, dtype=np.uint16)).save(path)
    data = load(DataSpec("folder", root=str(tmp_path)))
    assert data.depth == data.train.depth == data.held_out.depth == data.test.depth == Depth(uint16=4095)
    given = load(DataSpec("folder", root=str(tmp_path)), Known(depth=Depth(uint16=255)))
    assert given.depth == given.train.depth == given.test.depth == Depth(uint16=255)


def test_lists_have_a_depth_too(tmp_path: Path) -> None:
    write(tmp_path, "12 in 16 bits", 80)
    for split in ("train", "val"):
        lines = [f"{p.relative_to(tmp_path / split)} {int(p.parent.name == 'light')}"
                 for p in sorted((tmp_path / split).rglob("*.png"))]
        (tmp_path / f"{split}.txt").write_text("\n".join(lines), encoding="utf-8")
    spec = DataSpec("list", train_file=str(tmp_path / "train.txt"), train_path=str(tmp_path / "train"),
                    valid_file=str(tmp_path / "val.txt"), valid_path=str(tmp_path / "val"))
    data = load(spec)
    assert data.depth == data.train.depth == data.test.depth == Depth(uint16=4095)


NAMES = tuple(map(str, range(100)))


def of_levels(folder: Path, *pictures: object) -> FilePictures:
    """TIFF files, each of levels that are given."""
    paths = []
    for i, levels in enumerate(pictures):
        Image.fromarray(np.asarray(levels)).save(folder / f"{i}.tif")
        paths.append(str(folder / f"{i}.tif"))
    return FilePictures(tuple(paths), torch.zeros(len(paths), dtype=torch.int64))


def full(level: float, dtype: str) -> np.ndarray:
    return np.full((9, 9), level, dtype=dtype)


@pytest.mark.parametrize(("level", "dtype", "depth"), [
    (0, "u2", USUAL), (0, "f4", USUAL), (20_000, "u2", USUAL), (4000, "u2", Depth(uint16=4095)),
    (4096, "u2", Depth(uint16=16383)), (16, "u2", Depth(uint16=16)), (1, "u2", Depth(uint16=1)),
    (3.7, "f4", Depth(float32=3.7)), (1.2, "f4", USUAL), (0.5, "f4", USUAL), (0.1, "f4", Depth(float32=0.1)),
    (300.0, "f4", Depth(float32=255)), (2.0**40, "f4", Depth(float32=2.0**40)),
    (2**31 - 1, "i4", Depth(int32=2**32 - 1)),
])  # fmt: skip
def test_the_white_of_a_range(tmp_path: Path, level: float, dtype: str, depth: Depth) -> None:
    found = decided_depth(of_levels(tmp_path, full(level, dtype), full(level / 2, dtype)), NAMES)
    assert asdict(found) == pytest.approx(asdict(depth))
    pixels = read_pixels(str(tmp_path / "0.tif"), depth=found)
    assert isinstance(pixels, np.ndarray)
    assert pixels.max() > 60 or level == 0, "nearly black"


def test_numbers_that_are_none_are_black(tmp_path: Path) -> None:
    levels = full(0.6, "f4")
    levels[0, :3] = np.nan, np.inf, -np.inf
    pictures = of_levels(tmp_path, levels)
    assert decided_depth(pictures, NAMES) == USUAL
    pixels = read_pixels(pictures.paths[0])
    assert isinstance(pixels, np.ndarray)
    assert pixels[0, :, 0].tolist() == [0, 0, 0] + [153] * 6


@pytest.mark.parametrize("levels", [full(-1024, "i4"), np.linspace(-1, 1, 81, dtype="f4").reshape(9, 9)])
def test_levels_below_0_are_refused(tmp_path: Path, levels: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"0\.tif: has levels below 0"):
        decided_depth(of_levels(tmp_path, levels, full(1, "u2")), NAMES)


@pytest.mark.parametrize(("levels", "depth"), [
    (full(9000, "u2"), Depth(uint16=4095)), (full(255, "f4"), USUAL), (full(-0.2, "f4"), USUAL),
    (full(65535, "i4"), Depth(int32=255)), (full(-3000, "i4"), USUAL)])
def test_a_picture_of_another_depth_is_broken(tmp_path: Path, levels: np.ndarray, depth: Depth) -> None:
    """It would come out white, or black."""
    found = read_pixels(of_levels(tmp_path, levels).paths[0], depth=depth)
    assert isinstance(found, Broken)
    assert f"{levels.max():g}" in found.reason


def test_a_few_pixels_far_outside_are_cut_off(tmp_path: Path) -> None:
    levels = np.full((30, 30), 2048, dtype="u2")
    levels[0, :5] = 65535
    pixels = read_pixels(of_levels(tmp_path, levels).paths[0], depth=Depth(uint16=4095))
    assert isinstance(pixels, np.ndarray)
    assert pixels[0, :6, 0].tolist() == [255] * 5 + [128]


def test_a_mixture_of_depths_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pictures = of_levels(tmp_path, full(255, "f4"), full(0.9, "f4"), full(0.8, "f4"), full(200, "f4"))
    assert decided_depth(pictures, NAMES) == Depth(float32=255)
    (record,) = caplog.records
    assert "2 of them are then black" in record.getMessage()


def png_of_16_bits(path: Path, levels: np.ndarray) -> None:
    """An RGB file, which Pillow cannot write."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
                     + chunk(b"IEND", b""))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits(tmp_path: Path, caplog: pytest.LogCaptureFixture, channels: int) -> None:
    levels = np.full((9, 9, channels), 65535)
    levels[..., :3] = np.random.default_rng(0).integers(0, 65536, (9, 9, 3))
    path = tmp_path / "0.png"
    png_of_16_bits(path, levels)
    pictures = FilePictures((str(path),), torch.tensor([0]))
    assert decided_depth(pictures, NAMES) == USUAL
    assert not caplog.records
    pixels = read_pixels(str(path))
    assert isinstance(pixels, np.ndarray)
    assert abs(pixels - levels[..., :3] / 257).max() <= 1
    levels[..., :3] //= 16
    png_of_16_bits(path, levels)
    with pytest.raises(UserError, match=r"0\.png: has 16 bits a channel"):
        decided_depth(pictures, NAMES)


def test_colours_of_16_bits_in_a_ppm(tmp_path: Path) -> None:
    """One that names its range is right; one that does not is refused as other files are."""
    levels = np.full((9, 9, 3), 3000).astype(">u2")
    path = tmp_path / "0.ppm"
    pictures = FilePictures((str(path),), torch.tensor([0]))
    path.write_bytes(b"P6\n9 9\n4095\n" + levels.tobytes())
    assert decided_depth(pictures, NAMES) == USUAL
    assert read_pixels(str(path)).max() == round(3000 / 4095 * 255)
    path.write_bytes(b"P6\n9 9\n65535\n" + levels.tobytes())
    with pytest.raises(UserError, match="has 16 bits a channel"):
        decided_depth(pictures, NAMES)


@pytest.mark.parametrize("white", [0, -1, float("nan"), float("inf")])
def test_a_white_that_is_none(white: float) -> None:
    with pytest.raises(ValueError, match="int32"):
        Depth(int32=white)
