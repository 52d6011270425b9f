"""Samples that spread over a cost: evenly drawn choices alone would nearly all cost the same."""

from __future__ import annotations

import numpy as np

from onceforall.cost.population import Codes, CostTable, canonical

_TRIES = 50  # for each that is kept
_LEAN = 1.5


def spread(table: CostTable, count: int, rng: np.random.Generator) -> Codes:
    """`count` different sub-networks (count, genes) whose costs are spread evenly over the table's; fewer where the
    space has fewer. Each candidate leans to small or large choices by a lot drawn for it, and in each elastic dimension
    by another; the smallest and the largest sub-network are candidates too. Ascending by cost."""
    cardinalities, dimensions = np.array(table.space.cardinalities), [str(gene[-1]) for gene in table.space.genes]
    kinds = sorted(set(dimensions))
    lean = rng.uniform(-_LEAN, _LEAN, (_TRIES * count, 1 + len(kinds)))
    power = np.exp(lean[:, :1] + lean[:, [1 + kinds.index(dimension) for dimension in dimensions]])
    drawn = (cardinalities * rng.random(power.shape) ** power).astype(np.int16)
    ends = np.array([table.space.encode(arch) for arch in (table.space.smallest, table.space.largest)], np.int16)
    drawn = np.unique(np.concatenate([ends, canonical(table.space, drawn)]), axis=0)
    drawn = drawn[np.argsort(costs := table.of(drawn), kind="stable")]
    costs.sort()
    picked: list[int] = []
    for wanted in np.linspace(costs[0], costs[-1], count):
        near = int(np.searchsorted(costs, wanted))
        picked.append(max(near, picked[-1] + 1) if picked else near)
    last = len(drawn) - 1  # where the dear ones are few, count back from the end
    for i in range(len(picked) - 1, -1, -1):
        picked[i] = min(picked[i], last)
        last = picked[i] - 1
    return drawn[[i for i in picked if i >= 0]]
