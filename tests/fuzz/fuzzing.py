"""What hypothesis does to good input: JSON values and bytes, changed in one place or a few.

`ONCEFORALL_FUZZ=long` in the environment takes ten times as many cases, other ones each time.
"""

from __future__ import annotations

import copy
import json
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

_LONG = os.environ.get("ONCEFORALL_FUZZ") == "long"

NUMBERS = st.one_of(st.integers(-3, 400), st.sampled_from([2**31, 2**63, -2**63, 10**30]),
                    st.floats(allow_nan=True, allow_infinity=True))
ANYTHING = st.recursive(st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=12)),
                        lambda inner: st.one_of(st.lists(inner, max_size=4),
                                                st.dictionaries(st.text(max_size=6), inner, max_size=3)), max_leaves=6)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with up to three places replaced, removed, renamed or repeated."""
    out = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, 3))):
        _change(draw, out)
    return out


def _change(draw: st.DrawFn, value: Any) -> None:
    here = value
    while True:
        if not isinstance(here, dict | list) or not here:
            return
        key = draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[key], dict | list) or not here[key] or draw(st.integers(0, 3)) == 0:
            break
        here = here[key]
    match draw(st.integers(0, 4)):
        case 0:
            del here[key]
        case 1 if isinstance(here, dict):
            here[key + draw(st.sampled_from(["s", "_", "é", " "]))] = here.pop(key)
        case 2 if isinstance(here, list):
            here.insert(key, copy.deepcopy(here[key]))
        case 3 if isinstance(here[key], int | float) and not isinstance(here[key], bool):
            here[key] = draw(NUMBERS)
        case _:
            here[key] = draw(ANYTHING)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that are cut off, flipped, zeroed, repeated or put in, in up to three places; most of them near the start,
    where headers are."""
    out = bytearray(content)
    for _ in range(draw(st.integers(0, 3))):
        near = min(len(out), draw(st.sampled_from([64, 4096, len(out)])))
        at = draw(st.integers(0, max(0, near - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                del out[at:]
            case 1 if out:
                out[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                out[at:at + 16] = bytes(len(out[at:at + 16]))
            case 3:
                out[at:at] = draw(st.binary(min_size=1, max_size=24))
            case _:
                out[at:at + 8] = draw(st.binary(min_size=8, max_size=8))
    return bytes(out)


def cases(count: int) -> settings:
    """So many of a test, each of at most ten seconds."""
    return settings(max_examples=10 * count if _LONG else count, deadline=10_000, derandomize=not _LONG, database=None,
                    print_blob=True, suppress_health_check=list(HealthCheck))


def text_of(value: Any) -> str:
    """As JSON files have it, NaN and Infinity included."""
    return json.dumps(value)
