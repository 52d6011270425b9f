"""Problems: what pydantic finds wrong with a value, as one UserError."""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from onceforall.errors import UserError
from onceforall.files import dotted, shortened, shown

_KINDS = {"int_type": "a whole number", "int_from_float": "a whole number", "int_parsing_size": "a whole number",
          "float_type": "a number", "finite_number": "a finite number", "bool_type": "true or false",
          "string_type": "a text", "string_unicode": "a text", "tuple_type": "a list", "dict_type": "an object {...}",
          "model_type": "an object {...}", "model_attributes_type": "an object {...}"}
_LIMITS = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least"),
           "less_than": ("lt", "below"), "less_than_equal": ("le", "at most")}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_FIXED = {"missing": "is missing", "too_short": "is empty", "string_too_short": "is empty"}


def as_user_error(error: ValidationError, root: type) -> UserError:
    """The first problem as a UserError. Its remedy names the places of the others. Unknown keys come first."""
    found = sorted(error.errors(include_url=False), key=lambda details: details["type"] not in _UNKNOWN)
    first, *others = [_problem(details, root) for details in found]
    if not others:
        return first
    places = ", ".join(other.place for other in others[:5]) + (", ..." if len(others) > 5 else "")
    remedy = f"{first.remedy}; " if first.remedy else ""
    return UserError(first.place, first.problem, f"{remedy}and {len(others)} more: {places}")


def first_of(error: ValidationError) -> str:
    """The first problem in pydantic's words, after its place."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def _problem(details: Mapping[str, Any], root: type) -> UserError:
    loc, kind, value, context = details["loc"], details["type"], details["input"], details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, UserError):
        place, inner = dotted(loc), cause.place
        joint = "." if place and inner and not inner.startswith("[") else ""
        return UserError(place + joint + inner or "configuration", shortened(cause.problem, 300), cause.remedy)
    if kind in _UNKNOWN:
        return _unknown_key(loc, root)
    problem, remedy = _rule(kind, value, context)
    return UserError(dotted(loc) or "configuration", problem, remedy or _description(loc, root))


def _rule(kind: str, value: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with the value, and a remedy where the value alone tells one."""
    problem, remedy = f"{shown(value)} is not accepted ({kind.replace('_', ' ')})", ""
    if kind in _FIXED:
        problem = _FIXED[kind]
    elif kind in _KINDS:
        problem = f"{shown(value)} is not {_KINDS[kind]}"
        if isinstance(value, str) and re.fullmatch(r"(?i)true|false|null|-?\d+(\.\d+)?(e-?\d+)?", value.strip()):
            remedy = f"write {value.strip().lower()}, without quotes"
    elif kind in _LIMITS:
        key, words = _LIMITS[kind]
        problem = f"{shown(value)} is not {words} {context[key]}"
    elif kind == "literal_error":
        problem = f"{shown(value)} is not {context['expected']}"
        near = difflib.get_close_matches(str(value), re.findall(r"'(.*?)'", context["expected"]), n=1)
        remedy = f"did you mean {near[0]}?" if near else ""
    elif kind == "too_long":
        problem = f"has {context['actual_length']} entries instead of {context['max_length']}"
    return problem, remedy


def _unknown_key(loc: tuple[str | int, ...], root: type) -> UserError:
    section = _section_at(loc[:-1], root)
    known = sorted(_fields(section)) if section else []
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    home = next((place for place in _homes(root) if place[-1] == loc[-1]), None)
    remedy = (f"did you mean {near[0]}?" if near else f"its place is {dotted(home)}" if home
              else f"known: {', '.join(known)}")
    return UserError(dotted(loc), "is not a known key", remedy)


def _homes(section: type, loc: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of every key, sections before what is in them."""
    if len(loc) > 3:
        return
    yield from ((*loc, key) for key in _fields(section))
    for key, (_, inner) in _fields(section).items():
        if inner is not None:
            yield from _homes(inner, (*loc, key))


def _description(loc: Sequence[str | int], root: type) -> str:
    """What the key at `loc`, or the list around it, is for."""
    names = [part for part in loc if isinstance(part, str)]
    section = _section_at(names[:-1], root) if names else None
    return _fields(section).get(names[-1], ("", None))[0] if section else ""


def _section_at(loc: Sequence[str | int], root: type) -> type | None:
    section: type | None = root
    for key in loc:
        section = _fields(section).get(str(key), ("", None))[1] if section else None
    return section


def _fields(section: type) -> dict[str, tuple[str, type | None]]:
    """Key to its description and, where its value is a section, the section's class: a model or a dataclass."""
    if not issubclass(section, BaseModel):
        assert dataclasses.is_dataclass(section)
        return {field.name: ("", None) for field in dataclasses.fields(section)}
    found = {}
    for name, field in section.model_fields.items():
        kinds = typing.get_args(field.annotation) or (field.annotation,)
        model = next((kind for kind in kinds if isinstance(kind, type) and (
            issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))), None)
        found[field.alias or name] = (field.description or "", model)
    return found
