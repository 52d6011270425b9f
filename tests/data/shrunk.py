"""Training through the cache of shrunk pictures, for its tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from onceforall.data import Augment, Batch, Loader, Pictures, TrainBatches
from onceforall.data.cache import cached
from onceforall.data.decode import Broken

HALF = Augment((0.5, 1.0))  # with 16 pixels a shorter side of 32, so that the fixture's pictures are large
PLENTY = 1 << 30


def epochs(pictures: Pictures, cache: int, *, workers: int = 0, augment: Augment = HALF, count: int = 2,
           size: int = 16) -> list[Batch]:
    """The batches of some epochs."""
    batches = TrainBatches(pictures, [size], augment=augment, seed=0, loader=Loader(4, workers=workers, cache=cache))
    return [batch for epoch in range(count) for batch in batches.epoch(epoch)]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) > 0 and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(left, right, strict=True))


def through(pictures: Pictures, limit: int = PLENTY, **options: int) -> Pictures:
    return cached(pictures, [16], augment=HALF, limit=limit, **{"readers": 1, **options})


def read_all(pictures: Pictures) -> list[np.ndarray | Broken]:
    return [pictures.read(index) for index in range(len(pictures))]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
