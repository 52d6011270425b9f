"""What is wrong with a configuration, one line a problem: strict JSON, and validation errors as UserError."""

from __future__ import annotations

import difflib
import json
import math
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from onceforall.space import UserError

_KINDS = {"int_type": "a whole number", "int_from_float": "a whole number", "int_parsing_size": "a whole number",
          "float_type": "a number", "finite_number": "a finite number", "bool_type": "true or false",
          "string_type": "a text", "string_unicode": "a text", "tuple_type": "a list", "dict_type": "an object {...}",
          "model_type": "an object {...}", "model_attributes_type": "an object {...}"}
_LIMITS = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least"),
           "less_than": ("lt", "below"), "less_than_equal": ("le", "at most")}
_FIXED = {"missing": "is missing", "too_short": "is empty", "string_too_short": "is empty"}
_DEEPEST = 20


class _Object(dict[str, Any]):
    """A JSON object that remembers a key that stood in it twice."""

    repeated: str | None = None


def parse_json(text: str, place: str) -> Any:
    """The value of strict JSON; raises UserError for a syntax error, a repeated key, NaN and Infinity."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise UserError(place, f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(place, f"is not JSON that can be read: {type(error).__name__}: {error}") from None
    check_plain(value)
    return value


def parse_json_file(text: str, place: str) -> Any:
    """The same for a file whose every error names it."""
    try:
        return parse_json(text, place)
    except UserError as error:
        where = place if error.place == place else f"{place}: {error.place}"
        raise UserError(where, error.problem, error.remedy) from None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        found.repeated = next(key for i, key in enumerate(keys) if key in keys[:i])
    return found


def check_plain(value: Any, loc: tuple[str | int, ...] = ()) -> None:
    """Raises UserError where `value` holds what JSON does not, or the same key twice."""
    place = dotted(loc) or "configuration"
    if len(loc) > _DEEPEST:
        raise UserError(place, f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, Mapping):
        if isinstance(value, _Object) and value.repeated is not None:
            raise UserError(dotted((*loc, value.repeated)), "is given twice", "delete one of the two")
        for key, entry in value.items():
            if not isinstance(key, str) or _broken(key):
                raise UserError(place, f"key {key!a} is not a text")
            check_plain(entry, (*loc, key))
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            check_plain(entry, (*loc, i))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(place, f"{value} is not a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(place, "is a whole number of more than 63 bits")
    elif isinstance(value, str) and _broken(value):
        raise UserError(place, f"{shown(value)} has half a character in it (a lone surrogate)")
    elif value is not None and not isinstance(value, str | int):
        raise UserError(place, f"a value of type {type(value).__name__} has no JSON form")


def _broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def dotted(loc: Sequence[str | int]) -> str:
    """`network.ofa.genotype[4]` for ("network", "ofa", "genotype", 4)."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]+", part, re.ASCII) else shown(part))
    return text


def shown(value: Any) -> str:
    """A value as it stands in a file, on one line and not too long."""
    return _shortened(json.dumps(value, default=repr), 60)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length - 3] + "..."


def as_user_error(error: ValidationError, root: type[BaseModel]) -> UserError:
    """The first problem, with the places of the others behind it."""
    first, *others = [_problem(details, root) for details in error.errors(include_url=False)]
    if not others:
        return first
    places = ", ".join(other.place for other in others[:5]) + (", ..." if len(others) > 5 else "")
    remedy = f"{first.remedy}; " if first.remedy else ""
    return UserError(first.place, first.problem, f"{remedy}and {len(others)} more: {places}")


def _problem(details: Mapping[str, Any], root: type[BaseModel]) -> UserError:
    loc, kind, value, context = details["loc"], details["type"], details["input"], details.get("ctx", {})
    cause = context.get("error")
    if isinstance(cause, UserError):
        place, inner = dotted(loc), cause.place
        joint = "." if place and inner and not inner.startswith("[") else ""
        return UserError(place + joint + inner or "configuration", _shortened(cause.problem, 300), cause.remedy)
    if kind == "extra_forbidden":
        return _unknown_key(loc, root)
    problem, remedy = _rule(kind, value, context)
    return UserError(dotted(loc) or "configuration", problem, remedy or _description(loc, root))


def _rule(kind: str, value: Any, context: Mapping[str, Any]) -> tuple[str, str]:
    """What is wrong with the value, and what helps where that can be told from the value alone."""
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


def _unknown_key(loc: tuple[str | int, ...], root: type[BaseModel]) -> UserError:
    section = _section_at(loc[:-1], root)
    known = sorted(_fields(section)) if section else []
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    home = next((place for place in _homes(root) if place[-1] == loc[-1]), None)
    remedy = (f"did you mean {near[0]}?" if near else f"its place is {dotted(home)}" if home
              else f"known: {', '.join(known)}")
    return UserError(dotted(loc), "is not a known key", remedy)


def _homes(section: type[BaseModel], loc: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The place of every key, sections before what is in them."""
    if len(loc) > 3:
        return
    yield from ((*loc, key) for key in _fields(section))
    for key, (_, inner) in _fields(section).items():
        if inner is not None:
            yield from _homes(inner, (*loc, key))


def _description(loc: Sequence[str | int], root: type[BaseModel]) -> str:
    """What the key at `loc`, or the list around it, is for."""
    names = [part for part in loc if isinstance(part, str)]
    section = _section_at(names[:-1], root) if names else None
    return _fields(section).get(names[-1], ("", None))[0] if section else ""


def _section_at(loc: Sequence[str | int], root: type[BaseModel]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = root
    for key in loc:
        section = _fields(section).get(str(key), ("", None))[1] if section else None
    return section


def _fields(section: type[BaseModel]) -> dict[str, tuple[str, type[BaseModel] | None]]:
    """Key to its description and, where its value is a section, that section's model."""
    found = {}
    for name, field in section.model_fields.items():
        kinds = typing.get_args(field.annotation) or (field.annotation,)
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        found[field.alias or name] = (field.description or "", model)
    return found
