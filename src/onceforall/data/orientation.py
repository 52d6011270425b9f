"""The orientation that a picture's EXIF data names: cameras store a turned picture as it came from the sensor."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from PIL import Image
from PIL.Image import Transpose

_TAG = 0x0112
# Whatever Pillow raises on damaged EXIF data
_DAMAGE = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, AssertionError,
    OverflowError, struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """How a stored picture becomes upright, and which axes of the upright picture run against the stored ones."""

    method: Transpose | None = None
    across: bool = False
    down: bool = False

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(width, height) after the turn."""
        exchanged = self.method in (
            Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90,
        )  # fmt: skip
        return (stored[1], stored[0]) if exchanged else stored

    def apply(self, image: Image.Image) -> Image.Image:
        """The picture upright."""
        return image if self.method is None else image.transpose(self.method)


_TURNS = {
    2: Turn(Transpose.FLIP_LEFT_RIGHT, across=True),
    3: Turn(Transpose.ROTATE_180, across=True, down=True),
    4: Turn(Transpose.FLIP_TOP_BOTTOM, down=True),
    5: Turn(Transpose.TRANSPOSE),
    6: Turn(Transpose.ROTATE_270, across=True),
    7: Turn(Transpose.TRANSVERSE, across=True, down=True),
    8: Turn(Transpose.ROTATE_90, down=True),
}


def turn_of(image: Image.Image) -> Turn:
    """The turn that is left to do; none where the EXIF data names none, or is damaged.

    Pillow itself turns a TIFF when it loads the pixels, and reports its turned size before that.
    """
    if image.format == "TIFF":
        return Turn()
    try:
        # PngImageFile's own method would decode the whole picture
        return _TURNS.get(Image.Image.getexif(image).get(_TAG, 1), Turn())
    except _DAMAGE:
        return Turn()
