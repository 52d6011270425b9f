"""How deep the pixels of a data set are, decided once from a sample of its training pictures."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from onceforall.data.decode import DAMAGE, MAX_PIXELS, opened
from onceforall.data.depth import UNDERSHOOT, USUAL, Depth, deep_type, levels_of
from onceforall.data.pictures import FilePictures, sample
from onceforall.errors import UserError, printable

SAMPLE = 64
_BITS = (8, 10, 12, 14, 16, 20, 24, 32)  # that cameras and scanners have
_NARROW = 1 / 4  # a range below this share of the full one is far below it
_OVERSHOOT = 5 / 4  # resampling leaves floating-point levels so far above the full range

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Levels:
    """The lowest and the highest level of a deep picture; `kind`: a field of `Depth`, or "colour"."""

    path: str
    kind: str
    lowest: float
    highest: float


def decided_depth(pictures: FilePictures, classes: Sequence[str]) -> Depth:
    """Decide how deep the pixels of a data set are, from a sample of its training pictures.

    A type whose range is not the usual one is named in one warning.

    Args:
        pictures: the training pictures.
        classes: the name of the class that each label means.

    Returns:
        The depth of all pictures of the data set.

    Raises:
        UserError: 8 bits cannot be made of a picture. Its levels lie below 0, or it is a dark one of 16 bits in colour,
            of which Pillow reads the upper 8 bits alone.
    """
    found: dict[str, list[_Levels]] = defaultdict(list)
    chosen = sample(pictures, SAMPLE, classes=classes, seed=0)
    for levels in filter(None, map(_read_levels, map(chosen.name, range(len(chosen))))):
        found[levels.kind].append(levels)
    whites = {kind: _white(kind, levels) for kind, levels in found.items() if kind != "colour"}
    for kind, white in whites.items():
        _say(kind, white, found[kind])
    _check_colour(found["colour"])
    return Depth(**whites)


def _white(kind: str, found: list[_Levels]) -> float:
    """The level that becomes white in files of one type."""
    usual: float = getattr(USUAL, kind)
    floats = kind == "float32"
    darkest, brightest = min(found, key=lambda f: f.lowest), max(f.highest for f in found)
    if darkest.lowest < (-UNDERSHOOT * brightest if floats else 0):
        raise UserError(darkest.path, f"has levels below 0 ({darkest.lowest:g})", "write pictures in which 0 is black")
    if brightest == 0:
        return usual
    for white in (*([1.0] if floats else []), *(2.0**bits - 1 for bits in _BITS)):
        if white * _NARROW < brightest <= white * (_OVERSHOOT if floats else 1):
            return white
    return brightest


def _say(kind: str, white: float, found: list[_Levels]) -> None:
    if white == getattr(USUAL, kind):
        return
    brightest = max(found, key=lambda f: f.highest)
    faint = sum(0 < f.highest < white / 255 for f in found)
    logger.warning(
        "%s: the levels of %d sampled training pictures of type %s reach %g: %g becomes white in all pictures of that "
        "type%s", printable(brightest.path), len(found), kind, brightest.highest, white,
        f"; {faint} of them are then black throughout: are they of another depth?" if faint else "",
    )  # fmt: skip


def _check_colour(found: list[_Levels]) -> None:
    brightest = max((f.highest for f in found), default=255)
    if 0 < brightest <= 255 * _NARROW:
        raise UserError(
            found[0].path, f"has 16 bits a channel, and {len(found)} sampled pictures like it are nearly black, "
            f"{brightest:g} of 255 at most", "write them with 8 bits a channel",
        )  # fmt: skip


def _read_levels(path: str) -> _Levels | None:
    """Those of a picture with more than 8 bits a channel; None for other pictures and for broken ones."""
    try:
        with opened(path) as image:
            kind = deep_type(image) or ("colour" if _is_deep_colour(image) else None)
            if kind is None or image.width * image.height > MAX_PIXELS:
                return None
            levels = levels_of(image.convert("RGB") if kind == "colour" else image)
            return _Levels(path, kind, float(levels.min()), float(levels.max()))
    except DAMAGE:
        return None


def _is_deep_colour(image: Image.Image) -> bool:
    """Whether a picture that is not loaded yet has more bits a channel than Pillow gives."""
    decoders = [args if isinstance(args, tuple) else (args,) for *_, args in getattr(image, "tile", ())]
    return any(";16" in str(args[0]) or (image.format == "PPM" and args[-1] not in range(256)) for args in decoders)
