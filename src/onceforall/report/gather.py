"""What a run's folder holds to show: the stages' journals, and the front with what it was searched by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onceforall.recipes.fit import SEARCH
from onceforall.search.record import FRONT, read_record
from onceforall.space import UserError
from onceforall.train.journal import METRICS

Records = list[Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """`stages`: the records of each stage's metrics.jsonl by its folder, in the order of training; `search`: the values
    of front.json, None where nothing was searched yet."""

    name: str
    stages: Mapping[str, Records]
    search: Mapping[str, Any] | None


def gather(folder: Path) -> Run:
    """What is in the folder of a run, a stage or a search; raises UserError where there is nothing to show."""
    if not folder.is_dir():
        raise UserError(str(folder), "is no folder", "give a run's, as `ofa fit -o` names it")
    places = [path for path in (folder / METRICS, *folder.glob(f"*/{METRICS}")) if path.is_file()]
    stages = {path.parent.name: _records(path) for path in sorted(places, key=lambda path: path.stat().st_mtime)}
    fronts = [path for path in (folder / FRONT, folder / SEARCH / FRONT) if path.is_file()]
    if not stages and not fronts:
        raise UserError(str(folder), f"holds neither {METRICS} nor {FRONT}", "train or search first: `ofa fit -o RUN`")
    return Run(folder.resolve().name, stages, read_record(fronts[0]) if fronts else None)


def _records(path: Path) -> Records:
    """The lines of a journal; the last may be torn."""
    out: Records = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            out.append(dict(json.loads(line)))
        except ValueError as error:
            if number < len(lines):
                raise UserError(f"{path}:{number}", f"is not JSON ({error})", "delete the line") from None
    return out
