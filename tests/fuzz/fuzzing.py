"""What every fuzz test has: its profile, the judge of a case, and damaged JSON and bytes."""

from __future__ import annotations

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from onceforall.errors import UserError
from onceforall.space import search_space

T = TypeVar("T")
SPACE = search_space("mobilenet_v3_large_32px?width_mult=0.15")
LIMIT = 10.0  # seconds a case may take
LONG = "long" in (os.environ.get("ONCEFORALL_FUZZ"), os.environ.get("HYPOTHESIS_PROFILE"))
_COMMON: dict[str, Any] = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("ci", derandomize=True, **_COMMON)
settings.register_profile("long", derandomize=False, **_COMMON)
settings.load_profile("long" if LONG else "ci")


def cases(count: int) -> settings:
    """So many cases in CI, ten times as many by hand."""
    return settings(max_examples=count * (10 if LONG else 1))


@dataclass
class Figures:
    """How the cases of a run ended."""

    cases: int = 0
    accepted: int = 0
    refused: int = 0
    tracebacks: int = 0
    hangs: int = 0

    def __str__(self) -> str:
        return (f"fuzz: {self.cases:,} cases, {self.accepted:,} accepted, {self.refused:,} refused, "
                f"{self.tracebacks:,} tracebacks, {self.hangs:,} hangs")


FIGURES = Figures()


class Hang(BaseException):
    """A case that is still running after LIMIT seconds; no `except Exception` catches it."""


@contextmanager
def watched() -> Iterator[None]:
    """Counts a case, and as a hang or a traceback what ends it so."""
    def late(number: int, frame: object) -> None:
        raise Hang(f"still running after {LIMIT:g} s")

    FIGURES.cases += 1
    before, start = signal.signal(signal.SIGALRM, late), time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        yield
        if time.monotonic() - start > LIMIT:  # in compiled code, which no signal stops
            raise Hang(f"took {time.monotonic() - start:.1f} s")
    except Hang:
        FIGURES.hangs += 1
        raise
    except BaseException:
        FIGURES.tracebacks += 1
        raise
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judged(run: Callable[[], T]) -> T | None:
    """What a case gives, or None where it is refused with one readable line; anything else fails the test."""
    with watched():
        try:
            found = run()
        except UserError as error:
            line = str(error)
            assert line.isprintable() and ": " in line and len(line) < 2000, line
            FIGURES.refused += 1
            return None
    FIGURES.accepted += 1
    return found


ODD = st.sampled_from([
    None, True, False, 0, -1, 1, 3, 5, 9, 2**31, 2**63, 10**30, -10**30, 0.5, 2.0, 3.0, 12.0, -0.0, 1e-300, 1e308,
    float("nan"), float("inf"), float("-inf"), "", " ", "3", "nan", "x", "../..", "a\nb", "a\0b", "\u2028", "\ud800",
    "largest", "é" * 50, [], [[]], [None], [3, 3], [3.0], {}, {"a": 1}, {"name": None}, [{"x": []}]]).map(copy.deepcopy)


def _places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in items:
        yield from _places(entry, (*at, key))


@st.composite
def mutated(draw: st.DrawFn, valid: Any) -> Any:
    """A JSON value with up to three places changed: other values, missing, misspelt, unknown and repeated entries."""
    value = copy.deepcopy(valid)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(list(_places(value))))
        if not place:
            continue
        inside = value
        for key in place[:-1]:
            inside = inside[key]
        key, how = place[-1], draw(st.sampled_from(["value", "value", "delete", "misspell", "add", "nest"]))
        if how == "value":
            inside[key] = draw(ODD)
        elif how == "delete":
            del inside[key]
        elif how == "nest":
            inside[key] = [inside[key]]
        elif isinstance(inside, list):
            inside.insert(key, draw(ODD))
        elif how == "misspell":
            inside[f"{key}"[:-1] + "x"] = inside.pop(key)
        else:
            inside[draw(st.sampled_from(["extra", "Name", "", "é", "a b"]))] = draw(ODD)
    return value


@st.composite
def json_bytes(draw: st.DrawFn, valid: Any) -> bytes:
    """The bytes of a JSON file: of a mutated value, or damaged as bytes."""
    if draw(st.integers(0, 2)):
        return json.dumps(draw(mutated(valid))).encode()
    data = json.dumps(valid).encode()
    known = [b"", b"null", b"[]", b"{}", b'"x"', b"NaN", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000, b"\xff\xfe",
             data.replace(b"{", b'{"name": 1, "name": 2, ', 1), b"\xef\xbb\xbf" + data, data.decode().encode("utf-16")]
    return draw(st.sampled_from(known) | damaged(data))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes cut off, changed in up to eight places, or with some more in them; the ends are hit as often as the middle.
    """
    how = draw(st.sampled_from(["cut", "flip", "flip", "insert", "tail"]))
    last = len(data) - 1
    place = st.integers(0, last) | st.integers(0, min(2000, last)) | st.integers(max(0, last - 2000), last)
    if how == "cut":
        return data[:draw(place)]
    if how == "tail":
        return data + draw(st.binary(min_size=1, max_size=20))
    out = bytearray(data)
    if how == "insert":
        at = draw(place)
        out[at:at] = draw(st.binary(min_size=1, max_size=9))
        return bytes(out)
    for at in draw(st.lists(place, min_size=1, max_size=8)):
        out[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(out)
