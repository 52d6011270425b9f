"""What every source of pictures has to do."""

from __future__ import annotations

from multiprocessing.reduction import ForkingPickler

import numpy as np
import torch

from onceforall.data import Augment, Loader, Pictures, TrainBatches, eval_batches
from onceforall.data.decode import Broken, Cut

SIDE = 16  # pixels that pictures are scaled to


def check_pictures(pictures: Pictures) -> None:
    """Check a source of pictures by what training and evaluation ask of it.

    Args:
        pictures: at least two, of which the first and the last can be read. Every picture is read.

    Raises:
        AssertionError: a rule does not hold; the message says which.
    """
    count, labels = len(pictures), pictures.labels
    assert count >= 2, "give at least two pictures"
    assert (labels.shape, labels.dtype) == ((count,), torch.int64), "labels are (N,) int64"
    assert int(labels.min()) >= 0, "labels are from 0"
    for index in (0, count - 1):
        _check_one(pictures, index)
    names = [pictures.name(index) for index in range(count)]
    assert len(set(filter(None, names))) == count, "each picture has a name of its own"
    _check_parts(pictures)
    _check_identity(pictures)
    _check_batches(pictures)


def _check_one(pictures: Pictures, index: int) -> None:
    pixels = pictures.read(index)
    assert isinstance(pixels, np.ndarray), f"picture {index} can be read"
    height, width = pixels.shape[:2]
    assert (pixels.dtype.name, pixels.shape) == ("uint8", (height, width, 3)), "a picture is (H, W, 3) uint8"
    assert _same(pictures, index, pictures, index), f"picture {index} is the same every time"
    assert pictures.size(index) == (width, height), "size is (width, height)"
    seen: list[tuple[int, int]] = []

    def left_half(width: int, height: int) -> Cut:
        seen.append((width, height))
        return Cut((0, 0, max(1, width // 2), height), (3, 5))

    part = pictures.read(index, left_half)
    assert seen == [(width, height)], "`aim` is asked once, for (width, height)"
    assert getattr(part, "shape", None) == (5, 3, 3), "`aim` names (width, height) of the result"


def _check_parts(pictures: Pictures) -> None:
    last = len(pictures) - 1
    turned = pictures.subset([last, 0])
    assert type(turned) is type(pictures), "`subset` gives pictures of the same class"
    assert turned.labels.tolist() == pictures.labels[[last, 0]].tolist(), "`subset` keeps the labels and the order"
    assert _same(turned, 1, pictures, 0), "`subset` keeps the pictures"
    assert _same(turned, 0, pictures, last), "`subset` keeps the pictures"
    assert _same(turned.subset([1]), 0, pictures, 0), "`subset` of a part counts from the part's start"
    assert len(pictures.subset([])) == 0, "`subset` may be empty"
    other = pictures.labelled(pictures.labels + 1)
    assert other.labels.tolist() == (pictures.labels + 1).tolist(), "`labelled` gives the new labels"
    assert _same(other, 0, pictures, 0), "`labelled` keeps the pictures"
    try:
        ForkingPickler.dumps(pictures)
    except Exception as error:
        raise AssertionError("pictures can be handed to a worker process") from error


def _same(a: Pictures, i: int, b: Pictures, j: int) -> bool:
    one, other = a.read(i), b.read(j)
    return isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.array_equal(one, other)


def _check_identity(pictures: Pictures) -> None:
    whole, found = range(len(pictures)), pictures.identity()
    assert found == pictures.identity() == pictures.subset(whole).identity(), "the identity stays the same"
    assert found != pictures.labelled(pictures.labels + 1).identity(), "the identity covers the labels"
    assert found != pictures.subset(whole[1:]).identity(), "the identity covers every picture"
    if not _same(pictures, 0, pictures, len(pictures) - 1):
        assert found != pictures.subset(whole[::-1]).identity(), "the identity covers the order"


def _check_batches(pictures: Pictures) -> None:
    readable = sum(not isinstance(pictures.read(index), Broken) for index in range(len(pictures)))
    seen = list(eval_batches(pictures, SIDE, batch=2))
    assert sum(map(len, seen)) == readable, "evaluation sees every picture that can be read"
    dtype = torch.uint8 if pictures.rounded else torch.float32
    batches = TrainBatches(pictures, [SIDE], augment=Augment(), loader=Loader(2, workers=0), seed=0)
    for batch in (*seen, *batches.epoch(0)):
        assert batch.images.shape == (len(batch), 3, SIDE, SIDE), "batches are (B, 3, R, R)"
        assert batch.images.dtype == dtype, "`rounded` says whether batches are uint8"
