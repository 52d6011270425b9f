"""Search: NSGA-II (Deb et al. 2002) over the integer encoding of whole populations, and random search beside it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import moocore
import numpy as np
from numpy.typing import NDArray

from onceforall.cost.features import Floats
from onceforall.cost.population import Codes, canonical
from onceforall.errors import UserError
from onceforall.functions import Listener, tell
from onceforall.searching.problem import Problem, exactly

Indices = NDArray[np.intp]
PATIENCE = 50  # generations after which limits that nothing keeps are given up, draws for different sub-networks


@dataclass(frozen=True)
class Evolution:
    """How to search.

    Args:
        population: sub-networks that live on.
        generations: how often they have children.
        mutations: genes of a child that change, on average.
        crossed: share of the children that have two parents.
        seed: what all random draws derive from.
    """

    population: int = 1000
    generations: int = 500
    mutations: float = 2.0
    crossed: float = 0.5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Found:
    """A Pareto front.

    Args:
        codes: its sub-networks (N, genes), each once.
        values: the values of their goals (N, goals); lower is better.
        evaluations: how many different sub-networks were looked at.
        seconds: how long that took.
    """

    codes: Codes
    values: Floats
    evaluations: int
    seconds: float


@dataclass(eq=False)
class _Population:
    """Sub-networks that were looked at, with the excess over the limits and, where that is 0, the goals' values."""

    codes: Codes
    values: Floats
    excess: Floats

    def __getitem__(self, rows: Any) -> _Population:
        return _Population(self.codes[rows], self.values[rows], self.excess[rows])

    def __add__(self, other: _Population) -> _Population:
        return _Population(*(np.concatenate([getattr(self, n), getattr(other, n)])
                             for n in ("codes", "values", "excess")))


class _Census:
    """Measures each sub-network once."""

    def __init__(self, problem: Problem, rng: np.random.Generator) -> None:
        self._problem = problem
        self._weights = rng.integers(1, 1 << 62, len(problem.space.cardinalities))
        self._seen: set[int] = set()

    @property
    def count(self) -> int:
        return len(self._seen)

    def look(self, codes: Codes, *, at_most: int | None = None) -> _Population:
        """Measure those of the rows (N, genes) that were not seen yet."""
        codes = canonical(self._problem.space, codes)
        keys = (codes @ self._weights).tolist()
        fresh = {key: i for i, key in enumerate(keys) if key not in self._seen}
        fresh = dict(list(fresh.items())[:at_most])
        self._seen.update(fresh)
        codes = codes[list(fresh.values())]
        excess = self._problem.excess(codes)
        values = np.full((len(codes), len(self._problem.goals)), np.inf)
        if (kept := excess == 0).any():
            values[kept] = self._problem.values(codes[kept])
        return _Population(codes, values, excess)


def evolve(problem: Problem, settings: Evolution, *, start: Codes | None = None,
           listener: Listener | None = None) -> Found:
    """Find a Pareto front by NSGA-II. The same seed gives the same front.

    Sub-networks that keep all limits come first, the others in the order of their excess (constraint domination, Deb et
    al. 2002, section VI).

    Args:
        problem: goals and limits.
        settings: how to search.
        start: sub-networks (N, genes) to begin with, beside random ones.
        listener: hears of each generation.

    Returns:
        The front.

    Raises:
        UserError: no sub-network is found that keeps all limits together.
    """
    began, rng = time.perf_counter(), np.random.default_rng(settings.seed)
    cardinalities = np.array(problem.space.cardinalities, np.int16)
    census = _Census(problem, rng)
    first = rng.integers(0, cardinalities, (settings.population, len(cardinalities)), dtype=np.int16)
    begin = first[:0] if start is None else np.asarray(start, np.int16)
    alive = census.look(np.concatenate([problem.ends.astype(np.int16), begin, first]))
    rank, crowding = _order(alive)
    front = _front(alive)
    for generation in range(1, settings.generations + 1):
        children = census.look(_children(alive.codes, _winners(rank, crowding, settings.population, rng),
                                         cardinalities, settings, rng))
        front = _front(front + children)
        alive += children
        rank, crowding = _order(alive)
        best = np.lexsort((-crowding, rank))[:settings.population]
        alive, rank, crowding = alive[best], rank[best], crowding[best]
        tell(listener, "search", done=generation, of=settings.generations, evaluations=census.count,
             front=len(front.codes))
        if generation == PATIENCE and alive.excess[0] > 0:
            break
    if alive.excess[0] > 0:
        raise _infeasible(problem, alive.codes[:1])
    return _found(front, census, began)


def random_search(problem: Problem, evaluations: int, *, seed: int = 0) -> Found:
    """The baseline: the Pareto front of that many different sub-networks, with every gene drawn uniformly.

    A small space may have fewer.
    """
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    cardinalities = np.array(problem.space.cardinalities, np.int16)
    census = _Census(problem, rng)
    front = census.look(np.zeros((0, len(cardinalities)), np.int16))
    for _ in range(PATIENCE):
        left = evaluations - census.count
        if left:
            drawn = rng.integers(0, cardinalities, (max(1000, left), len(cardinalities)), dtype=np.int16)
            front = _front(front + census.look(drawn, at_most=left))
    return _found(front, census, began)


def hypervolume(values: Floats, reference: Floats) -> float:
    """What a front's values (N, goals), lower is better, dominate up to `reference` (goals,)."""
    return float(moocore.hypervolume(values, ref=reference)) if len(values) else 0.0


def _found(population: _Population, census: _Census, began: float) -> Found:
    rows = np.lexsort(population.values.T[::-1])
    return Found(population.codes[rows], population.values[rows], census.count, time.perf_counter() - began)


def _front(population: _Population) -> _Population:
    """The sub-networks that keep all limits, and that no other one beats."""
    kept = population[population.excess == 0]
    return kept[moocore.is_nondominated(kept.values)] if len(kept.codes) else kept


def _infeasible(problem: Problem, nearest: Codes) -> UserError:
    found = ", ".join(f"{limit.name} {exactly(limit.table.of(nearest)[0])} (limit {exactly(limit.at_most)})"
                      for limit in problem.limits)
    return UserError("limits", f"no sub-network that keeps all of them together was found; the nearest has {found}",
                     "raise one of them")


def _order(population: _Population) -> tuple[Floats, Floats]:
    """The rank (N,) of each, where 0 is best, and its crowding distance (N,), where larger is better."""
    kept = np.flatnonzero(population.excess == 0)
    rank, crowding = population.excess + len(population.excess), np.zeros(len(population.excess))
    if len(kept):
        rank[kept] = moocore.pareto_rank(population.values[kept])
        kept = kept[np.argsort(rank[kept], kind="stable")]
        for front in np.split(kept, np.flatnonzero(np.diff(rank[kept])) + 1):
            crowding[front] = _crowding(population.values[front])
    return rank, crowding


def _crowding(values: Floats) -> Floats:
    """The distance between the two neighbours of each of a front (N, goals), as a share of the front, added up over the
    goals."""
    out = np.zeros(len(values))
    if len(values) < 3:
        return out + np.inf
    for column in values.T:
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        out[order[[0, -1]]] = np.inf
        out[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / (span or 1.0)
    return out


def _winners(rank: Floats, crowding: Floats, count: int, rng: np.random.Generator) -> Indices:
    """Parents (2, count). Each is the better one of two that are drawn."""
    a, b = rng.integers(0, len(rank), (2, 2, count))
    better = (rank[a] < rank[b]) | ((rank[a] == rank[b]) & (crowding[a] > crowding[b]))
    winners: Indices = np.where(better, a, b)
    return winners


def _children(codes: Codes, parents: Indices, cardinalities: NDArray[np.int16], settings: Evolution,
              rng: np.random.Generator) -> Codes:
    """Children of two parents by uniform crossover, in which some genes are drawn anew."""
    shape = parents.shape[1], len(cardinalities)
    other = rng.integers(0, 2, shape, dtype=bool) & (rng.random(shape[:1]) < settings.crossed)[:, None]
    children: Codes = np.where(other, codes[parents[1]], codes[parents[0]])
    changes = rng.poisson(settings.mutations * shape[0])
    rows, genes = rng.integers(0, shape[0], changes), rng.integers(0, shape[1], changes)
    children[rows, genes] = rng.integers(0, cardinalities[genes], dtype=np.int16)
    return children
