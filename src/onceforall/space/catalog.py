"""The catalogue: search spaces by name, each a table of the paper."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl

from onceforall.space.errors import UserError
from onceforall.space.plan import make_divisible
from onceforall.space.search_space import Head, SearchSpace, StageSpace, Stem, elastic


def _mobilenet_v3(name: str, strides: Sequence[int], resolutions: Sequence[int], width_mult: float) -> SearchSpace:
    """MobileNetV3-Large made elastic (Howard et al. 2019; Cai et al. 2020)."""
    if not (isinstance(width_mult, int | float) and math.isfinite(width_mult) and 0.1 <= width_mult <= 8):
        raise UserError(f"{name}.width_mult", f"{width_mult!r} is not a number from 0.1 to 8")
    if width_mult != 1:
        name = f"{name}?width_mult={float(width_mult)!r}"  # every digit: the name rebuilds the space
    choices = elastic({"kernel": (3, 5, 7), "expand": (3, 4, 6)})
    only = elastic({"kernel": (3,), "expand": (1,)})

    def width(channels: int) -> int:
        return make_divisible(channels * width_mult)

    def row(channels: int, stride: int, act: str, se: bool) -> StageSpace:
        return StageSpace(width(channels), (2, 3, 4), stride, act, se, choices)

    first = StageSpace(width(16), (1,), 1, "relu", se=False, elastic=only)
    return SearchSpace(
        name, tuple(resolutions), Stem(width(16), strides[0], "hswish", (first,)),
        (row(24, strides[1], "relu", se=False),
         row(40, strides[2], "relu", se=True),
         row(80, strides[3], "hswish", se=False),
         row(112, strides[4], "hswish", se=True),
         row(160, strides[5], "hswish", se=True)),
        Head(width(960), width(1280), "hswish"))


def _mobilenet_v3_large(width_mult: float = 1.0) -> SearchSpace:
    """ImageNet: 224 pixels -> 112, 56, 28, 14, 14, 7."""
    return _mobilenet_v3("mobilenet_v3_large", (2, 2, 2, 2, 1, 2), range(128, 225, 4), width_mult)


def _mobilenet_v3_large_64px(width_mult: float = 1.0) -> SearchSpace:
    """Pictures of about 64 pixels: 64 -> 32, 16, 8, 8, 8, 4."""
    return _mobilenet_v3("mobilenet_v3_large_64px", (2, 2, 2, 1, 1, 2), range(32, 65, 4), width_mult)


def _mobilenet_v3_large_32px(width_mult: float = 1.0) -> SearchSpace:
    """Pictures of 28 or 32 pixels, and smaller: 32 -> 32, 16, 8, 8, 8, 4."""
    return _mobilenet_v3("mobilenet_v3_large_32px", (1, 2, 2, 1, 1, 2), range(12, 33, 4), width_mult)


CATALOG: dict[str, Callable[..., SearchSpace]] = {
    "mobilenet_v3_large": _mobilenet_v3_large,
    "mobilenet_v3_large_64px": _mobilenet_v3_large_64px,
    "mobilenet_v3_large_32px": _mobilenet_v3_large_32px,
}


def search_space(name: str, **settings: float) -> SearchSpace:
    """The search space of that name; settings may also stand in it: `mobilenet_v3_large?width_mult=1.2`.

    Raises UserError for an unknown name or setting.
    """
    base, found = named_settings(name)
    settings = {**settings, **found}
    if base not in CATALOG:
        near = difflib.get_close_matches(base, CATALOG, n=1)
        raise UserError("search space", f"{base!r} is not in the catalogue ({', '.join(CATALOG)})",
                        f"did you mean {near[0]}?" if near else "")
    known = inspect.signature(CATALOG[base]).parameters
    for key in settings:
        if key not in known:
            raise UserError(f"{base}.{key}", "is not a setting of this search space", f"known: {', '.join(known)}")
    return CATALOG[base](**settings)


def named_settings(name: str) -> tuple[str, dict[str, float]]:
    """The bare name of a search space, and the settings that stand in `name` beside it."""
    base, _, query = name.partition("?")
    settings = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key in settings:
            raise UserError(f"{base}.{key}", "stands twice in the name", "give it once")
        try:
            settings[key] = float(text)
        except ValueError:
            raise UserError(f"{base}.{key}", f"{text!r} is not a number") from None
    return base, settings
