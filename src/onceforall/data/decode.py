"""Reading picture files: every mode becomes RGB, and a broken file has a reason instead of a traceback."""

import logging
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from onceforall.space.errors import UserError, printable

MAX_PIXELS = 89_478_485  # PIL's own limit for a decompression bomb: 256 MiB as RGB
MAX_NAMED = 10
# Pillow knows more, and hands some of them (EPS) to other programs
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
# Whatever Pillow's plug-ins raise on damaged bytes
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip

logger = logging.getLogger(__name__)

Box: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[int, int]
Aim: TypeAlias = Callable[[int, int], tuple[Box, Size]]


@dataclass(frozen=True)
class Broken:
    """A file that is no readable picture, and why."""

    path: str
    reason: str


class BrokenLog:
    """Names each broken file once in a warning (the first ten, then only counts); `strict` raises `UserError`."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._seen: set[str] = set()

    @property
    def count(self) -> int:
        """Broken files so far, each counted once."""
        return len(self._seen)

    @property
    def example(self) -> str:
        """One of the broken files, where there is any."""
        return min(self._seen)

    def note(self, broken: Broken) -> None:
        if self._strict:
            raise UserError(broken.path, f"broken picture ({broken.reason})", "mend or delete it, or unset strict")
        if broken.path in self._seen:
            return
        self._seen.add(broken.path)
        if self.count <= MAX_NAMED:
            logger.warning("%s: broken picture skipped (%s)", printable(broken.path), printable(broken.reason))
        elif self.count == MAX_NAMED + 1:
            logger.warning("more than %d broken pictures: further ones are counted, not named", MAX_NAMED)


def read_pixels(path: str, aim: Aim | None = None) -> NDArray[np.uint8] | Broken:
    """The picture as (H, W, 3) uint8, or why it cannot be read.

    `aim(width, height)` gives the box (left, top, right, bottom) to cut and the (width, height) to resize it to;
    a JPEG is then decoded at the smallest scale (1, 1/2, 1/4, 1/8) that still has as many pixels in the box.
    """
    try:
        with _opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return Broken(path, f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels")
            if aim is None:
                return np.array(to_rgb(image))
            return _cut(image, *aim(image.width, image.height))
    except UnidentifiedImageError:
        return Broken(path, "not a picture")
    except _DAMAGE as error:
        return Broken(path, error_line(error))


def read_size(path: str) -> Size | None:
    """(width, height) from the file's header, None for a broken one."""
    try:
        with _opened(path) as image:
            return image.size
    except _DAMAGE:
        return None


def _opened(path: str) -> Image.Image:
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a device read without end
        raise OSError("not a file")
    return Image.open(path, formats=FORMATS)


def error_line(error: BaseException) -> str:
    """The first line of what went wrong, for a one-line message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: the first frame, transparency dropped, 16-bit grey scaled."""
    if image.mode.startswith("I"):
        # Pillow's own conversion clips 16-bit grey at 255 instead of scaling it; mode "I" is a widened 16-bit file
        levels = np.array(image, dtype=np.float32)
        levels /= 257  # in place: a picture may be large
        image = Image.fromarray(levels.round(out=levels).clip(0, 255, out=levels).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about transparency given as bytes
    return image if image.mode == "RGB" else image.convert("RGB")


def _cut(image: Image.Image, box: Box, size: Size) -> NDArray[np.uint8]:
    width = image.width
    shrink = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
    if shrink >= 2:
        scaled = image.draft(None, (ceil(width / shrink), ceil(image.height / shrink)))
        if scaled is not None:
            factor = scaled[1][2] / width
            box = (box[0] * factor, box[1] * factor, box[2] * factor, box[3] * factor)
    return np.array(to_rgb(image).resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=2.0))
