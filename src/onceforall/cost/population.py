"""Costs of a whole population of encoded sub-networks at once: looked up, block by block, in a table made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onceforall.cost.counts import layer_macs, layer_params
from onceforall.cost.memory import block_memory, rest_memory
from onceforall.space import Arch, Block, BlockPlan, Layer, Plan, SearchSpace, Value, lower

Codes = NDArray[np.integer]
_ROWS = 1 << 15  # rows at a time, so that what is looked up stays in the cache


@dataclass(frozen=True, eq=False)
class CostTable:
    """One cost of every block of a space at every resolution, and of the rest of the network.

    `rest`: (resolutions,). `blocks`: (resolutions, slots, 1 + choices of a block); entry 0 is a block that does not
    exist. `largest`: a network's cost is the largest of its parts, not their sum.
    """

    space: SearchSpace
    rest: NDArray[np.float64]
    blocks: NDArray[np.float64]
    largest: bool = False

    def of(self, codes: Codes) -> NDArray[np.float64]:
        """Costs (N,) of sub-networks (N, genes) as `SearchSpace.encode` writes them."""
        codes = np.asarray(codes)
        out = np.empty(len(codes))
        for start in range(0, len(codes), _ROWS):
            part = np.ascontiguousarray(codes[start:start + _ROWS].T)
            out[start:start + _ROWS] = self._of(part)
        return out

    def at(self, resolutions: Sequence[int]) -> CostTable:
        """The table of the same sub-networks at these of its resolutions alone."""
        space = self.space.restrict(resolutions=resolutions)
        rows = [self.space.resolutions.index(size) for size in space.resolutions]
        return CostTable(space, self.rest[rows], self.blocks[rows], self.largest)

    @property
    def least(self) -> Codes:
        """The sub-network (genes,) that costs least: the exact minimum over the space."""
        rows = np.stack([self._least(r) for r in range(len(self.rest))])
        row: Codes = rows[self.of(rows).argmin()]
        return row

    @property
    def smallest(self) -> float:
        """What that one costs."""
        return float(self.of(self.least[None])[0])

    def _least(self, resolution: int) -> Codes:
        """The same at one resolution: its cheapest blocks, and of each stage the cheapest depth."""
        row, slot = [resolution], 0
        for stage in self.space.stages:
            costs = self.blocks[resolution, slot:slot + max(stage.depth)].T
            best, places = costs[1:].argmin(0), np.arange(max(stage.depth))
            parts = [np.where(places < depth, costs[1:].min(0), costs[0]) for depth in stage.depth]
            row.append(int(np.argmin([part.max() if self.largest else part.sum() for part in parts])))
            ways = [len(values) for _, values in stage.elastic]
            row += [int(gene) for way in best for gene in np.unravel_index(way, ways)]
            slot += max(stage.depth)
        least: Codes = canonical(self.space, np.array([row], np.int16))[0]
        return least

    def _of(self, genes: Codes) -> NDArray[np.float64]:
        """Costs of a part, genes (genes, N)."""
        resolution = genes[0]
        total: NDArray[np.float64] = self.rest[resolution]
        for slot, choice in enumerate(choices(self.space, genes)):
            table = np.ascontiguousarray(self.blocks[:, slot])
            cost = table.ravel().take(resolution * np.intp(table.shape[1]) + choice)
            total = np.maximum(total, cost) if self.largest else total + cost
        return total


def choices(space: SearchSpace, genes: Codes) -> Iterator[NDArray[np.intp]]:
    """For each slot the number of each row's block, 0 where it does not exist."""
    row = 1
    for stage in space.stages:
        depth = np.asarray(stage.depth)[genes[row]]
        row += 1
        for b in range(max(stage.depth)):
            number = np.zeros(genes.shape[1], np.intp)
            for _, values in stage.elastic:
                number = number * len(values) + genes[row]
                row += 1
            yield np.where(depth > b, number + 1, 0)


def canonical(space: SearchSpace, codes: Codes) -> Codes:
    """The rows (N, genes) with 0 in the genes of blocks that do not exist, so that equal networks are equal rows."""
    out = np.array(codes)
    row = 1
    for stage in space.stages:
        depth = np.asarray(stage.depth)[out[:, row]]
        genes = len(stage.elastic)
        row += 1
        place = np.repeat(np.arange(max(stage.depth)), genes)
        out[:, row:row + len(place)] *= depth[:, None] > place
        row += len(place)
    return out


def recoded(codes: Codes, space: SearchSpace, wider: SearchSpace) -> Codes:
    """Rows (N, genes) of `space` in the encoding of a space that covers it."""
    if space == wider:
        return codes
    mine, out = gene_values(space), np.zeros((len(codes), len(wider.cardinalities)), codes.dtype)
    for column, (gene, values) in enumerate(gene_values(wider).items()):
        if gene in mine:
            places = np.array([values.index(value) for value in mine[gene]], codes.dtype)
            out[:, column] = places[codes[:, list(mine).index(gene)]]
    return canonical(wider, out)


def gene_values(space: SearchSpace) -> dict[tuple[Any, ...], tuple[Value, ...]]:
    """The encoding's entries in their order: which choice it is of, its dimension last, and the values there are."""
    out: dict[tuple[Any, ...], tuple[Value, ...]] = {("resolution",): space.resolutions}
    for s, stage in enumerate(space.stages):
        out[s, "depth"] = stage.depth
        out |= {(s, b, name): values for b in range(max(stage.depth)) for name, values in stage.elastic}
    return out


def tabulate(space: SearchSpace, block: Callable[[Plan, BlockPlan], float], rest: Callable[[Plan], float], *,
             largest: bool = False, num_classes: int = 1000) -> CostTable:
    """The table of a cost that is `block` of each elastic block of a plan and `rest` of its other layers."""
    ways = [prod(len(values) for _, values in stage.elastic) for stage in space.stages]
    blocks = np.zeros((len(space.resolutions), space.slots, 1 + max(ways)))
    rests = np.zeros(len(space.resolutions))
    for r, resolution in enumerate(space.resolutions):
        for way in range(max(ways)):
            plan = lower(space, _uniform(space, resolution, way), num_classes)
            slot = 0
            for plans, count in zip(plan.stages, ways, strict=True):
                blocks[r, slot:slot + len(plans), 1 + way] = [block(plan, p) for p in plans] if way < count else np.inf
                slot += len(plans)
        rests[r] = rest(plan)
    return CostTable(space, rests, blocks, largest)


def _uniform(space: SearchSpace, resolution: int, way: int) -> Arch:
    """All blocks there are, each with choice number `way` of its stage (its last, where there are fewer)."""
    stages = []
    for stage in space.stages:
        ways = list(product(*(values for _, values in stage.elastic)))
        values = ways[min(way, len(ways) - 1)]
        block = Block(tuple((name, value) for (name, _), value in zip(stage.elastic, values, strict=True)))
        stages.append((block,) * max(stage.depth))
    return Arch(resolution, tuple(stages))


def macs_table(space: SearchSpace, *, num_classes: int = 1000) -> CostTable:
    """Multiply-accumulates, as `macs` counts them."""
    return tabulate(space, lambda p, b: sum(map(layer_macs, b.layers)), lambda p: sum(map(layer_macs, _rest(p))),
                    num_classes=num_classes)


def params_table(space: SearchSpace, *, num_classes: int = 1000) -> CostTable:
    """Parameters, as `params` counts them."""
    return tabulate(space, lambda p, b: sum(map(layer_params, b.layers)), lambda p: sum(map(layer_params, _rest(p))),
                    num_classes=num_classes)


def memory_table(space: SearchSpace) -> CostTable:
    """Peak activation memory, as `peak_memory` has it."""
    return tabulate(space, lambda p, b: block_memory(b), lambda p: max(rest_memory(p), *map(block_memory, p.first)),
                    largest=True)


def _rest(plan: Plan) -> list[Layer]:
    """The layers outside the elastic blocks."""
    return [plan.stem, *(layer for block in plan.first for layer in block.layers), *plan.features,
            *plan.head]
