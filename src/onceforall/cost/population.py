"""Costs of a whole population of encoded sub-networks at once: looked up, block by block, in a table made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from onceforall.cost.counts import layer_macs, layer_params
from onceforall.cost.memory import block_memory, rest_memory
from onceforall.space import Arch, Block, BlockPlan, Layer, Plan, SearchSpace, lower

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

    @property
    def smallest(self) -> float:
        """The exact minimum over the space: no sub-network costs less."""
        per_slot = self.blocks[:, :, 1:].min(axis=2)
        least = []
        for r, rest in enumerate(self.rest):
            start, parts = 0, [float(rest)]
            for stage in self.space.stages:
                costs = per_slot[r, start:start + max(stage.depth)]
                parts.append(min(float(costs[:d].max() if self.largest else costs[:d].sum()) for d in stage.depth))
                start += max(stage.depth)
            least.append(max(parts) if self.largest else sum(parts))
        return min(least)

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
    return [plan.stem, *(layer for block in plan.first for layer in block.layers), *plan.head]
