"""Measured sub-networks: rows of an arch and its top-1, a JSON object a line, and how well a predictor ranks them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from onceforall.cost.features import Floats
from onceforall.cost.population import Codes
from onceforall.errors import UserError
from onceforall.files import parse_json, read_text
from onceforall.space import Arch, SearchSpace


@dataclass(frozen=True, eq=False)
class Measured:
    """Sub-networks of a space, encoded (N, genes), with their top-1 (N,) in [0, 1]."""

    space: SearchSpace
    codes: Codes
    top1: Floats

    @property
    def resolutions(self) -> Codes:
        """Input size of each, in pixels (N,)."""
        return np.asarray(self.space.resolutions)[self.codes[:, 0]]


@dataclass(frozen=True)
class Errors:
    """Root mean square error, and Kendall's tau over all rows and over those of each resolution."""

    rows: int
    rmse: float
    tau: float
    tau_within: dict[str, float]


def read_rows(path: Path, space: SearchSpace) -> Measured:
    """Rows `{"ks", "e", "d", "image_size", "top1"}` or `{"arch", "top1"}`; raises UserError that names the line."""
    codes, top1 = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            try:
                arch, accuracy = _row(parse_json(line, ""), space)
            except UserError as error:
                where = f"{path}:{number}" + (f": {error.place}" if error.place else "")
                raise UserError(where, error.problem, error.remedy) from None
            codes.append(space.encode(arch))
            top1.append(accuracy)
    if len(codes) < 2:
        raise UserError(str(path), f"has {len(codes)} rows", "give measured sub-networks, a JSON object a line")
    return Measured(space, np.array(codes), np.array(top1))


def errors(predicted: Floats, rows: Measured) -> Errors:
    """How far and how well ordered predictions (N,) of the rows are."""
    rmse = float(np.sqrt(np.mean((predicted - rows.top1) ** 2)))
    within = {str(size): _tau(predicted[mine], rows.top1[mine]) for size in np.unique(rows.resolutions)
              if (mine := rows.resolutions == size).sum() > 1}
    return Errors(len(predicted), rmse, _tau(predicted, rows.top1), within)


def _tau(a: Floats, b: Floats) -> float:
    return float(np.nan_to_num(kendalltau(a, b).statistic))


def _row(values: Any, space: SearchSpace) -> tuple[Arch, float]:
    if not isinstance(values, dict) or isinstance(top1 := values.get("top1"), bool) \
            or not isinstance(top1, int | float):
        raise UserError("top1", "is missing", 'a row is {"ks", "e", "d", "image_size", "top1"} or {"arch", "top1"}')
    if not 0 <= top1 <= 1:
        raise UserError("top1", f"{top1} is not within 0..1", "give a share, not per cent")
    if "arch" in values:
        if not isinstance(values["arch"], str) or len(values) > 2:
            raise UserError("arch", "is no text, or has other keys beside it than top1", 'a row is {"arch", "top1"}')
        return Arch.parse(space, values["arch"]), float(top1)
    return Arch.from_dict(space, {key: values[key] for key in values.keys() - {"top1"}}), float(top1)
