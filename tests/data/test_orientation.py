"""A picture that a tag turns is read as the upright one."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.Image import Transpose
from PIL.JpegImagePlugin import JpegImageFile

from onceforall.data import Augment, FilePictures, Loader, TrainBatches, eval_batches
from onceforall.data.decode import BrokenLog, Cut, read_pixels, read_size
from onceforall.data.pictures import ArrayPictures
from onceforall.data.small import in_memory_if_small

# how a camera that is held otherwise stores the picture, by the tag that says so
STORED = {
    1: None, 2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_90, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_270,
}  # fmt: skip
TAGS = [tag for tag in STORED if tag > 1]


def exif(tag: object) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = tag
    return found


def save_turned(image: Image.Image, path: Path, tag: int, **options: object) -> Path:
    """Store the upright `image` as a camera does that turns it by a tag."""
    turned = image if STORED[tag] is None else image.transpose(STORED[tag])
    turned.save(path, exif=exif(tag), **options)
    return path


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def waves(width: int, height: int) -> Image.Image:
    """Smooth, and of other shapes along each axis and in each corner."""
    down, across = np.mgrid[0:height, 0:width]
    parts = [128 + 100 * np.sin(2 * np.pi * axis / 97) for axis in (down, 1.5 * across, (down + 2 * across) / 2)]
    return Image.fromarray(np.stack(parts, axis=2).astype(np.uint8))


LOSSLESS = [("a.png", {}), ("a.webp", {"lossless": True}), ("a.tif", {}), ("a.tif", {"compression": "tiff_lzw"})]


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize(("name", "options"), LOSSLESS)
def test_every_tag_of_a_file_without_loss(tmp_path: Path, name: str, options: dict[str, object], tag: int) -> None:
    upright = noise(23, 40)
    path = str(save_turned(upright, tmp_path / name, tag, **options))
    np.testing.assert_array_equal(read_pixels(path), np.asarray(upright))
    assert read_size(path) == (23, 40)

    def aim(width: int, height: int) -> Cut:
        assert (width, height) == (23, 40)
        return Cut((2, 1, 17, 34), (9, 8))

    upright.save(tmp_path / "upright.png")
    np.testing.assert_array_equal(read_pixels(path, aim), read_pixels(str(tmp_path / "upright.png"), aim))


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize("size", [(803, 1205), (800, 1200)])
def test_every_tag_of_a_reduced_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tag: int, size) -> None:
    """Sizes that eight does not divide, too, whose reduced pictures have a last row and column that is partly empty."""
    upright, drafted = waves(*size), []
    path = str(save_turned(upright, tmp_path / "a.jpg", tag, quality=98, subsampling=0))
    draft = JpegImageFile.draft
    monkeypatch.setattr(JpegImageFile, "draft", lambda *given: drafted.append(draft(*given)) or drafted[-1])
    box = (100, 203, 740, 843)
    got = read_pixels(path, lambda width, height: Cut(box, (75, 75)))
    assert isinstance(got, np.ndarray)
    assert [scale[1][2:] for scale in drafted] == [
        ((size[1] / 8, size[0] / 8) if tag > 4 else (size[0] / 8, size[1] / 8))], "it was decoded at full size"
    expected = np.asarray(upright.resize((75, 75), Image.Resampling.BILINEAR, box=box))
    assert np.abs(got.astype(int) - expected).max() <= 8  # a shift by one pixel of the reduced picture makes 50


@pytest.mark.parametrize("tag", TAGS)
def test_a_camera_file_of_several_pictures(tmp_path: Path, tag: int) -> None:
    """MPO, which phones write under the ending .jpg."""
    upright = waves(60, 90)
    stored = upright.transpose(STORED[tag])
    stored.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[noise(60, 90)], exif=exif(tag), quality=98)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO"
    got = read_pixels(str(tmp_path / "a.jpg"))
    assert isinstance(got, np.ndarray)
    assert np.abs(got.astype(int) - np.asarray(upright)).mean() < 4
    assert read_size(str(tmp_path / "a.jpg")) == (60, 90)


@pytest.mark.skipif(".avif" not in Image.registered_extensions(), reason="Pillow lacks AVIF")
@pytest.mark.parametrize("tag", TAGS)
def test_avif(tmp_path: Path, tag: int) -> None:
    upright = waves(60, 90)
    got = read_pixels(str(save_turned(upright, tmp_path / "a.avif", tag, quality=100)))
    assert isinstance(got, np.ndarray)
    assert np.abs(got.astype(int) - np.asarray(upright)).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "I;16", "LA"])
def test_other_modes(tmp_path: Path, mode: str) -> None:
    upright = noise(23, 40).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        upright = Image.fromarray(np.asarray(upright).astype(np.uint16) * 257)
    upright.save(tmp_path / "upright.png")
    path = save_turned(upright, tmp_path / "a.png", 6)
    np.testing.assert_array_equal(read_pixels(str(path)), read_pixels(str(tmp_path / "upright.png")))


def test_a_tag_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    upright = noise(23, 40)
    path = save_turned(upright, tmp_path / "a.png", 6)
    data = path.read_bytes()
    start, end = data.index(b"eXIf") - 4, data.index(b"IDAT") - 4
    last = data.index(b"IEND") - 4
    path.write_bytes(data[:start] + data[end:last] + data[start:end] + data[last:])
    np.testing.assert_array_equal(read_pixels(str(path)), np.asarray(upright))


@pytest.mark.parametrize("tag", [0, 9, 65_535])
def test_a_tag_that_means_nothing(tmp_path: Path, tag: int) -> None:
    upright = noise(23, 40)
    for name in ("a.png", "a.webp", "a.jpg"):
        upright.save(tmp_path / name, exif=exif(tag), lossless=True)
        got = read_pixels(str(tmp_path / name))
        assert isinstance(got, np.ndarray)
        assert got.shape == (40, 23, 3)
    upright.save(tmp_path / "a.jpg", exif=b"Exif\0\0" + random.Random(tag).randbytes(80))
    assert isinstance(read_pixels(str(tmp_path / "a.jpg")), np.ndarray)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about damaged EXIF data
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_damaged_exif_data_does_not_break_a_picture(tmp_path: Path, name: str) -> None:
    upright, rng = noise(23, 40), random.Random(0)
    sound = exif(6)
    sound[0x8769] = {0x9003: "2020:01:01 00:00:00", 0x829A: 0.5}
    sound[0x010F] = "maker"
    for _ in range(150):
        data = bytearray(sound.tobytes())
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        data = data[:rng.choice([len(data), rng.randrange(len(data))])]
        upright.save(tmp_path / name, exif=bytes(data), lossless=True)
        got = read_pixels(str(tmp_path / name))
        assert isinstance(got, np.ndarray), got
        assert got.shape in ((40, 23, 3), (23, 40, 3))


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("resolution", [16, 48])
def test_batches(tmp_path: Path, tag: int, resolution: int) -> None:
    """Training crops and evaluation, of whichever size, are those of the upright pictures to the last bit."""
    upright, turned = [], []
    for i in range(6):
        image = noise(90 + i, 70 + 9 * i, seed=i)
        image.save(tmp_path / f"{i}.png")
        upright.append(str(tmp_path / f"{i}.png"))
        turned.append(str(save_turned(image, tmp_path / f"turned-{i}.png", tag)))
    labels = torch.arange(6)

    def batches(make: Callable[[FilePictures], object]) -> list[torch.Tensor]:
        return [torch.cat([b.images for b in make(FilePictures(tuple(paths), labels))]) for paths in (upright, turned)]

    loader = Loader(batch=3, workers=0)
    torch.testing.assert_close(*batches(lambda p: eval_batches(p, resolution, batch=4)), rtol=0, atol=0)
    torch.testing.assert_close(*batches(
        lambda p: TrainBatches(p, [resolution], augment=Augment(), loader=loader, seed=0).epoch(0)), rtol=0, atol=0)


@pytest.mark.parametrize("tag", TAGS)
def test_small_pictures_in_memory(tmp_path: Path, tag: int, caplog: pytest.LogCaptureFixture) -> None:
    images = [noise(20, 30, seed=i) for i in range(5)]
    paths = tuple(str(save_turned(image, tmp_path / f"{i}.png", tag)) for i, image in enumerate(images))
    with caplog.at_level(logging.WARNING):
        kept = in_memory_if_small(FilePictures(paths, torch.arange(5)), BrokenLog(strict=True))
    assert isinstance(kept, ArrayPictures)
    np.testing.assert_array_equal(kept.images.permute(0, 2, 3, 1), np.stack([np.asarray(image) for image in images]))
