"""A study: measure some sub-networks, learn to predict accuracy, search, measure what was found, and search again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onceforall.cost.features import Floats
from onceforall.cost.measured import Measured
from onceforall.cost.population import Codes
from onceforall.cost.predictor import Fitted, Predictor, fit_best
from onceforall.cost.spread import spread
from onceforall.errors import UserError
from onceforall.functions import Listener
from onceforall.searching.costs import Costs
from onceforall.searching.evolution import Evolution, Found, evolve
from onceforall.searching.front import thinned
from onceforall.searching.problem import Limit

if TYPE_CHECKING:
    from onceforall.searching.score import Scorer

LEAST_ROWS = 20  # that a predictor is fitted on


@dataclass(frozen=True)
class Plan:
    """How many sub-networks to measure.

    Args:
        collect: how many before the first search.
        rounds: how often some of the front are measured before the search is repeated.
        each: how many of the front in each round.
        largest: whether the largest architecture at every resolution is among the first.
    """

    collect: int = 100
    rounds: int = 2
    each: int = 16
    largest: bool = False

    def __post_init__(self) -> None:
        if self.collect < LEAST_ROWS:
            raise UserError("--collect", f"{self.collect} are too few to learn from", f"give {LEAST_ROWS} or more")
        if self.rounds < 0:
            raise UserError("--refine", f"{self.rounds} is below 0")


@dataclass(frozen=True, eq=False)
class Learned:
    """The front, what led to it, and the rows that were measured.

    Args:
        found: the front.
        predictor: tells accuracies.
        rows: the measured sub-networks.
        fitted: how the predictor was fitted on them; None where they are all that the space has.
    """

    found: Found
    predictor: Predictor
    rows: Measured
    fitted: Fitted | None = None

    @property
    def predicted(self) -> Floats:
        """Of each row (N,), by a predictor that has not seen it; the measured accuracy where none was fitted."""
        return self.rows.top1 if self.fitted is None else self.fitted.left_out


class Known:
    """The accuracies of measured sub-networks; 0 for any other."""

    def __init__(self, rows: Measured) -> None:
        self.space = rows.space
        self._top1 = dict(zip(map(tuple, rows.codes.tolist()), rows.top1.tolist(), strict=True))

    def of(self, codes: Codes) -> Floats:
        return np.array([self._top1.get(code, 0.0) for code in map(tuple, codes.tolist())])


def study(costs: Costs, objectives: Sequence[str], limits: Sequence[Limit], *, scorer: Scorer, plan: Plan,
          evolution: Evolution, listener: Listener | None = None) -> Learned:
    """The Pareto front of a supernet whose accuracies are not known yet.

    The rows to start with are spread over the first cost among the objectives. Where a space has too few sub-networks
    to learn from, all of them are rows.
    """
    rng = np.random.default_rng(evolution.seed)
    table = costs.tables[next(name for name in objectives if name in costs.tables)]
    codes = spread(table, plan.collect, rng)
    if plan.largest:
        codes = _with_largest(costs, codes)
    rows = _measured(costs, codes, scorer)
    if len(codes) < LEAST_ROWS:
        known = Known(rows)
        problem = costs.problem(objectives, limits, known)
        return Learned(evolve(problem, evolution, start=codes, listener=listener), known, rows)
    fitted = fit_best(rows, seed=evolution.seed)
    for turn in range(plan.rounds + 1):
        problem = costs.problem(objectives, limits, fitted.predictor)
        found = evolve(problem, evolution, start=rows.codes, listener=listener)
        if turn < plan.rounds:
            rows = _measured(costs, np.concatenate([rows.codes, _fresh(found, rows.codes, plan.each)]), scorer)
            fitted = fit_best(rows, seed=evolution.seed, regressors=[fitted.regressor])
    return Learned(found, fitted.predictor, rows, fitted)


def _with_largest(costs: Costs, codes: Codes) -> Codes:
    """The rows, with the largest architecture at every resolution before them."""
    space = costs.space
    first = [tuple(space.encode(space.largest.at(size))) for size in space.resolutions]
    rest = [row for row in map(tuple, codes.tolist()) if row not in first]
    return np.array([*first, *rest], codes.dtype)


def _measured(costs: Costs, codes: Codes, scorer: Scorer) -> Measured:
    archs = [costs.space.decode(row) for row in codes.tolist()]
    return Measured(costs.space, codes, np.array(scorer.scores(archs, split=scorer.choosing)))


def _fresh(found: Found, known: Codes, count: int) -> Codes:
    """Rows of the front that are not known, spread over it."""
    seen = {tuple(row) for row in known.tolist()}
    new = [i for i, row in enumerate(found.codes.tolist()) if tuple(row) not in seen]
    return found.codes[new][thinned(found.values[new], count)] if new else found.codes[:0]
