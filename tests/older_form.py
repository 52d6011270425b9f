"""A search space as files held it before they held its rows: a name of the catalogue, and the choices that are left."""

from __future__ import annotations

from typing import Any

from onceforall.space import SearchSpace


def older(space: SearchSpace) -> dict[str, Any]:
    """The JSON values of a space in that form."""
    widths = {"widths": [list(values) for values in space.widths]} if space.widths else {}
    compound = {"compound": True} if space != space.free else {}
    return {"name": space.name, "resolutions": list(space.resolutions), **widths, **compound, "stages": [
        {"depth": list(stage.depth), **{name: list(values) for name, values in stage.elastic}}
        for stage in space.stages]}
