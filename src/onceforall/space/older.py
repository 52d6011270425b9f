"""What older versions wrote: search spaces by the catalogue's name, forms of other projects as keys of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from onceforall.errors import UserError
from onceforall.space.catalog import search_space
from onceforall.space.search_space import SearchSpace


def read_space(values: Mapping[str, Any]) -> SearchSpace:
    """The space of `SearchSpace.to_dict`, in the form of today or in the older one.

    The older form holds the catalogue's name of a space and the choices that are left of it.

    Raises:
        UserError: it is neither, or the catalogue's space does not have these choices.
    """
    return SearchSpace.from_dict(values) if "stem" in values else _by_name(values)


def renewed(values: Any) -> Any:
    """A row of a front, or a description, of an older version, with the forms of other projects under `foreign`."""
    return import_module("onceforall.interop.foreign").renewed(values) if isinstance(values, Mapping) else values


def _by_name(values: Mapping[str, Any]) -> SearchSpace:
    try:
        full, rows = search_space(values["name"]), list(values["stages"])
        _only_keys(values, ("name", "resolutions", "compound", "stages", *(["widths"] if full.widths else [])), "space")
        if not isinstance(values.get("compound", False), bool):
            raise TypeError("compound is neither true nor false")
        for row, stage in zip(rows, full.stages, strict=True):
            _only_keys(row, ("depth", *stage.choices), "space.stages")
        found = full.restrict(resolutions=tuple(values["resolutions"])).each(
            "depth", [tuple(row["depth"]) for row in rows])
        for name in full.dimensions:
            found = found.each(name, [tuple(row[name]) if name in stage.choices else ()
                                      for row, stage in zip(rows, full.stages, strict=True)])
        if full.widths:
            found = found.each("width", [tuple(row) for row in values["widths"]])
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError("space", f"is not the description of a search space ({error})") from None
    return found.compound(full) if values.get("compound") else found


def _only_keys(values: Mapping[str, Any], known: Sequence[str], place: str) -> None:
    unknown = [key for key in values if key not in known]
    if unknown:
        raise UserError(f"{place}.{unknown[0]}", "is not a known key", f"known: {', '.join(known)}")
