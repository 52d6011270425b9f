"""Small pictures of one size move into memory; all others stay files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onceforall.data import ArrayPictures, FilePictures
from onceforall.data.decode import BrokenLog
from onceforall.data.small import in_memory_if_small
from onceforall.errors import UserError


def pictures_of(folder: Path, write, sizes: list[tuple[int, int]]) -> FilePictures:
    paths = [write(folder / f"{i:04d}.png", size, seed=i) for i, size in enumerate(sizes)]
    return FilePictures(tuple(map(str, paths)), torch.arange(len(paths)))


def test_small_pictures_are_decoded(tmp_path: Path, write_picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceforall.data.small.CHUNK", 7)
    files = pictures_of(tmp_path, write_picture, [(20, 10)] * 30)
    loaded = in_memory_if_small(files, BrokenLog(strict=True))
    assert isinstance(loaded, ArrayPictures)
    assert loaded.images.shape == (30, 3, 10, 20)
    assert loaded.images.is_contiguous()
    assert loaded.labels.tolist() == list(range(30))
    for i in (0, 29):
        assert np.array_equal(loaded.images[i].permute(1, 2, 0), np.asarray(Image.open(files.paths[i])))


def test_broken_pictures_are_left_out(tmp_path: Path, write_picture, caplog: pytest.LogCaptureFixture) -> None:
    files = pictures_of(tmp_path, write_picture, [(20, 10)] * 30)
    Path(files.paths[0]).write_bytes(b"")
    Path(files.paths[7]).write_bytes(Path(files.paths[7]).read_bytes()[:100])
    loaded = in_memory_if_small(files, BrokenLog(strict=False))
    assert loaded.labels.tolist() == [i for i in range(30) if i not in (0, 7)]
    assert files.paths[0] in caplog.text
    assert files.paths[7] in caplog.text
    assert "skipped 2 broken pictures of 30" in caplog.text
    with pytest.raises(UserError, match=r"0000\.png: broken picture"):
        in_memory_if_small(files, BrokenLog(strict=True))


@pytest.mark.parametrize("sizes", [[(20, 10)] * 29 + [(21, 10)], [(65, 64)] * 30, [(20, 10)] * 17 + [(20, 11)] * 13])
def test_other_pictures_stay_files(tmp_path: Path, write_picture, sizes: list[tuple[int, int]]) -> None:
    files = pictures_of(tmp_path, write_picture, sizes)
    assert in_memory_if_small(files, BrokenLog(strict=False)) is files


def test_one_odd_size_beyond_the_headers_stays_files(tmp_path: Path, write_picture) -> None:
    files = pictures_of(tmp_path, write_picture, [(20, 10)] * 19 + [(10, 20)] + [(20, 10)] * 20)
    assert in_memory_if_small(files, BrokenLog(strict=False)) is files


def test_too_many_stay_files(tmp_path: Path, write_picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceforall.data.small.MAX_BYTES", 3 * 200 * 30 - 1)
    files = pictures_of(tmp_path, write_picture, [(20, 10)] * 30)
    assert in_memory_if_small(files, BrokenLog(strict=False)) is files
