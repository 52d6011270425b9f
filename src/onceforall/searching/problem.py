"""What a search is for: goals to reach, limits to keep, over the sub-networks of one space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onceforall.cost.features import Floats
from onceforall.cost.population import Codes, CostTable
from onceforall.errors import UserError
from onceforall.space import SearchSpace

Measure = Callable[[Codes], Floats]  # sub-networks (N, genes) as `SearchSpace.encode` writes them -> values (N,)


def exactly(value: float) -> str:
    """A number as a text that reads back as the same number, without a needless .0."""
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True, eq=False)
class Goal:
    """A value of a sub-network that is to be low, or high.

    Args:
        name: such as "accuracy" or "macs".
        of: the values (N,) of sub-networks (N, genes).
        up: whether it is to be high.
        best: the sub-network (genes,) with the best value; None where that is not known.
    """

    name: str
    of: Measure
    up: bool = False
    best: Codes | None = None


@dataclass(frozen=True, eq=False)
class Limit:
    """A cost that must not be above `at_most`."""

    name: str
    table: CostTable
    at_most: float

    def __post_init__(self) -> None:
        """Raises UserError where no sub-network keeps the limit, with the exact smallest value."""
        if not self.at_most >= self.table.smallest:
            raise UserError(f"limit on {self.name}", f"no sub-network has {exactly(self.at_most)} or less",
                            f"the smallest possible is {exactly(self.table.smallest)}")


@dataclass(frozen=True, eq=False)
class Problem:
    """Goals over the sub-networks of `space` that keep all limits; measures and tables take the encoding of `space`."""

    space: SearchSpace
    goals: tuple[Goal, ...]
    limits: tuple[Limit, ...] = ()

    @property
    def ends(self) -> Codes:
        """Sub-networks (N, genes) that are known to be best in one goal or limit. A search begins with them."""
        best = [*(goal.best for goal in self.goals if goal.best is not None), *(x.table.least for x in self.limits)]
        return np.array(best).reshape(-1, len(self.space.cardinalities))

    def excess(self, codes: Codes) -> Floats:
        """By how much sub-networks (N, genes) break the limits (N,), as shares of the limits, added up; 0: they keep
        all."""
        out = np.zeros(len(codes))
        for limit in self.limits:
            out += np.maximum(0, limit.table.of(codes) / limit.at_most - 1)
        return out

    def values(self, codes: Codes) -> Floats:
        """The goals' values (N, goals), signed so that lower is better."""
        return np.stack([-goal.of(codes) if goal.up else goal.of(codes) for goal in self.goals], axis=1)
