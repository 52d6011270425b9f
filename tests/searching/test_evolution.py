"""The evolution finds true fronts, keeps limits, says what is impossible, and beats random search."""

from __future__ import annotations

from itertools import product

import moocore
import numpy as np
import pytest

from onceforall.cost.population import canonical, macs_table, memory_table, params_table, recoded
from onceforall.cost.predictor_file import load
from onceforall.cost.spread import spread
from onceforall.errors import UserError
from onceforall.latency.table import read_table
from onceforall.searching.costs import costs
from onceforall.searching.evolution import Evolution, evolve, hypervolume, random_search
from onceforall.searching.front import thinned
from onceforall.searching.problem import Goal, Limit, Problem
from onceforall.space import search_space

SMALL = search_space("mobilenet_v3_large_32px").restrict(resolutions=(12, 16), kernel=(3, 5), expand=(3,), depth=(2,))
FULL = search_space("mobilenet_v3_large_32px")
WIDE = search_space("mobilenet_v3_large", width_mult=1.2)


def every(space):
    """All sub-networks of a small space, each once."""
    tied = space != space.free
    ranges = [range(1 if tied and gene[-1] == "expand" else len(values)) for gene, values in space.genes.items()]
    return np.unique(canonical(space, np.array(list(product(*ranges)), np.int16)), axis=0)


def accuracy(codes):
    """Something to raise that pulls against the costs, with an interaction."""
    genes = codes.astype(float)
    return np.round(genes @ np.linspace(1, 2, codes.shape[1]) + 3 * genes[:, 3] * genes[:, 7], 6)


COMPOUND = FULL.restrict(resolutions=(16,), kernel=(5,)).compound()


def problem_of(space):
    return Problem(space, (Goal("accuracy", accuracy, up=True), Goal("macs", macs_table(space).of)))


@pytest.fixture(scope="module")
def problem():
    return problem_of(SMALL)


@pytest.mark.parametrize("space", [SMALL, COMPOUND], ids=["all", "compound"])
def test_the_whole_front_of_a_small_space_is_found(space):
    codes, problem = every(space), problem_of(space)
    assert len(codes) == len(space.resolutions) * space.count
    assert all(space.contains(space.decode(row)) for row in codes.tolist())
    values = problem.values(codes)
    wanted = values[moocore.pareto_rank(values) == 0]
    found = evolve(problem, Evolution(population=200, generations=60))
    assert found.evaluations <= len(codes)
    assert {tuple(row) for row in found.values.tolist()} == {tuple(row) for row in wanted.tolist()}
    np.testing.assert_array_equal(problem.values(found.codes), found.values)
    assert len(np.unique(found.codes, axis=0)) == len(found.codes)


def test_the_last_generation_counts(problem):
    """One generation: the front is of the first population and its children."""
    seen = []
    goals = (Goal("accuracy", lambda c: seen.append(c) or accuracy(c), up=True), problem.goals[1])
    found = evolve(Problem(SMALL, goals), Evolution(population=50, generations=1))
    everyone = np.concatenate(seen)
    assert found.evaluations == len(everyone) > 50
    values = problem.values(everyone)
    assert {tuple(v) for v in found.values.tolist()} == {tuple(v) for v in values[moocore.pareto_rank(values) == 0]}


def test_the_same_seed_gives_the_same_front(problem):
    a, b, c = (evolve(problem, Evolution(population=30, generations=5, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.codes, b.codes)
    assert a.codes.shape != c.codes.shape or (a.codes != c.codes).any()


def test_limits_are_kept_and_reached():
    """Limits that almost nothing keeps: each is near its smallest value."""
    tables = {"macs": macs_table(FULL), "params": params_table(FULL), "memory": memory_table(FULL)}
    limits = tuple(Limit(name, table, table.smallest * 1.1) for name, table in tables.items())
    problem = Problem(FULL, (Goal("accuracy", accuracy, up=True), Goal("macs", tables["macs"].of)), limits)
    found = evolve(problem, Evolution(population=200, generations=60))
    assert len(found.codes) > 5
    for limit in limits:
        assert (limit.table.of(found.codes) <= limit.at_most).all()
    assert limits[0].table.of(found.codes).max() > limits[0].at_most * 0.98


def test_what_is_impossible_is_said_with_the_smallest_value():
    table = macs_table(FULL)
    Limit("macs", table, table.smallest)
    odd = type(table)(FULL, table.rest / 3e5, table.blocks / 3e5)  # a number with more digits than are usually printed
    with pytest.raises(UserError) as error:
        Limit("latency_ms", odd, 1e-3)
    Limit("latency_ms", odd, float(str(error.value).split()[-1]))
    with pytest.raises(UserError, match=f"or less; the smallest possible is {table.smallest:.0f}"):
        Limit("macs", table, table.smallest - 1)


def test_limits_that_exclude_one_another_end():
    """Cost one falls where cost two rises, so that only one of them can be small."""
    macs = macs_table(SMALL)
    turned = type(macs)(SMALL, -macs.rest + 1e8, -macs.blocks)
    limits = (Limit("a", macs, macs.smallest * 1.01), Limit("b", turned, turned.smallest * 1.001))
    problem = Problem(SMALL, (Goal("accuracy", accuracy, up=True), Goal("a", macs.of)), limits)
    with pytest.raises(UserError, match=r"no sub-network that keeps all of them together was found; the nearest has a"):
        evolve(problem, Evolution(population=50, generations=500))


def test_random_search_looks_at_as_many(problem):
    for where, count in ((Problem(FULL, (problem.goals[0], Goal("macs", macs_table(FULL).of))), 5000), (problem, 700)):
        found = random_search(where, count)
        assert found.evaluations == count
        assert (moocore.pareto_rank(found.values) == 0).all()
    assert random_search(problem, 10_000).evaluations == 2 * SMALL.count


def test_evolution_beats_random_search():
    goals = (Goal("accuracy", accuracy, up=True), Goal("macs", macs_table(FULL).of))
    found = evolve(Problem(FULL, goals), Evolution(population=200, generations=30))
    other = random_search(Problem(FULL, goals), found.evaluations)
    corner = np.maximum(found.values.max(0), other.values.max(0))
    assert hypervolume(found.values, corner) > 1.2 * hypervolume(other.values, corner)


def test_three_goals_have_one_front():
    goals = (Goal("accuracy", accuracy, up=True), Goal("macs", macs_table(SMALL).of),
             Goal("params", params_table(SMALL).of))
    found = evolve(Problem(SMALL, goals), Evolution(population=400, generations=60))
    values = Problem(SMALL, goals).values(every(SMALL))
    wanted = {tuple(v) for v in values[moocore.pareto_rank(values) == 0]}
    assert len({tuple(v) for v in found.values.tolist()} & wanted) > 0.9 * len(wanted)


def test_a_front_larger_than_the_population_is_whole():
    """What no other sub-network that was looked at beats is in it, whether it lived on or not."""
    seen = []
    goals = (Goal("accuracy", lambda c: seen.append(c) or accuracy(c), up=True), Goal("macs", macs_table(FULL).of),
             Goal("params", params_table(FULL).of))
    found = evolve(Problem(FULL, goals), Evolution(population=30, generations=30))
    values = Problem(FULL, (Goal("accuracy", accuracy, up=True), *goals[1:])).values(np.concatenate(seen))
    assert {tuple(v) for v in found.values.tolist()} == {tuple(v) for v in values[moocore.is_nondominated(values)]}
    assert len(found.codes) > 30


def test_hypervolume_of_two_points():
    assert hypervolume(np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([3.0, 3.0])) == pytest.approx(3 + 2)


@pytest.mark.slow
def test_the_authors_predictor_and_phone(reference_data):
    """Predicted accuracies at six latencies, from one run; theirs, of the authors' search, took a run each."""
    table = read_table(reference_data / "mit" / "note10_latency")
    predictor = load(reference_data / "mit" / "ofa_mbv3_w1.2_acc_predictor.pth", space=WIDE)
    priced = costs(WIDE, {"note10": table}, predictor=predictor)
    found = evolve(priced.problem(("accuracy", "latency_ms"), (), predictor), Evolution())
    for limit, least in ((15, 0.786), (18, 0.800), (20, 0.807), (25, 0.818), (30, 0.828), (40, 0.840)):
        assert -found.values[found.values[:, 1] <= limit, 0].min() >= least, limit


@pytest.mark.slow
def test_samples_spread_over_the_cost():
    table = macs_table(FULL)
    codes = spread(table, 100, np.random.default_rng(0))
    assert len(np.unique(codes, axis=0)) == 100
    np.testing.assert_array_equal(codes, canonical(FULL, codes))
    found = table.of(codes)
    largest = table.of(np.array([FULL.encode(FULL.largest)]))[0]
    gaps = np.diff([table.smallest, *found, largest])
    assert gaps.max() < 0.05 * (largest - table.smallest)
    assert len(spread(macs_table(SMALL), 5000, np.random.default_rng(0))) <= 2 * SMALL.count


def test_a_row_of_a_part_in_the_whole_space():
    some = FULL.restrict(resolutions=(20, 32), kernel=(3, 7), depth=(3,))
    rng = np.random.default_rng(3)
    for part, wider in ((some, FULL), (some.compound(FULL), FULL), (some.compound(FULL), FULL.restrict(expand=(4,)))):
        assert wider.covers(part)
        codes = canonical(part, rng.integers(0, part.cardinalities, (200, len(part.cardinalities))))
        for mine, whole in zip(codes.tolist(), recoded(codes, part, wider).tolist(), strict=True):
            assert whole == wider.encode(part.decode(mine))


def test_thinned_rows_spread():
    values = np.stack([np.arange(100.0), np.arange(100.0)[::-1] ** 2], axis=1)
    rows = thinned(values, 5)
    assert len(rows) == 5
    assert {0, 99} <= set(rows)
    assert thinned(values[:3], 5) == [0, 1, 2]
    assert len(set(thinned(np.zeros((4, 2)), 3))) == 3
