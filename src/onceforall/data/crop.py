"""The random numbers of each picture of an epoch, and the random resized crop they choose."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onceforall.data.spec import Augment

TRIES = 10  # as torchvision's RandomResizedCrop
# Columns of a picture's row of uniform numbers
AREA, RATIO = slice(0, TRIES), slice(TRIES, 2 * TRIES)
TOP, LEFT, FLIP, BRIGHTNESS, SATURATION = range(2 * TRIES, 2 * TRIES + 5)
ROW = 28  # a multiple of Philox's four numbers a counter
NOISE_STREAM, ORDER_STREAM = 2, 1  # what a seed is used for

Uniform: TypeAlias = NDArray[np.float64]
Boxes: TypeAlias = NDArray[np.int64]


def noise(first: int, count: int, *, seed: int, epoch: int) -> Uniform:
    """Uniform numbers in [0, 1) of the positions first..first+count-1 of an epoch, (count, 28)."""
    key = np.random.SeedSequence([seed, epoch, NOISE_STREAM]).generate_state(2, np.uint64)
    source = np.random.Philox(key=key).advance(first * (ROW // 4))
    return np.random.Generator(source).random((count, ROW))


def crop_boxes(rows: Uniform, size: tuple[int, int], *, augment: Augment) -> Boxes:
    """Random resized crops (top, left, height, width), (B, 4), of pictures of `size` (height, width).

    Ten tries at an area and a ratio, then the largest central crop within the ratios, as torchvision does (Szegedy
    et al. 2015).
    """
    height, width = size
    low, high = augment.crop_scale
    area = height * width * (low + (high - low) * rows[:, AREA])
    shortest, longest = np.log(augment.ratio)
    ratio = np.exp(shortest + (longest - shortest) * rows[:, RATIO])
    widths, heights = np.round(np.sqrt(area * ratio)), np.round(np.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    chosen = np.arange(len(rows)), fits.argmax(axis=1)
    cut_height, cut_width = heights[chosen], widths[chosen]
    top = np.floor(rows[:, TOP] * (height - cut_height + 1))
    left = np.floor(rows[:, LEFT] * (width - cut_width + 1))
    boxes = np.stack([top, left, cut_height, cut_width], axis=1).astype(np.int64)
    boxes[~fits.any(axis=1)] = central_box(height, width, ratio=augment.ratio)
    return boxes


def central_box(height: int, width: int, *, ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """The largest central crop (top, left, height, width) whose width / height lies within `ratio`."""
    cut_width = min(width, max(1, round(height * ratio[1])))
    cut_height = min(height, max(1, round(width / ratio[0])))
    return (height - cut_height) // 2, (width - cut_width) // 2, cut_height, cut_width
