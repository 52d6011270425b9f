"""Search from start to end: costs, limits, predictor or study, the front, and what of it is measured."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onceforall.cost.predictor import Predictor
from onceforall.cost.predictor_file import load
from onceforall.functions import Listener
from onceforall.latency.compare import doubts
from onceforall.latency.table import LatencyTable
from onceforall.searching.costs import ACCURACY, Costs, costs
from onceforall.searching.evolution import PATIENCE, Evolution, evolve, random_search
from onceforall.searching.front import front_rows, rows, spread_over, with_measured
from onceforall.searching.problem import Goal, Problem
from onceforall.searching.record import Record
from onceforall.searching.study import Learned, Plan, study
from onceforall.space import SearchSpace

if TYPE_CHECKING:  # it loads torch, and a search without a net does without
    from onceforall.searching.score import Scorer


@dataclass(frozen=True)
class Request:
    """What to search for.

    Args:
        objectives: what the front is of; empty: accuracy and latency, or accuracy and MACs where there is no table.
        limits: the most that each cost may be, by its name.
        resolutions: sides of the input in pixels; empty: all that the tables and the predictor know.
        tables: latency tables, by the name of the device.
        predictor: a file of an accuracy predictor; None: one is learned, as `plan` says.
        evolution: how to search.
        plan: how many sub-networks to measure for a predictor.
        measure: how many rows of the front to measure on the test pictures.
        baseline: whether random search runs beside it.
    """

    objectives: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    resolutions: tuple[int, ...] = ()
    tables: Mapping[str, LatencyTable] = field(default_factory=dict)
    predictor: Path | None = None
    evolution: Evolution = field(default_factory=Evolution)
    plan: Plan = field(default_factory=Plan)
    measure: int = 10
    baseline: bool = False


def search(space: SearchSpace, request: Request, *, num_classes: int = 1000, scorer: Scorer | None = None,
           listener: Listener | None = None) -> Record:
    """Search a space, or a supernet.

    Args:
        space: the search space.
        request: what to search for.
        num_classes: outputs of the classifier.
        scorer: measures the supernet's sub-networks; None: there is no supernet.
        listener: hears of progress.

    Returns:
        The front, and what it was searched with.

    Raises:
        UserError: nothing keeps the limits, or a table or the predictor is of another space.
    """
    began, sizes = time.perf_counter(), request.resolutions or None
    priced = costs(space, request.tables, num_classes=num_classes, resolutions=sizes)
    _check(priced, request, accuracy=scorer is not None or request.predictor is not None)
    if listener is not None:
        for name, table in request.tables.items():
            for text in doubts(table, priced.space, num_classes=num_classes):
                listener({"kind": "note", "text": f"the latency table {name} says little: {text}"})
    predictor: Predictor | None = None
    if request.predictor is not None:
        predictor = load(request.predictor, space=space)
        priced = costs(space, request.tables, num_classes=num_classes, resolutions=sizes, predictor=predictor)
    limits, objectives = priced.limits(request.limits), request.objectives or priced.default_objectives()
    learned: Learned | None = None
    if predictor is None and scorer is not None and ACCURACY in objectives:
        learned = study(priced, objectives, limits, scorer=scorer, plan=request.plan, evolution=request.evolution,
                        listener=listener)
        predictor = learned.predictor
    problem = priced.problem(objectives, limits, predictor)
    found = learned.found if learned else evolve(problem, request.evolution, listener=listener)
    front, baseline = front_rows(found.codes, priced, predictor), []
    if request.baseline:
        other = random_search(problem, found.evaluations, seed=request.evolution.seed)
        baseline = front_rows(other.codes, priced, predictor)
    if scorer is not None and request.measure:
        some = [front[i].arch for i in spread_over(front, objectives, request.measure)]
        front = with_measured(front, dict(zip(some, scorer.scores(some, split="test"), strict=True)))
    sampled = rows(learned.rows.codes, priced, predicted=learned.predicted,
                   measured=learned.rows.top1) if learned else []
    return Record(priced.space, num_classes, objectives, request.limits, front, found.evaluations,
                  time.perf_counter() - began, request.evolution.seed, sampled, baseline,
                  learned.fitted if learned else None, request.tables)


def _check(priced: Costs, request: Request, *, accuracy: bool) -> None:
    """Raise UserError for what is impossible, before anything is loaded or measured."""
    limits = priced.limits(request.limits)
    priced.check(request.objectives or priced.default_objectives(), accuracy=accuracy)
    if len(limits) > 1:  # each can be kept: whether all together, a short search for their costs alone tells
        goals = tuple(Goal(limit.name, limit.table.of, best=limit.table.least) for limit in limits)
        evolve(Problem(priced.space, goals, limits), Evolution(generations=PATIENCE))
