"""Guards: what counts as training that has gone wrong, and what the run remembers of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

_LEFT = 0.1  # of what the largest sub-network had above chance: below that it has collapsed
_LEARNED = 0.1  # top-1 above chance from which there is something to lose


class Setback(Exception):  # noqa: N818 not an error of the program: the run answers it
    """Training has gone wrong, and why; the run goes back to its last good checkpoint."""


@dataclass(frozen=True)
class Guard:
    """`row` setbacks since the last good epoch, the factor `rate` of the learning rate that they led to, and the `best`
    top-1 in [0, 1] of the largest validated sub-network so far."""

    row: int = 0
    rate: float = 1.0
    best: float = 0.0

    def check(self, top1: float, loss: float, *, chance: float) -> Guard:
        """The guard after a good epoch. Raises Setback where the largest sub-network fell to chance, the top-1 in
        [0, 1] of always naming the most frequent class, or its loss is not finite."""
        if not math.isfinite(loss):
            raise Setback(f"the validation loss of the largest sub-network is {loss}")
        had, left = self.best - chance, top1 - chance
        if had > _LEARNED and left < _LEFT * had:
            raise Setback(f"the top-1 of the largest sub-network fell from {100 * self.best:.1f} to {100 * top1:.1f} % "
                          f"(chance: {100 * chance:.1f} %)")
        return replace(self, row=0, best=max(self.best, top1))
