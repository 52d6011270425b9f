"""Class names that say a mirrored picture may belong to another class."""

from __future__ import annotations

import re
from collections.abc import Sequence

_OPPOSITES = (("left", "right"), ("west", "east"), ("clockwise", "counterclockwise"), ("clockwise", "anticlockwise"))
_LETTERS = (("b", "d"), ("p", "q"), ("l", "r"))  # the last one stands for left and right
_DIGITS = frozenset(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"))


def mirrored_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Classes that mirroring their pictures may turn into one another, or into nothing that has a name.

    Returns:
        The first pair of names that are each other's mirror image ("turn left" and "turn right", "b" and "d"); all
        classes where every name is a digit, a number or a single letter; else nothing.
    """
    known = {name.casefold(): name for name in classes}
    for name in classes:
        for mirrored in _mirrored(name.casefold()):
            if mirrored in known:
                return name, known[mirrored]
    return tuple(classes) if all(map(_is_sign, classes)) else ()


def _mirrored(name: str) -> list[str]:
    """The names that result where the words of a pair change places."""
    swapped = [_swapped(name, pair, pattern="{}") for pair in _OPPOSITES]
    swapped += [_swapped(name, pair, pattern=r"(?<![^\W_]){}(?![^\W_])") for pair in _LETTERS]
    return [other for other in swapped if other != name]


def _swapped(name: str, pair: tuple[str, str], *, pattern: str) -> str:
    other = {pair[0]: pair[1], pair[1]: pair[0]}
    return re.sub(pattern.format(f"({'|'.join(pair)})"), lambda found: other[found[0]], name)


def _is_sign(name: str) -> bool:
    return name.isdigit() or (len(name) == 1 and name.isalpha()) or name.casefold() in _DIGITS
