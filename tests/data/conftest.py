"""Pictures that the data tests make for themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onceforall.data import ArrayPictures, FilePictures

WritePicture = Callable[..., Path]


@pytest.fixture
def write_picture() -> WritePicture:
    """Write one picture of random pixels and say where."""

    def write(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture
def file_pictures(tmp_path: Path, write_picture: WritePicture) -> FilePictures:
    """Thirteen JPEG and PNG files of differing sizes, label = index."""
    paths = [
        write_picture(tmp_path / f"{i:02d}.{'png' if i % 3 else 'jpg'}", (80 + 7 * i, 70 + 3 * i), seed=i)
        for i in range(13)
    ]
    return FilePictures(tuple(map(str, paths)), torch.arange(13))


@pytest.fixture
def array_pictures() -> ArrayPictures:
    """Thirty random 16x12 pictures in memory, label = index."""
    images = torch.randint(0, 256, (30, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ArrayPictures(images, torch.arange(30))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and its folder."""
    monkeypatch.setenv("ONCEFORALL_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "pictures"
