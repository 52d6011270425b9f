"""The costs a search knows: MACs, parameters, memory, and a latency for each table; limits on them, and goals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onceforall.cost.population import CostTable, macs_table, memory_table, params_table, recoded
from onceforall.errors import UserError
from onceforall.latency.table import LatencyTable
from onceforall.searching.problem import Goal, Limit, Measure, Problem
from onceforall.space import SearchSpace

if TYPE_CHECKING:
    from onceforall.cost.predictor import Predictor

ACCURACY, LATENCY = "accuracy", "latency_ms"


@dataclass(frozen=True, eq=False)
class Costs:
    """Costs by name of the sub-networks of `space`: `latency_ms` (of several tables `latency_ms.NAME`), `macs`,
    `params`, `memory` in bytes."""

    space: SearchSpace
    tables: Mapping[str, CostTable]

    def limits(self, at_most: Mapping[str, float]) -> tuple[Limit, ...]:
        """Limits by name of the cost; raises UserError for a cost that is not known, and for one that nothing keeps."""
        for name, value in at_most.items():
            if name not in self.tables:
                raise UserError(f"limit on {name}", "there is no such cost here", self._remedy(name))
            if not (math.isfinite(value) and value > 0):
                raise UserError(f"limit on {name}", f"{value:g} is not a number above 0")
        return tuple(Limit(name, self.tables[name], value) for name, value in at_most.items())

    def problem(self, objectives: Sequence[str], limits: Sequence[Limit], predictor: Predictor | None) -> Problem:
        """What to search for: `accuracy`, which `predictor` tells, and costs. Raises UserError for other names."""
        self.check(objectives, accuracy=predictor is not None)
        goals = [Goal(ACCURACY, self.measure(predictor), up=True) if name == ACCURACY and predictor is not None
                 else Goal(name, self.tables[name].of, best=self.tables[name].least) for name in objectives]
        return Problem(self.space, tuple(goals), tuple(limits))

    def check(self, objectives: Sequence[str], *, accuracy: bool) -> None:
        """Raise UserError for objectives that make no front. `accuracy`: whether it is known."""
        for name in objectives:
            if name not in self.tables and not (name == ACCURACY and accuracy):
                raise UserError(f"objective {name}", "there is no such value here", self._remedy(name))
        if len(set(objectives)) < max(2, len(objectives)):
            raise UserError("objectives", f"{', '.join(objectives) or 'none'}: a front has two different ones or more",
                            f"as accuracy,{next(iter(self.tables))}")

    def default_objectives(self) -> tuple[str, ...]:
        """Accuracy and every latency; accuracy and MACs where there is no table."""
        return (ACCURACY, *([name for name in self.tables if name.startswith(LATENCY)] or ["macs"]))

    def measure(self, predictor: Predictor) -> Measure:
        """The predictor on this space's encoding; raises UserError where it does not know all its sub-networks."""
        if not predictor.space.covers(self.space):
            raise UserError("predictor", f"predicts for another part of {predictor.space.name} than is searched",
                            "fit one on rows of this space")
        return lambda codes: predictor.of(recoded(codes, self.space, predictor.space))

    def _remedy(self, name: str) -> str:
        if name.startswith(LATENCY) and not any(known.startswith(LATENCY) for known in self.tables):
            return "give --table, which `ofa profile` writes"
        if name == ACCURACY:
            return "give --predictor, or a trained supernet"
        return f"known: {', '.join((ACCURACY, *self.tables))}"


def costs(space: SearchSpace, latencies: Mapping[str, LatencyTable], *, num_classes: int = 1000,
          resolutions: Sequence[int] | None = None, predictor: Predictor | None = None) -> Costs:
    """The costs of the space's sub-networks at those resolutions that all tables and the predictor know.

    `latencies`: tables by the name of their device. Raises UserError for one of `resolutions` that one does not know.
    """
    tables = {LATENCY if len(latencies) == 1 else f"{LATENCY}.{name}": table.of(space, num_classes=num_classes)
              for name, table in latencies.items()}
    known = {f"table of {name}": table.space.resolutions for name, table in tables.items()}
    if predictor is not None:
        known["predictor"] = predictor.space.resolutions
    for size in resolutions or ():
        for what, sizes in {space.name: space.resolutions, **known}.items():
            if size not in sizes:
                raise UserError("--resolutions", f"{size} is not in the {what}", f"it has {', '.join(map(str, sizes))}")
    found = [size for size in resolutions or space.resolutions if all(size in sizes for sizes in known.values())]
    if not found:
        raise UserError("resolutions", f"there is none that {', '.join(known)} have in common",
                        "give tables and a predictor of the same resolutions")
    space = space.restrict(resolutions=found)
    return Costs(space, {**{name: table.at(found) for name, table in tables.items()},
                         "macs": macs_table(space, num_classes=num_classes),
                         "params": params_table(space, num_classes=num_classes), "memory": memory_table(space)})
