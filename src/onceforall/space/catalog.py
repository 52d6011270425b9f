"""The catalogue: search spaces by name, each a table of the paper."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from urllib.parse import parse_qsl

from onceforall.errors import UserError
from onceforall.space.plan import make_divisible
from onceforall.space.rows import Head, StageSpace, Stem, elastic
from onceforall.space.search_space import SearchSpace

_IMAGENET = tuple(range(128, 225, 4))  # pixels


def _mobilenet_v3(name: str, strides: Sequence[int], resolutions: Sequence[int],
                  width_mult: float = 1.0) -> SearchSpace:
    """MobileNetV3-Large made elastic (Howard et al. 2019; Cai et al. 2020)."""
    name = _width_mult(name, width_mult, 1)
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


def _width_mult(name: str, width_mult: float, own: float) -> str:
    """The name of a space at that width; raises UserError for one that is out of bounds."""
    if not (isinstance(width_mult, int | float) and math.isfinite(width_mult) and 0.1 <= width_mult <= 8):
        raise UserError(f"{name}.width_mult", f"{width_mult!r} is not a number from 0.1 to 8")
    return name if width_mult == own else f"{name}?width_mult={float(width_mult)!r}"  # every digit: it is read back


def _proxyless_nas(width_mult: float = 1.3) -> SearchSpace:
    """ProxylessNAS on MobileNetV2's blocks (Cai et al. 2019): 224 pixels -> 112, 56, 28, 14, 14, 7, 7."""
    name = _width_mult("proxyless_nas", width_mult, 1.3)
    choices = elastic({"kernel": (3, 5, 7), "expand": (3, 4, 6)})

    def row(channels: int, stride: int, depth: tuple[int, ...] = (2, 3, 4)) -> StageSpace:
        return StageSpace(make_divisible(channels * width_mult), depth, stride, "relu6", se=False, elastic=choices)

    first = replace(row(16, 1, (1,)), elastic=elastic({"kernel": (3,), "expand": (1,)}))
    return SearchSpace(
        name, _IMAGENET, Stem(make_divisible(32 * width_mult), 2, "relu6", (first,)),
        (row(24, 2), row(40, 2), row(80, 2), row(96, 1), row(192, 2), row(320, 1, (1,))),
        Head(make_divisible(1280 * width_mult), 0, "relu6"), bn_eps=1e-3)


def resnet_widths(multiplier: float, width_mult: float = 1.0) -> tuple[int, ...]:
    """Channels of ResNet50D's stem, of what follows it, and of its four stages at one of its elastic multipliers."""
    stem, *stages = (make_divisible(channels * multiplier * width_mult) for channels in (64, 256, 512, 1024, 2048))
    return make_divisible(stem // 2), stem, *stages


def _resnet50d(width_mult: float = 1.0) -> SearchSpace:
    """ResNet-50-D made elastic (He et al. 2019; the authors' code): 224 pixels -> 112, 56, 56, 28, 14, 7."""
    name = _width_mult("resnet50d", width_mult, 1)
    stem, second, *widths = (tuple(sorted(set(choices))) for choices in zip(
        *(resnet_widths(multiplier, width_mult) for multiplier in RESNET_MULTIPLIERS), strict=True))
    ratios = elastic({"expand": (0.2, 0.25, 0.35)})
    conv = StageSpace(0, (0, 1), 1, "relu", se=False, elastic=(), kind="conv")
    return SearchSpace(
        name, _IMAGENET, Stem(stem, 2, "relu"),
        (conv, replace(conv, width=second, depth=(1,), fixed=(("pool", 1),)),
         *(StageSpace(width, (base, base + 1, base + 2), stride, "relu", se=False, elastic=ratios, kind="bottleneck")
           for width, base, stride in zip(widths, (2, 2, 4, 2), (1, 2, 2, 2), strict=True))),
        Head(0, 0, "relu"))


def _attentive_nas(width_mult: float = 1.0) -> SearchSpace:
    """AttentiveNAS (Wang et al. 2021, the table of its search space): 224 pixels -> 112, 112, 56, 28, 14, 14, 7, 7."""
    name = _width_mult("attentive_nas", width_mult, 1)

    def widths(*choices: int) -> tuple[int, ...]:
        return tuple(sorted({make_divisible(channels * width_mult) for channels in choices}))

    def row(width: tuple[int, ...], depth: tuple[int, ...], stride: int, expand: tuple[int, ...], *,
            se: bool) -> StageSpace:
        return StageSpace(widths(*width), depth, stride, "swish", se, elastic({"kernel": (3, 5), "expand": expand}))

    return SearchSpace(
        name, (192, 224, 256, 288), Stem(widths(16, 24), 2, "swish"),
        (row((16, 24), (1, 2), 1, (1,), se=False),
         row((24, 32), (3, 4, 5), 2, (4, 5, 6), se=False),
         row((32, 40), (3, 4, 5, 6), 2, (4, 5, 6), se=True),
         row((64, 72), (3, 4, 5, 6), 2, (4, 5, 6), se=False),
         row((112, 120, 128), (3, 4, 5, 6, 7, 8), 1, (4, 5, 6), se=True),
         row((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), 2, (6,), se=True),
         row((216, 224), (1, 2), 1, (6,), se=True)),
        Head(0, widths(1792, 1984), "swish", ratio=6))


def _xception(name: str, middle: int, width_mult: float = 1.0) -> SearchSpace:
    """Xception with an elastic middle flow of so many blocks (Chollet 2017; NNablaNAS): 224 pixels -> 112, 112, 56, 28,
    14, 14, 7."""
    name = _width_mult(name, width_mult, 1)
    stem, second, *entry, last, fifth, sixth = (make_divisible(channels * width_mult)
                                                for channels in (32, 64, 128, 256, 728, 1024, 1536, 2048))

    def block(before: int, width: int, grown: int) -> StageSpace:
        return StageSpace(width, (1,), 2, "relu", se=False, elastic=(), kind="separable",
                          fixed=(("kernel", 3), ("layers", 2), ("expand", grown / before)))

    def convolution(width: int, kind: str) -> StageSpace:
        return StageSpace(width, (1,), 1, "relu", se=False, elastic=(), kind=kind)

    choices = elastic({"kernel": (3, 5, 7), "layers": (1, 2, 3), "expand": (0.6, 0.8, 1)})
    return SearchSpace(
        name, _IMAGENET, Stem(stem, 2, "relu", (convolution(second, "conv"), *(
            block(before, width, width) for before, width in pairwise((second, *entry))))),
        (StageSpace(entry[-1], (middle,), 1, "relu", se=False, elastic=choices, kind="separable",
                    idle=("layers", 1, "expand")),
         block(entry[-1], last, entry[-1]), convolution(fifth, "sepconv"), convolution(sixth, "sepconv")),
        Head(0, 0, "relu"))


RESNET_MULTIPLIERS = (0.65, 0.8, 1.0)
CATALOG: dict[str, Callable[..., SearchSpace]] = {
    # 224 pixels -> 112, 56, 28, 14, 14, 7; 64 -> 32, 16, 8, 8, 8, 4; 32 -> 32, 16, 8, 8, 8, 4
    "mobilenet_v3_large": partial(_mobilenet_v3, "mobilenet_v3_large", (2, 2, 2, 2, 1, 2), _IMAGENET),
    "mobilenet_v3_large_64px": partial(_mobilenet_v3, "mobilenet_v3_large_64px", (2, 2, 2, 1, 1, 2), range(32, 65, 4)),
    "mobilenet_v3_large_32px": partial(_mobilenet_v3, "mobilenet_v3_large_32px", (1, 2, 2, 1, 1, 2), range(12, 33, 4)),
    "proxyless_nas": _proxyless_nas,
    "resnet50d": _resnet50d,
    "attentive_nas": _attentive_nas,
    "xception41": partial(_xception, "xception41", 8),
    "xception65": partial(_xception, "xception65", 16),
}


def search_space(name: str, **settings: float) -> SearchSpace:
    """A search space of the catalogue.

        search_space("mobilenet_v3_large", width_mult=1.2)

    Args:
        name: of the space; settings may stand in it, as in "mobilenet_v3_large?width_mult=1.2".
        settings: of the space, such as `width_mult`, a factor of all channels.

    Returns:
        The space, with all its choices.

    Raises:
        UserError: there is no such space, or it has no such setting.
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


def settings_of(name: str) -> dict[str, float]:
    """The settings of the search space of that name, with their defaults."""
    return {key: setting.default for key, setting in inspect.signature(CATALOG[name]).parameters.items()}


def of_catalogue(space: SearchSpace) -> SearchSpace | None:
    """The whole space of the catalogue that a space is a part of; None for a space of the user's own."""
    try:
        whole = search_space(space.name)
    except UserError:
        return None
    return whole if space.alike(whole) else None


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
