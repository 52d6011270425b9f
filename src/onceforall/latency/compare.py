"""Latency tables beside each other: how they order sub-networks, where they differ, and whether they say anything."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from onceforall.errors import UserError
from onceforall.latency.table import LatencyTable, Timing
from onceforall.space import Plan, SearchSpace, lower
from onceforall.space.parts import names

SUBNETS = 200
_LEAST_TAU, _CLEAR, _ZEROS = 0.5, 2.0, 0.1
_MEDIAN, _SIGMAS = 1.25, 1.35  # standard error of a median by that of a mean; interquartile range of a normal one


@dataclass(frozen=True)
class Other:
    """How much longer a part takes on one device, against a reference and against what is usual of all parts.

    Args:
        part: its name.
        factor: 2: twice as long, in relation to the other parts.
    """

    part: str
    factor: float


@dataclass(frozen=True)
class Comparison:
    """Tables beside each other.

    Args:
        ms: by table the latency of random sub-networks, the same of all.
        taus: Kendall's tau of each table (row) with each (column).
        others: by table but the first the parts that differ from the first one's, the longest first.
    """

    ms: dict[str, list[float]]
    taus: list[list[float]]
    others: dict[str, list[Other]]


def compare(tables: Mapping[str, LatencyTable], space: SearchSpace, *, num_classes: int = 1000,
            seed: int = 0) -> Comparison:
    """Put tables beside each other, on random sub-networks of a space.

    Args:
        tables: by the names of their devices, all of that space.
        space: what the sub-networks are drawn from, at the resolutions that all tables have.
        num_classes: of the classifier.
        seed: of the draw.

    Raises:
        UserError: a table lacks a part at every resolution, or no resolution is in all of them.
    """
    sizes = {name: _sizes(name, table, space, num_classes) for name, table in tables.items()}
    common = [size for size in space.resolutions if all(size in known for known in sizes.values())]
    if not common:
        raise UserError("TABLE", "the tables have no resolution in common", "profile the same space on each device")
    plans = _plans(space.restrict(resolutions=common), num_classes, seed)
    found = {name: [table.ms(plan) for plan in plans] for name, table in tables.items()}
    taus = [[float(kendalltau(a, b).statistic) for b in found.values()] for a in found.values()]
    first, *rest = tables
    return Comparison(found, taus, {name: _others(tables[first], tables[name]) for name in rest})


def doubts(table: LatencyTable, space: SearchSpace, *, num_classes: int = 1000, seed: int = 0) -> list[str]:
    """Why a table says little about which of the space's sub-networks is faster, a sentence each; empty where it does
    say it."""
    out, zeros = [], sum(timing.ms == 0 for timing in table.timings.values())
    if zeros > _ZEROS * len(table.timings):
        out.append(f"{zeros} of {len(table.timings)} parts took no time by its clock, which is too coarse")
    known = _sizes("latency table", table, space, num_classes)
    plans = _plans(space.restrict(resolutions=known), num_classes, seed)
    spread = float(np.std([table.ms(plan) for plan in plans]))
    error = float(np.mean([_error(table, plan) for plan in plans]))
    if spread < _CLEAR * error:
        out.append(f"sub-networks differ by {spread:.2g} ms, and a sum is known to {error:.2g} ms")
    tau = table.about.get("check", {}).get("after", {}).get("tau", 1.0)
    if tau < _LEAST_TAU:
        out.append(f"it orders whole sub-networks with a Kendall's tau of {tau:.2f}")
    return out


def _sizes(name: str, table: LatencyTable, space: SearchSpace, num_classes: int) -> tuple[int, ...]:
    """The resolutions at which a table has every part."""
    try:
        return table.of(space, num_classes=num_classes).space.resolutions
    except UserError as error:
        raise UserError(name, error.problem, error.remedy) from None


def _plans(space: SearchSpace, num_classes: int, seed: int) -> list[Plan]:
    rng = random.Random(seed)
    return [lower(space, space.sample(rng), num_classes) for _ in range(SUBNETS)]


def _error(table: LatencyTable, plan: Plan) -> float:
    """The standard error of a plan's latency, in milliseconds."""
    timings = [table.timing(plan, name) for name in names(plan)]
    return table.scale * float(np.sqrt(sum(_variance(timing) for timing in timings)))


def _variance(timing: Timing) -> float:
    """Of the median of its repetitions."""
    return (_MEDIAN * timing.spread_ms / _SIGMAS) ** 2 / timing.n


def _others(reference: LatencyTable, table: LatencyTable) -> list[Other]:
    ratios = {key: table.timings[key].ms / timing.ms for key, timing in reference.timings.items()
              if timing.ms and key in table.timings and table.timings[key].ms}
    usual = median(ratios.values()) if ratios else 1.0
    return sorted((Other(name, ratio / usual) for (_, name), ratio in ratios.items()), key=lambda row: -row.factor)


def summary(ms: NDArray[np.float64] | list[float]) -> str:
    """The least, the middle and the largest of latencies, in words."""
    return " / ".join(f"{value:.2f}" for value in np.percentile(ms, [0, 50, 100]))
