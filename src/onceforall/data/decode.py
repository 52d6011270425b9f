"""Reading picture files: every mode becomes RGB, and a broken file has a reason instead of a traceback."""

import logging
import os
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from onceforall.data.depth import USUAL, Depth, in_eight_bits
from onceforall.data.orientation import Turn, turn_of
from onceforall.data.spec import Interpolation
from onceforall.errors import UserError, printable

MAX_PIXELS = 89_478_485  # PIL's own limit for a decompression bomb: 256 MiB as RGB
MAX_NAMED = 10
# Pillow knows more, and hands some of them (EPS) to other programs. "JPEG" stands for MPO as well, which phones write
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []))
# Whatever Pillow's plug-ins raise on damaged bytes
DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, NotImplementedError,
    AssertionError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip

logger = logging.getLogger(__name__)

Box: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[int, int]
T = TypeVar("T")


class Cut(NamedTuple):
    """What is taken of a picture.

    Args:
        box: the part that is cut out: left, top, right, bottom.
        size: the (width, height) that it is resized to.
        interpolation: bilinear or bicubic, with antialiasing.
    """

    box: Box
    size: Size
    interpolation: Interpolation = "bilinear"


Aim: TypeAlias = Callable[[int, int], Cut]  # of the picture's (width, height)


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


def read_pixels(path: str, aim: Aim | None = None, depth: Depth = USUAL) -> NDArray[np.uint8] | Broken:
    """The picture, upright, as (H, W, 3) uint8, or why it cannot be read.

    `aim(width, height)` says what is taken of it. A JPEG is then decoded at the smallest scale (1, 1/2, 1/4, 1/8) that
    still has as many pixels in the box.
    """
    return read_with(path, lambda image, turn: pixels_of(image, turn, aim, depth))


def read_with(path: str, use: Callable[[Image.Image, Turn], T]) -> T | Broken:
    """What `use` makes of the opened file and of the turn that its pixels still need, or why it cannot be read."""
    try:
        with opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                return Broken(path, f"{image.width}x{image.height} is more than {MAX_PIXELS} pixels")
            if image.format not in ("JPEG", "MPO"):
                image.load()  # the EXIF data may follow the pixels
            return use(image, turn_of(image))
    except UnidentifiedImageError:
        return Broken(path, "not a picture")
    except DAMAGE as error:
        return Broken(path, error_line(error))


def pixels_of(image: Image.Image, turn: Turn, aim: Aim | None, depth: Depth) -> NDArray[np.uint8]:
    """The pixels of an opened file, as `read_pixels` gives them."""
    if aim is None:
        return np.array(turn.apply(to_rgb(image, depth)))
    box, size, interpolation = aim(*turn.size(image.size))
    shrink = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
    upright, box = decoded(image, box, shrink, turn=turn, depth=depth)
    return _resized(upright, box, size, interpolation)


def cut(pixels: NDArray[np.uint8], aim: Aim | None) -> NDArray[np.uint8]:
    """What `aim` says of a picture (H, W, 3); None: the whole picture."""
    if aim is None:
        return pixels
    return _resized(Image.fromarray(pixels), *aim(pixels.shape[1], pixels.shape[0]))


def _resized(image: Image.Image, box: Box, size: Size, interpolation: Interpolation) -> NDArray[np.uint8]:
    return np.array(image.resize(size, Image.Resampling[interpolation.upper()], box=box, reducing_gap=2.0))


def read_size(path: str) -> Size | None:
    """(width, height) of the upright picture from the file's header, None for a broken one."""
    try:
        with opened(path) as image:
            return turn_of(image).size(image.size)
    except DAMAGE:
        return None


def opened(path: str) -> Image.Image:
    """The picture file, of which Pillow has read the header; raises one of `DAMAGE`."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would be waited for, a device read without end
        raise OSError("not a file")
    return Image.open(path, formats=FORMATS)


def error_line(error: BaseException) -> str:
    """The first line of what went wrong, for a one-line message."""
    return (str(error) or type(error).__name__).splitlines()[0]


def to_rgb(image: Image.Image, depth: Depth) -> Image.Image:
    """Any mode as 8-bit RGB: the first frame, transparency dropped, deep pixels scaled."""
    image = in_eight_bits(image, depth)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about transparency given as bytes
    return image if image.mode == "RGB" else image.convert("RGB")


def decoded(image: Image.Image, box: Box, shrink: float, *, turn: Turn, depth: Depth) -> tuple[Image.Image, Box]:
    """The upright picture, which a decoder may have made up to `shrink` times smaller, and a box of it there."""
    width, height = turn.size(image.size)
    factor = 1.0
    if shrink >= 2:
        stored = image.size
        scaled = image.draft(None, turn.size((ceil(width / shrink), ceil(height / shrink))))
        if scaled is not None:
            factor = scaled[1][2] / stored[0]
    upright = turn.apply(to_rgb(image, depth))
    # a reduced picture ends within its last pixel, which a turn brings to the front
    left = upright.width - width * factor if turn.across else 0
    top = upright.height - height * factor if turn.down else 0
    return upright, (left + box[0] * factor, top + box[1] * factor, left + box[2] * factor, top + box[3] * factor)
