"""The depth of pixels: which level of a picture with more than 8 bits a channel becomes white."""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import isfinite

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SHARE = 0.01  # of a picture's pixels that may lie far outside the levels
UNDERSHOOT = 1 / 8  # resampling leaves floating-point levels so far below 0, as a share of white


@dataclass(frozen=True)
class Depth:
    """For each type of deep pixels the level that becomes 255; 0 stays 0. Files of 8 bits are not touched.

    One data set has one depth, so that its pictures' brightness stays comparable. The defaults are the types' usual
    ranges; Pillow widens some files of 16 bits to 32.
    """

    uint16: float = 65535
    int32: float = 65535
    float32: float = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            white = getattr(self, field.name)
            if not (isfinite(white) and white > 0):
                raise ValueError(f"{field.name} {white!r} is not a finite number above 0")


USUAL = Depth()
BEFORE = Depth(float32=255)  # of runs and files that were written before they said it


def deep_type(image: Image.Image) -> str | None:
    """The field of `Depth` that a picture's pixels belong to; None for 8 bits."""
    if image.mode == "F":
        return "float32"
    if image.mode == "I" and image.format == "TIFF":
        return "int32"
    return "uint16" if image.mode.startswith("I") else None


def levels_of(image: Image.Image) -> NDArray[np.float32]:
    """The levels (H, W) of a deep picture; those that are no numbers are 0."""
    levels = np.array(image, dtype=np.float32)
    levels[~np.isfinite(levels)] = 0
    return levels


def in_eight_bits(image: Image.Image, depth: Depth) -> Image.Image:
    """A deep picture in shades of grey, 8 bits; others as they are.

    Raises ValueError for a picture of another depth, which would come out black or white.
    """
    kind = deep_type(image)
    if kind is None:
        return image
    white, levels = getattr(depth, kind), levels_of(image)
    black = -UNDERSHOOT * white if kind == "float32" else 0
    if np.mean((levels < black) | (levels > 2 * white)) > _SHARE:
        raise ValueError(
            f"its levels reach from {levels.min():g} to {levels.max():g}, where 0 is black and {white:g} white"
        )
    levels /= white / 255  # in place: a picture may be large
    return Image.fromarray(levels.round(out=levels).clip(0, 255, out=levels).astype(np.uint8))
