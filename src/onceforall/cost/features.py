"""Features of encoded sub-networks for regression: sums over blocks, so that a linear model of them is a cost table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log

import numpy as np
from numpy.typing import NDArray

from onceforall.cost.population import Codes, CostTable, choices, slots
from onceforall.space import SearchSpace

Floats = NDArray[np.float64]
Key = tuple[str, tuple[float, ...]]  # the group a column belongs to, and which of its columns it is


@dataclass(frozen=True, eq=False)
class Features:
    """Columns for regression, in groups.

    Args:
        space: the space.
        sizes: (resolutions, columns) of the resolution.
        blocks: (slots, 1 + cases, columns), what a slot adds. Row 0 is a block that does not exist.
        groups: the group of each column of `matrix`: resolution, blocks, blocks times resolution.
    """

    space: SearchSpace
    sizes: Floats
    blocks: Floats
    groups: NDArray[np.intp]

    def matrix(self, codes: Codes, *, times_size: bool = True) -> Floats:
        """Columns (N, columns) of sub-networks (N, genes) as `SearchSpace.encode` writes them; the last ones, blocks
        times resolution, are left out where `times_size` is False."""
        genes = np.ascontiguousarray(np.asarray(codes).T)
        summed = np.zeros((genes.shape[1], self.blocks.shape[2]))
        for slot, choice in enumerate(choices(self.space, genes)):
            summed += self.blocks[slot, choice]
        sizes = self.sizes[genes[0]]
        return np.concatenate([sizes, summed, *([summed * sizes[:, :1]] if times_size else [])], axis=1)

    def table(self, weights: Floats, intercept: float) -> CostTable:
        """A linear model of the columns as a table to look up."""
        r, b = self.sizes.shape[1], self.blocks.shape[2]
        fixed, scaled = self.blocks @ weights[r:r + b], self.blocks @ weights[r + b:]
        return CostTable(self.space, intercept + self.sizes @ weights[:r], fixed + self.sizes[:, :1, None] * scaled)


def features(space: SearchSpace, seen: Sequence[int]) -> Features:
    """The columns of a space; `seen`: the resolutions there are data of, each with a column of its own."""
    pixels = np.array(space.resolutions, float)
    scale = (pixels - np.mean(seen)) / 32
    sizes = np.stack([scale, scale ** 2, *((pixels == size).astype(float) for size in seen)], axis=1)
    described = list(_blocks(space))
    columns = {key: i for i, key in enumerate(sorted({key for _, _, values in described for key in values}))}
    blocks = np.zeros((len(slots(space)), 1 + max(number for _, number, _ in described), len(columns)))
    for slot, number, values in described:
        for key, value in values.items():
            blocks[slot, number, columns[key]] = value
    names = sorted({key[0] for key in columns})
    of_blocks = [2 + names.index(key[0]) for key in columns]
    groups = [0, 0, *([1] * len(seen)), *of_blocks, *(group + len(names) for group in of_blocks)]
    return Features(space, sizes, blocks, np.array(groups))


def _blocks(space: SearchSpace) -> Iterator[tuple[int, int, Mapping[Key, float]]]:
    """Every slot with every case of it: slot, number of the case, columns that are not 0."""
    outside = {"stem": -1, "head": -2}
    for number, slot in enumerate(slots(space)):
        stage = None if slot.stage < 0 else space.stages[slot.stage]
        for case, picks in enumerate(product(*(space.genes[gene] for gene in slot.genes))):
            out: dict[Key, float] = {("present", (number,)): 1.0} if stage else {}
            found = dict(zip(slot.genes, picks, strict=True))
            there = {gene[-1] for gene in found} if stage is None else {
                "width", *stage.dimensions({str(gene[-1]): value for gene, value in found.items()})}
            for gene, value in found.items():
                name, place = str(gene[-1]), outside.get(str(gene[0]), gene[0])
                if name not in there or (stage is None) != (gene[0] in outside) or place not in (*outside.values(),
                                                                                                slot.stage):
                    continue  # an idle choice, or the width of another stage
                values = space.genes[gene]
                level = _level(value, values)
                out |= {(f"{name} anywhere", ()): level, (f"{name} in stage", (float(place),)): level,
                        (f"{name} in slot", (number,)): level, (f"{name} itself", (number, value)): 1.0}
            yield number, 1 + case, out


def _level(value: float, values: Sequence[float]) -> float:
    """How large a choice is, from -x to x. The scale is logarithmic where all choices are above 0."""
    if values[0] > 0:
        return log(value * value / (values[0] * values[-1]))
    return (2 * value - values[0] - values[-1]) / (values[-1] - values[0] or 1)
