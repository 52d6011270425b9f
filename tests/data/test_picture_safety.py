"""Data made to harm: what is read is a picture file of known form and size, and nothing else happens."""

from __future__ import annotations

import gzip
import logging
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onceforall.data import DataSpec, load_data
from onceforall.data.decode import FORMATS, Broken, BrokenLog, read_pixels, read_size
from onceforall.data.folders import class_names, read_folder, read_list
from onceforall.errors import UserError, printable


def bomb(path: Path, side: int = 20_000) -> Path:
    """A grey PNG of side x side pixels, one bit each, in a few kilobytes."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 20_000])
def test_a_picture_that_unpacks_to_gigabytes(tmp_path: Path, little_memory: None, side: int) -> None:
    path = bomb(tmp_path / "a.png", side)
    assert path.stat().st_size < 100_000
    found = read_pixels(str(path))
    assert isinstance(found, Broken)
    assert "pixels" in found.reason


def test_other_programs_are_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS named as JPEG, which Pillow would hand to Ghostscript."""
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n", encoding="ascii")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "a.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    assert read_pixels(str(path)) == Broken(str(path), "not a picture")
    assert not (tmp_path / "ran").exists()
    assert "EPS" not in FORMATS


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    for path in ("a.jpg", "b.jpg"):
        assert read_pixels(str(tmp_path / path)) == Broken(str(tmp_path / path), "not a file")
        assert read_size(str(tmp_path / path)) is None
    with pytest.raises(UserError, match="it is no file"):
        read_list(str(tmp_path / "a.jpg"), str(tmp_path))


@pytest.mark.parametrize("name", [b"a\xff", b"a\nb", b"\x1b[2J", "a\u202eb".encode()])
def test_a_class_that_cannot_be_printed_is_refused(tmp_path: Path, name: bytes) -> None:
    os.makedirs(os.fsencode(tmp_path) + b"/train/" + name)
    with pytest.raises(UserError, match="is no name for a class") as found:
        class_names(tmp_path / "train")
    assert str(found.value).isprintable()


def test_file_names_do_not_reach_the_terminal_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    name = "a\x1b]0;title\x07\x9b\r\n\udcff\u202e 'b' ü.jpg"
    with caplog.at_level(logging.WARNING):
        BrokenLog(strict=False).note(Broken(name, "damaged \x1b[31m"))
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert str(UserError(name, "is wrong")) == r"a\x1b]0;title\x07\x9b\r\n\udcff\u202e 'b' ü.jpg: is wrong"
    assert printable("naïve 名前 'x'") == "naïve 名前 'x'"


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train" / "a" / "closed").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "a" / "1.png")
    scan = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(UserError, match="closed: cannot be read: Permission denied"):
        read_folder(tmp_path / "train", ("a",), complete=True)


def test_a_label_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"a.jpg {'1' * 10_000}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"list\.txt:1"):
        read_list(str(tmp_path / "list.txt"), str(tmp_path))


def test_an_idx_file_that_unpacks_to_gigabytes(tmp_path: Path, little_memory: None) -> None:
    for stem in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        with gzip.open(tmp_path / f"{stem}.gz", "wb", 1) as file:
            for _ in range(700):
                file.write(bytes(1_000_000))
    with pytest.raises(UserError, match="is no complete idx file"):
        load_data(DataSpec("fashion-mnist", root=str(tmp_path)))


@pytest.mark.parametrize("shape", [[2**31, 2**31, 4], [2**32 - 2, 2**32 - 3, 1]])
def test_an_idx_file_of_an_impossible_shape(tmp_path: Path, shape: list[int]) -> None:
    data = b"\0\0\x08\x03" + np.array(shape, np.uint64).astype(">u4").tobytes()
    for number in (0, 6):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(data + bytes(number))
        with pytest.raises(UserError, match="is no complete idx file"):
            load_data(DataSpec("fashion-mnist", root=str(tmp_path)))


def test_pickles_of_cifar10_are_not_run(tmp_path: Path) -> None:
    """Its own are, whose MD5 is known."""
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Attack()))
    with pytest.raises(UserError, match="no CIFAR-10"):
        load_data(DataSpec("cifar10", root=str(tmp_path)))
    assert not (tmp_path / "ran").exists()
