"""Grey pictures of 8 bits written with more of them, as cameras, scanners and other programs do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]  # (H, W)


class Kind(NamedTuple):
    """How pictures are written, and what the depth of a data set of them says: nothing where `white` is empty.

    `usual`: nothing is out of the ordinary, so that nothing is said.
    """

    name: str
    write: Callable[[Grey, Path], object]
    white: dict[str, float]
    usual: bool = False


def _saved(dtype: str, factor: float, **options: Any) -> Callable[[Grey, Path], object]:
    def write(grey: Grey, path: Path) -> None:
        Image.fromarray((grey.astype(np.float64) * factor).astype(dtype)).save(path, **options)
    return write


def _pgm(maximum: int) -> Callable[[Grey, Path], object]:
    def write(grey: Grey, path: Path) -> None:
        levels = np.round(grey * (maximum / 255)).astype(">u2")
        path.write_bytes(b"P5\n%d %d\n%d\n" % (*grey.shape[::-1], maximum) + levels.tobytes())
    return write


KINDS = {
    "16 bits": Kind("a.png", _saved("u2", 257), {}, usual=True),
    "16 bits, TIFF": Kind("a.tif", _saved("<u2", 257), {}, usual=True),
    "16 bits, big-endian": Kind("a.tif", _saved(">u2", 257), {}, usual=True),
    "12 in 16 bits": Kind("a.png", _saved("u2", 16), {"uint16": 4095}),
    "12 in 16 bits, TIFF": Kind("a.tif", _saved("<u2", 16, compression="tiff_lzw"), {"uint16": 4095}),
    "10 in 16 bits": Kind("a.png", _saved("u2", 4), {"uint16": 1023}),
    "8 in 16 bits": Kind("a.png", _saved("u2", 1), {"uint16": 255}),
    "14 in 16 bits, big-endian": Kind("a.tif", _saved(">u2", 64), {"uint16": 16383}),
    "12 in 16 bits, PGM": Kind("a.ppm", _pgm(4095), {}, usual=True),  # the file says so itself
    "8 in 32 bits": Kind("a.tif", _saved("i4", 1), {"int32": 255}),
    "16 in 32 bits": Kind("a.tif", _saved("i4", 257), {}, usual=True),
    "20 in 32 bits": Kind("a.tif", _saved("i4", 4096), {"int32": 2**20 - 1}),
    "floats to 1": Kind("a.tif", _saved("f4", 1 / 255), {}, usual=True),
    "floats to 1, PFM": Kind("a.ppm", _saved("f4", 1 / 255, format="PPM"), {}, usual=True),
    "floats to 255": Kind("a.tif", _saved("f4", 1), {"float32": 255}),
    "floats to 65535": Kind("a.tif", _saved("f4", 257), {"float32": 65535}),
}
