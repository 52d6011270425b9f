"""Every picture mode becomes RGB bytes; every kind of damage has a reason."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onceforall.data.decode import Broken, BrokenLog, Cut, read_pixels, read_size
from onceforall.errors import UserError


def read(path: Path) -> np.ndarray:
    pixels = read_pixels(str(path))
    assert isinstance(pixels, np.ndarray), pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape[2] == 3
    return pixels


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "a.png"), ("1", "a.png"), ("LA", "a.png"), ("P", "a.png"), ("P", "a.gif"), ("RGBA", "a.png"),
     ("RGB", "a.bmp"), ("RGB", "a.webp"), ("RGB", "a.ppm"), ("CMYK", "a.jpg"), ("L", "a.jpg"), ("YCbCr", "a.tif")],
)  # fmt: skip
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, name: str) -> None:
    Image.new("RGB", (9, 7), (255, 255, 255)).convert(mode).save(tmp_path / name)
    pixels = read(tmp_path / name)
    assert pixels.shape == (7, 9, 3)
    assert pixels.min() >= 250


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path: Path, name: str) -> None:
    levels = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / name)
    assert read(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_palette_with_transparent_bytes(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    picture.save(tmp_path / "a.png", transparency=b"\x00\x80")
    assert read(tmp_path / "a.png")[0, 0].tolist() == [10, 20, 30]


def test_the_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 5), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "a.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about damaged TIFF tags
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.webp", "a.tif", "a.bmp", "a.ppm"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5])
def test_a_truncated_file_is_broken(tmp_path: Path, write_picture, name: str, share: float) -> None:
    path = write_picture(tmp_path / name, (64, 48))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert isinstance(read_pixels(str(path)), Broken)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own, about damaged TIFF tags
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.webp", "a.tif", "a.bmp", "a.ppm"])
def test_damaged_bytes_never_raise(tmp_path: Path, write_picture, name: str) -> None:
    path = write_picture(tmp_path / name, (24, 24))
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, min(len(data), 300), 4):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        assert isinstance(read_pixels(str(path)), np.ndarray | Broken)
        assert read_size(str(path)) is None or read_size(str(path))


def test_text_missing_files_and_folders_are_broken(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a picture")
    assert read_pixels(str(tmp_path / "a.jpg")) == Broken(str(tmp_path / "a.jpg"), "not a picture")
    missing = read_pixels(str(tmp_path / "b.jpg"))
    assert isinstance(missing, Broken)
    assert "No such file" in missing.reason
    assert isinstance(read_pixels(str(tmp_path)), Broken)
    assert read_size(str(tmp_path / "a.jpg")) is None


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_broken(tmp_path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(tmp_path / "a.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "b.png")
    assert isinstance(read_pixels(str(tmp_path / "a.png")), Broken)
    assert isinstance(read_pixels(str(tmp_path / "b.png")), Broken)


def test_a_reduced_jpeg_is_the_picture(tmp_path: Path) -> None:
    """Waves, cut and shrunk to a quarter: the fast way agrees with decoding everything first."""
    down, across = np.mgrid[0:301, 0:403]
    waves = [128 + 100 * np.sin(2 * np.pi * axis / 24) for axis in (down, across, (down + across) / 2)]
    pixels = np.stack(waves, axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95)
    box = (11, 23, 371, 263)
    got = read_pixels(str(tmp_path / "a.jpg"), lambda width, height: Cut(box, (90, 60)))
    assert isinstance(got, np.ndarray)
    expected = np.asarray(Image.fromarray(pixels).resize((90, 60), Image.Resampling.BILINEAR, box=box))
    assert np.abs(got.astype(int) - expected).max() <= 6


def test_broken_files_are_named_once_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    log = BrokenLog(strict=False)
    for i in range(50):
        log.note(Broken(f"picture-{i}.jpg", "damaged"))
        log.note(Broken(f"picture-{i}.jpg", "damaged"))
    assert log.count == 50
    assert caplog.text.count("picture-3.jpg") == 1
    assert len(caplog.records) == 11
    assert all(record.levelno == logging.WARNING for record in caplog.records)


def test_a_strict_log_stops_at_the_first() -> None:
    with pytest.raises(UserError, match=r"x\.jpg: broken picture \(damaged\)"):
        BrokenLog(strict=True).note(Broken("x.jpg", "damaged"))
