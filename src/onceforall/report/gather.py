"""What a run's folder holds to show: the stages' journals, and the front with what it was searched by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from onceforall.recipes.fit import SEARCH
from onceforall.recipes.recipe import STAGES
from onceforall.search.record import FRONT, read_record
from onceforall.space import UserError
from onceforall.train.journal import METRICS

Records = list[Mapping[str, Any]]


class _Record(BaseModel):
    """What is shown of a line of the journal."""

    kind: str
    epoch: Annotated[int, Field(ge=0, lt=10_000_000)]
    loss: float | None = None
    top1: float | None = None


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
    order = [row.folder for row in STAGES]
    places.sort(key=lambda path: (order.index(path.parent.name) if path.parent.name in order else len(order), path))
    stages = {path.parent.name: _records(path) for path in places}
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
            out.append(_Record.model_validate_json(line).model_dump())
        except ValidationError as error:
            if number < len(lines):
                raise UserError(f"{path}:{number}", f"is no record of a run ({error.errors()[0]['msg']})",
                                "delete the line") from None
    return out
