"""Functions of the user's own: listeners, and those that go by a name that leads back to them, `module:name`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

from onceforall.errors import UserError

T = TypeVar("T")
Listener = Callable[[Mapping[str, Any]], None]  # hears of progress, in records with a `kind`


def tell(listener: Listener | None, kind: str, *, done: int, of: int, **more: Any) -> None:
    """Let a listener, where there is one, hear how much of something is done."""
    if listener is not None:
        listener({"kind": kind, "done": done, "of": of, **more})


def name_of(value: Any) -> Any:
    """The name that `function_of` finds a function by. A text is its own name."""
    return value if isinstance(value, str) else f"{value.__module__}:{getattr(value, '__qualname__', repr(value))}"


def function_of(value: T | str, known: Mapping[str, T], *, place: str) -> T:
    """The function that a field holds: the function itself, a known name of one, or `module:name`.

    Raises:
        UserError: there is no function of that name.
    """
    if not isinstance(value, str):
        return value
    if value in known:
        return known[value]
    module, _, name = value.partition(":")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(place, f"{value!r} is no function that can be imported ({error})",
                        "give a module on the Python path and a function at its top") from None
    if not callable(found):
        raise UserError(place, f"{value!r} is no function", "give a function at the top of a module")
    return found  # type: ignore[no-any-return]


def check_named(value: Any, *, place: str) -> None:
    """Raise UserError for a function that cannot be found again by its name: a stopped run could not go on with it."""
    if value is None or isinstance(value, str):
        return
    try:
        found = function_of(name_of(value), {}, place=place)
    except UserError:
        found = None
    if found is not value:
        raise UserError(place, f"{name_of(value)} is not found again by its name, so that a run could not go on",
                        "define a function at the top of a module")


def check_function(value: Any, known: Mapping[str, Any], *, place: str, what: str) -> None:
    """Raise UserError for a text that is neither a known name nor of the form `module:name`."""
    if isinstance(value, str) and value not in known and not re.fullmatch(r"[\w.]+:[\w.<>]+", value):
        near = difflib.get_close_matches(value, known, n=1)
        raise UserError(place, f"{value!r} is no {what}", f"did you mean {near[0]}?" if near else
                        "; or ".join([*([f"known: {', '.join(known)}"] if known else []),
                                      "give a function, in a file as module:name"]))
