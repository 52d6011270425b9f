"""What a search leaves: front.json, whose rows other commands take, and who reads it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from onceforall.errors import UserError, within
from onceforall.files import unreadable, write_text
from onceforall.latency.table import LatencyTable
from onceforall.problems import first_of
from onceforall.searching.front import Row
from onceforall.space import Arch, SearchSpace
from onceforall.space.older import renewed

if TYPE_CHECKING:
    from onceforall.cost.predictor import Fitted

FRONT = "front.json"
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, eq=False)
class Record:
    """The front of one search, and what it was searched with.

    Args:
        space: the space that was searched.
        num_classes: outputs of the classifier.
        objectives: what the front is of.
        limits: the most that each cost might be, by its name.
        front: the rows, ascending by accuracy.
        evaluations: how many different sub-networks were looked at.
        seconds: how long the search took.
        seed: what all random draws derived from.
        sampled: the sub-networks that the predictor was fitted on. Each has what a fit without it predicts.
        baseline: the front of random search at as many evaluations; empty where that was not asked for.
        fitted: the predictor; None where none was fitted.
        tables: latency tables, by the name of the device.
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

    def best(self, **limits: float) -> Row:
        """The most accurate row within limits, such as `best(macs=3e6)`: as measured, else as predicted.

        Args:
            limits: the most that a cost may be, by its name.

        Raises:
            UserError: the rows have no such cost, or none keeps the limits.
        """
        for name in limits:
            if name not in self.front[0].costs:
                raise UserError(name, "is no cost of this front", f"it has {', '.join(self.front[0].costs)}")
        kept = [row for row in self.front if all(row.costs[name] <= most for name, most in limits.items())]
        if not kept:
            least = {name: min(row.costs[name] for row in self.front) for name in limits}
            raise UserError("best", f"no row of the front keeps {limits}", f"the smallest costs are {least}")
        return max(kept, key=lambda row: (row.predicted if row.measured is None else row.measured) or 0.0)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.front)

    def __len__(self) -> int:
        return len(self.front)

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
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
        """Write front.json, with a row on each line; raises UserError where it cannot be written."""
        lines = [f"{json.dumps(name)}: {_lines(value)}" for name, value in self.to_dict().items()]
        write_text(folder / FRONT, "{" + ",\n".join(lines) + "}\n")


def _lines(value: Any) -> str:
    rows = isinstance(value, list) and value and isinstance(value[0], dict)
    return "[\n" + ",\n".join(map(json.dumps, value)) + "]" if rows else json.dumps(value)


class _Finite(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class RowValues(_Finite):
    """A row as `Row.to_dict` gives it."""

    arch: str
    resolution: int
    costs: dict[str, float]
    accuracy_predicted: float | None  # which may lie above 1
    accuracy_measured: Share | None
    foreign: dict[str, dict[str, Any]] = {}

    _renewed = model_validator(mode="before")(renewed)

    def row(self, space: SearchSpace) -> Row:
        """The row as a `Row`; raises UserError where it is of another space."""
        costs = {name: int(value) if value.is_integer() else value for name, value in self.costs.items()}
        arch = Arch.parse(space, self.arch)
        arch.check_foreign(space, self.foreign)
        if self.resolution != arch.resolution:
            raise UserError("arch", f"{arch} is not what the resolution beside it says")
        return Row(arch, costs, self.accuracy_predicted, self.accuracy_measured)


class _Errors(_Finite):
    rows: int
    rmse: float
    tau: float


class _Fitted(_Finite):
    regressor: str
    errors: dict[str, _Errors]


class _Agreement(_Finite):
    mape: float
    tau: float


class _Check(_Finite):
    held_out: int
    before: _Agreement
    after: _Agreement


class _Whole(_Finite):
    arch: str
    ms: float
    sum_ms: float
    held_out: bool


class _About(_Finite):
    """What `ofa profile` says of a table. Tables from elsewhere may say nothing."""

    backend: str = ""
    device: str = ""
    threads: int = 1
    batch: int = 1
    check: _Check | None = None
    subnets: list[_Whole] = []


class _Table(_Finite):
    scale: float
    offset_ms: float
    about: _About


class _Values(_Finite):
    """The form of front.json."""

    space: dict[str, Any]
    objectives: list[str]
    limits: dict[str, float]
    front: Annotated[list[RowValues], Field(min_length=1)]
    evaluations: int
    sampled: list[RowValues] = []
    baseline: list[RowValues] = []
    predictor: _Fitted | None = None
    tables: dict[str, _Table] = {}

    @model_validator(mode="after")
    def _same_costs(self) -> _Values:
        if any(row.costs.keys() != self.front[0].costs.keys() for row in (*self.front, *self.sampled, *self.baseline)):
            raise ValueError("its rows have different costs")
        return self


def read_record(path: Path) -> dict[str, Any]:
    """The JSON values of front.json, or of the one in a folder; raises UserError where it is none."""
    path = path / FRONT if path.is_dir() else path
    try:
        return _Values.model_validate_json(path.read_bytes()).model_dump()
    except OSError as error:
        raise unreadable(path, error, missing="`ofa search` writes one") from None
    except ValidationError as error:
        raise UserError(str(path), f"is no front ({first_of(error)})", "`ofa search` writes one") from None


def front_arch(path: Path, row: int, space: SearchSpace) -> Arch:
    """The sub-network in a row of a front, counted from 0; raises UserError for a row that is not there, and for a
    front of another space."""
    rows = read_front(path, space)[0]
    if not 0 <= row < len(rows):
        raise UserError("--row", f"{row} is not a row of {path}", f"it has 0..{len(rows) - 1}")
    return rows[row].arch


def read_front(path: Path, space: SearchSpace) -> tuple[list[Row], tuple[str, ...]]:
    """The rows of a front, and its objectives; raises UserError for a front of another space."""
    values = read_record(path)
    name = values["space"].get("name")
    if name != space.name:
        raise UserError(str(path), f"is a front of {name}, not of {space.name}", "search this one")
    rows = rows_of(path, [RowValues(**found) for found in values["front"]], space)
    return rows, tuple(values["objectives"])


def rows_of(path: Path, values: Sequence[RowValues], space: SearchSpace) -> list[Row]:
    """The rows that a file holds; raises UserError, with the number of the row, for one of another space."""
    rows = []
    for number, found in enumerate(values):
        with within(f"{path} row {number}"):
            rows.append(found.row(space))
    return rows


def check_folder(folder: Path) -> None:
    """Raise UserError where the folder cannot be made or written to, before work is done for it."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError("-o", f"{folder}: {place} is {'not writable' if place.is_dir() else 'a file'}",
                        "give another folder")
