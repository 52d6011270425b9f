"""What a search leaves: front.json, whose rows other commands take, and who reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onceforall.cost.latency import LatencyTable
from onceforall.cost.predictor import Fitted
from onceforall.search.front import Row
from onceforall.space import Arch, SearchSpace, UserError

FRONT = "front.json"


@dataclass(frozen=True, eq=False)
class Record:
    """The front of one search, ascending by accuracy, and what it was searched with.

    `sampled`: the sub-networks that the predictor was fitted on, each with what a fit without it predicts; `baseline`:
    the front of random search at as many evaluations, where it was asked for.
    """

    space: SearchSpace
    num_classes: int
    objectives: tuple[str, ...]
    limits: Mapping[str, float]
    front: list[Row]
    evaluations: int
    seconds: float
    seed: int = 0
    sampled: list[Row] = field(default_factory=list)
    baseline: list[Row] = field(default_factory=list)
    fitted: Fitted | None = None
    tables: Mapping[str, LatencyTable] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        def listed(rows: list[Row]) -> list[dict[str, Any]]:
            return [row.to_dict(self.space) for row in rows]

        fitted = self.fitted and {"regressor": self.fitted.regressor,
                                  "errors": {k: asdict(v) for k, v in self.fitted.errors.items()}}
        return {"space": self.space.to_dict(), "num_classes": self.num_classes, "objectives": list(self.objectives),
                "limits": dict(self.limits), "seed": self.seed, "front": listed(self.front),
                "evaluations": self.evaluations, "seconds": round(self.seconds, 3), "sampled": listed(self.sampled),
                "baseline": listed(self.baseline), "predictor": fitted,
                "tables": {name: {"scale": table.scale, "offset_ms": table.offset_ms, "about": dict(table.about)}
                           for name, table in self.tables.items()}}

    def write(self, folder: Path) -> None:
        """Write front.json, a row a line."""
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FRONT}.partial"
        lines = [f"{json.dumps(name)}: {_lines(value)}" for name, value in self.to_dict().items()]
        partial.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
        partial.replace(folder / FRONT)


def _lines(value: Any) -> str:
    rows = isinstance(value, list) and value and isinstance(value[0], dict)
    return "[\n" + ",\n".join(map(json.dumps, value)) + "]" if rows else json.dumps(value)


def read_record(path: Path) -> dict[str, Any]:
    """The JSON values of front.json, or of the one in a folder; raises UserError where it is none."""
    path = path / FRONT if path.is_dir() else path
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(values["front"], list)
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(str(path), f"is no front ({error})", "`ofa search` writes one") from None
    return dict(values)


def front_arch(path: Path, row: int, space: SearchSpace) -> Arch:
    """The sub-network in a row of a front, counted from 0; raises UserError for a row that is not there."""
    rows = read_record(path)["front"]
    if not 0 <= row < len(rows):
        raise UserError("--row", f"{row} is not a row of {path}", f"it has 0..{len(rows) - 1}")
    return Arch.parse(space, str(rows[row]["arch"]))
