"""Summary: what a finished run reached, in summary.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from onceforall.errors import UserError
from onceforall.files import unreadable, write_text
from onceforall.training.engine.journal import METRICS, read_records

SUMMARY = "summary.json"


class _Summary(BaseModel):
    stages: list[dict[str, Any]]
    subnets: list[dict[str, Any]]
    tuned: list[dict[str, Any]] = []  # summaries of earlier versions have none
    shipped: list[dict[str, Any]] = []
    chosen_on: str = "held-out"


def read_summary(path: Path) -> dict[str, Any]:
    """What a summary.json holds.

    Raises:
        UserError: it cannot be read, or is no summary.
    """
    try:
        return _Summary.model_validate_json(path.read_bytes()).model_dump()
    except OSError as error:
        raise unreadable(path, error) from None
    except ValidationError as error:
        raise UserError(str(path), f"is no summary of a run ({error.errors()[0]['msg']})",
                        "delete it: the same command writes it anew") from None


def write_summary(summary: Mapping[str, Any], run: Path) -> None:
    """Write summary.json into a run's folder; raises UserError where it cannot be written."""
    write_text(run / SUMMARY, json.dumps(summary, indent=2) + "\n", then="the same command goes on")


def stage_row(name: str, folder: Path) -> dict[str, Any]:
    """What a stage reached, from its metrics: top-1 after its last epoch on the pictures that validate."""
    records = read_records(folder / METRICS)
    last = max((r["epoch"] for r in records), default=0)
    curve = curve_of(records)
    if not curve or curve[-1]["epoch"] != last + 1:
        raise UserError(str(folder / METRICS), "holds no validation of the last epoch",
                        "put the file back that the run wrote, or take another output folder: -o")
    ends = {end: curve[-1][end] for end in ("smallest", "middle", "largest")}
    return {"name": name, "epochs": last + 1, "seconds": round(sum(r["seconds"] for r in records), 1), **ends,
            "curve": curve}


def curve_of(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Top-1 of the smallest, middle and largest sub-network that a stage validates, by epochs that it has trained."""
    scores: dict[int, list[float]] = {}
    for record in records:
        if record["kind"] in ("start", "valid"):
            scores.setdefault(record["epoch"] + 1, []).append(record["top1"])
    return [{"epoch": epoch, "smallest": row[0], "middle": row[len(row) // 2], "largest": row[-1]}
            for epoch, row in sorted(scores.items())]
