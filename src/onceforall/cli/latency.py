"""`ofa latency`: latency tables beside each other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.cli.source import Json
from onceforall.errors import UserError
from onceforall.space import SearchSpace, read_space, search_space

if TYPE_CHECKING:
    from onceforall.latency.compare import Comparison
    from onceforall.latency.table import LatencyTable

_SHOWN = 3  # parts at each end


def latency(
    tables: Annotated[list[str], typer.Argument(help="latency tables, as FILE or NAME=FILE")],
    space: Annotated[str | None, typer.Option(help="search space, where the tables do not say it")] = None,
    classes: Annotated[int | None, typer.Option(help="where the tables do not say it")] = None,
    json_only: Json = False,
) -> None:
    """Compare devices: how fast they are, whether they order sub-networks alike, and which parts differ."""
    from onceforall.latency.compare import compare, doubts

    found = tables_of(tables, "TABLE")
    what, num_classes = _space(found, space, classes)
    seen = compare(found, what, num_classes=num_classes)
    doubtful = {name: doubts(table, what, num_classes=num_classes) for name, table in found.items()}
    if json_only:
        typer.echo(json.dumps({**asdict(seen), "doubts": doubtful}))
        return
    _show(found, seen, doubtful)


def tables_of(given: Sequence[str], place: str) -> dict[str, LatencyTable]:
    """The latency tables by device, as FILE or NAME=FILE. A file without a name is called by its own."""
    from onceforall.latency.table import read_table

    out: dict[str, LatencyTable] = {}
    for text in given:
        name, _, file = ("", "", text) if os.path.exists(text) else text.rpartition("=")
        if not file:
            raise UserError(place, f"{text!r} names no file", "as FILE or NAME=FILE")
        name = name or Path(file).stem
        if name in out:
            raise UserError(place, f"{name} is given twice", "name them, as phone=FILE")
        out[name] = read_table(Path(file))
    return out


def _space(tables: Mapping[str, LatencyTable], name: str | None, classes: int | None) -> tuple[SearchSpace, int]:
    """The space and the number of classes that the user names, or the first table that says them."""
    about = next((table.about for table in tables.values() if "space" in table.about), {})
    if name is None and not about:
        raise UserError("--space", "is missing, and the tables do not say it", "give the space that they were made of")
    space = read_space(about["space"]) if name is None else search_space(name)
    return space, classes or int(about.get("classes", 1000))


def _show(tables: Mapping[str, LatencyTable], seen: Comparison, doubtful: Mapping[str, Sequence[str]]) -> None:
    from onceforall.cli.tables import show, table
    from onceforall.latency.compare import SUBNETS, summary

    heads = ("table", "device", "by", "threads", "batch", "ms: least / middle / most",
             *(f"tau, {name}" for name in tables))
    rows = []
    for (name, one), taus in zip(tables.items(), seen.taus, strict=True):
        about = {key: str(one.about.get(key, "")) for key in ("device", "backend", "threads", "batch")}
        rows.append((name, *about.values(), summary(seen.ms[name]), *(f"{tau:.3f}" for tau in taus)))
    show(f"{SUBNETS} random sub-networks; Kendall's tau: 1 where two devices order them alike\n", table(heads, rows))
    first = next(iter(tables))
    for name, others in seen.others.items():
        ends = others if len(others) <= 2 * _SHOWN else [*others[:_SHOWN], *others[-_SHOWN:]]
        show(f"\nParts of {name} that take longest and shortest in relation to {first}; 1: as the parts usually do\n",
             table(("factor", "part"), ((f"{row.factor:.2f}", row.part) for row in ends)))
    for name, texts in doubtful.items():
        for text in texts:
            show(f"\n{name} says little: {text}; measure it again with more --rounds, or by a finer clock")
