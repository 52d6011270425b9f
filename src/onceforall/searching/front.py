"""The rows of a Pareto front: sub-networks with what they cost and how accurate they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onceforall.cost.features import Floats
from onceforall.cost.population import Codes
from onceforall.searching.costs import ACCURACY, Costs
from onceforall.space import Arch, SearchSpace

if TYPE_CHECKING:
    from onceforall.cost.predictor import Predictor


MOST_PREDICTED = 0.999  # in [0, 1], of what is shown: a predictor cannot promise that nothing goes wrong


def percent(share: float | None) -> str:
    """An accuracy in per cent; empty where there is none."""
    return "" if share is None else f"{100 * share:.2f} %"


def percent_predicted(share: float | None) -> str:
    """A predicted accuracy in per cent, which is never told as 100; empty where there is none."""
    if share is None:
        return ""
    return f"{100 * share:.2f} %" if share < MOST_PREDICTED else f"above {100 * MOST_PREDICTED:.1f} %"


@dataclass(frozen=True)
class Row:
    """A sub-network with what it costs, and how accurate it is.

    Args:
        arch: the sub-network.
        costs: its costs, by name; latency in ms, memory in bytes.
        predicted: its top-1 in [0, 1] as predicted; None where nothing predicts it.
        measured: its top-1 in [0, 1] as measured; None where it was not.
    """

    arch: Arch
    costs: Mapping[str, float]
    predicted: float | None = None
    measured: float | None = None

    def to_dict(self, space: SearchSpace) -> dict[str, Any]:
        """The row as `ofa search --json` gives it."""
        return {"arch": str(self.arch), "resolution": self.arch.resolution, "costs": dict(self.costs),
                "accuracy_predicted": self.predicted, "accuracy_measured": self.measured,
                "foreign": self.arch.foreign(space)}


def rows(codes: Codes, costs: Costs, *, predicted: Floats | None = None,
         measured: Floats | None = None) -> list[Row]:
    """Sub-networks (N, genes) as rows, with accuracies (N,) where they are known."""
    values = {name: table.of(codes).tolist() for name, table in costs.tables.items()}
    archs = [costs.space.decode(code) for code in codes.tolist()]
    return [Row(arch, {name: int(v[i]) if v[i].is_integer() else v[i] for name, v in values.items()},
                None if predicted is None else float(predicted[i]), None if measured is None else float(measured[i]))
            for i, arch in enumerate(archs)]


def front_rows(codes: Codes, costs: Costs, predictor: Predictor | None) -> list[Row]:
    """A front (N, genes) as rows, ascending by predicted accuracy; by the first cost where nothing predicts it."""
    predicted = np.clip(costs.measure(predictor)(codes), 0, 1) if predictor is not None else None
    order = np.argsort(next(iter(costs.tables.values())).of(codes) if predicted is None else predicted, kind="stable")
    return rows(codes[order], costs, predicted=None if predicted is None else predicted[order])


def spread_over(front: Sequence[Row], objectives: Sequence[str], count: int) -> list[int]:
    """Up to `count` rows, by number, that spread over a front's objectives."""
    return thinned(np.array([[row.predicted if name == ACCURACY else row.costs[name] for name in objectives]
                             for row in front]), count)


def best_below(front: Sequence[Row], cost: str, count: int) -> list[Row]:
    """For each of `count` limits the best predicted row below it. The limits are evenly spaced within the front's
    costs."""
    found = [row.costs[cost] for row in front]
    limits = np.linspace(min(found), max(found), count + 2)[1:-1]
    return [[row for row in front if row.costs[cost] <= limit][-1] for limit in limits]


def thinned(values: Floats, count: int) -> list[int]:
    """Up to `count` rows of a front (N, goals) that spread over it, in ascending order.

    The two ends come first, then always the row that is farthest from those taken.
    """
    scale = np.ptp(values, axis=0)
    points = (values - values.min(0)) / np.where(scale > 0, scale, 1)
    taken = list(dict.fromkeys([int(values[:, 0].argmin()), int(values[:, 0].argmax())]))[:count]
    far = np.min([np.abs(points - points[i]).max(1) for i in taken], axis=0)
    far[taken] = -1
    while len(taken) < min(count, len(values)):
        taken.append(int(far.argmax()))
        far = np.minimum(far, np.abs(points - points[taken[-1]]).max(1))
        far[taken[-1]] = -1
    return sorted(taken)


def with_measured(found: Sequence[Row], scores: Mapping[Arch, float]) -> list[Row]:
    """The rows with the accuracies that were measured."""
    return [replace(row, measured=scores.get(row.arch, row.measured)) for row in found]
