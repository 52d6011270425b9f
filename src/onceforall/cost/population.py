"""Costs of a whole population of encoded sub-networks at once: looked up, block by block, in a table made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from onceforall.cost.counts import layer_macs, layer_params
from onceforall.cost.memory import block_memory, rest_memory
from onceforall.space import BlockPlan, Gene, Layer, Plan, SearchSpace, StageSpace, lower

Codes = NDArray[np.integer]
Floats = NDArray[np.float64]
_ROWS = 1 << 15  # rows at a time, so that what is looked up stays in the cache


@dataclass(frozen=True, eq=False)
class CostTable:
    """One cost of a space's sub-networks: of every block at every resolution, and of the rest of the network.

    Args:
        space: the space.
        rest: the cost outside the blocks, (resolutions,).
        blocks: (resolutions, slots, 1 + choices of a block); entry 0 is a block that does not exist.
        largest: whether a network's cost is the largest of its parts, and not their sum.
    """

    space: SearchSpace
    rest: Floats
    blocks: Floats
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
        """The same at one resolution: at all widths the cheapest blocks, and the cheapest depth of each stage."""
        space = self.space
        together, nothing = (np.max, -np.inf) if self.largest else (np.sum, 0.0)
        names = [gene for gene in space.genes if gene[-1] == "width"]
        widths = np.array(list(product(*(range(len(space.genes[name])) for name in names))), np.intp)
        genes = dict(zip(names, widths.T, strict=True))
        own: dict[tuple[int, int], Floats] = {}  # of each slot (widths, ways of a block)
        absent: dict[tuple[int, int], float] = {}
        for slot, costs in zip(slots(space), self.blocks[resolution], strict=True):
            ways = len(space.stages[slot.stage].ways(slot.place)) if slot.stage >= 0 else 1
            number = _number(space, [gene for gene in slot.genes if gene[-1] == "width"], genes)
            part = costs[1:1 + slot.cases(space)].reshape(-1, ways)[number]
            own[slot.stage, slot.place] = np.broadcast_to(part, (len(widths), ways))
            absent[slot.stage, slot.place] = costs[0]

        def cheapest(s: int, depth: int) -> tuple[Floats, list[NDArray[np.intp]]]:
            """What a stage costs (widths,) with the cheapest blocks at a depth, and the way (widths,) of each."""
            left = [np.array(list(space.stages[s].ways_at(b, depth))) for b in range(depth)]
            parts = [own[s, b][:, ways] for b, ways in enumerate(left)]
            rest = [absent[s, b] * np.ones(len(widths)) for b in range(depth, max(space.stages[s].depth))]
            cost: Floats = together([np.full(len(widths), nothing), *(part.min(1) for part in parts), *rest], axis=0)
            return cost, [ways[part.argmin(1)] for ways, part in zip(left, parts, strict=True)]

        stages = [[cheapest(s, depth) for depth in stage.depth] for s, stage in enumerate(space.stages)]
        row = int(together([own[-1, 0][:, 0], *(np.min([cost for cost, _ in depths], axis=0) for depths in stages)],
                           axis=0).argmin())
        found: dict[Gene, int] = dict(zip(names, widths[row].tolist(), strict=True))
        for s, (stage, depths) in enumerate(zip(space.stages, stages, strict=True)):
            found[s, "depth"] = depth = int(np.argmin([cost[row] for cost, _ in depths]))
            found |= {(s, b, name): space.genes[s, b, name].index(value) for b, ways in enumerate(depths[depth][1])
                      for name, value in stage.ways(b)[ways[row]].items()}
        picked = [resolution, *(found.get(gene, 0) for gene in list(space.genes)[1:])]
        least: Codes = canonical(space, np.array([picked], np.int16))[0]
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


@dataclass(frozen=True)
class Slot:
    """A part of the network whose cost follows from a few genes.

    Args:
        stage: the number of its stage; -1: the layers outside the stages.
        place: the number of the block in its stage.
        genes: the elastic widths around it, then its own choices. The last one counts fastest.
    """

    stage: int
    place: int
    genes: tuple[Gene, ...]

    def cases(self, space: SearchSpace) -> int:
        """Combinations of its genes."""
        return prod(len(space.genes[gene]) for gene in self.genes)


@lru_cache(maxsize=16)
def slots(space: SearchSpace) -> tuple[Slot, ...]:
    """A slot for every block that the largest depths allow, stage by stage. The last slot is the layers outside the
    stages."""
    out = []

    def width(of: int | str) -> tuple[Gene, ...]:
        return ((of, "width"),) if (of, "width") in space.genes else ()

    stem = inside = width("stem")
    for s, stage in enumerate(space.stages):
        own = width(s) if stage.width else inside
        for b in range(max(stage.depth)):
            around = dict.fromkeys((*(inside if b == 0 else ()), *own))
            out.append(Slot(s, b, (*around, *((s, b, name) for name, _ in stage.elastic))))
        inside = own
    return (*out, Slot(-1, 0, tuple(dict.fromkeys((*stem, *inside, *width("head"))))))


def choices(space: SearchSpace, genes: Codes) -> Iterator[NDArray[np.intp]]:
    """For each slot the number of each row's case, 0 where it does not exist; genes (genes, N)."""
    rows, depth = dict(zip(space.genes, genes, strict=True)), np.zeros(0)
    for slot in slots(space):
        number = 1 + _number(space, slot.genes, rows)
        if slot.stage >= 0 and slot.place == 0:
            depth = np.asarray(space.stages[slot.stage].depth)[rows[slot.stage, "depth"]]
        yield np.where(depth > slot.place, number, 0) if slot.stage >= 0 else np.broadcast_to(number, genes.shape[1])


def _number(space: SearchSpace, genes: Sequence[Gene], rows: Mapping[Gene, Codes]) -> NDArray[np.intp]:
    """A combination of genes as one number. The last gene counts fastest."""
    number = np.zeros(1, np.intp)
    for gene in genes:
        number = number * len(space.genes[gene]) + rows[gene]
    return number


def canonical(space: SearchSpace, codes: Codes) -> Codes:
    """Rows (N, genes) in which equal networks are equal.

    Genes of blocks that do not exist, and idle ones, are 0. Genes that are tied to a depth follow from it.
    """
    out = np.array(codes)
    column = {gene: i for i, gene in enumerate(space.genes)}
    for s, stage in enumerate(space.stages):
        depth = np.asarray(stage.depth)[out[:, column[s, "depth"]]]
        if not stage.elastic:
            continue
        for b in range(max(stage.depth) if stage.tied else 0):
            ratios = np.array([_tied(stage, b, d) for d in stage.depth], out.dtype)
            out[:, column[s, b, "expand"]] = ratios[out[:, column[s, "depth"]]]
        start, count = column[s, 0, stage.elastic[0][0]], len(stage.elastic)
        out[:, start:start + count * max(stage.depth)] *= depth[:, None] > np.repeat(np.arange(max(stage.depth)), count)
        name, value, idle = stage.idle or ("", 0, "")
        for b in range(max(stage.depth)):
            values = stage.choices_at(b).get(name, ())
            if value in values:
                out[out[:, column[s, b, name]] == values.index(value), column[s, b, idle]] = 0
    return out


def _tied(stage: StageSpace, block: int, depth: int) -> int:
    """The index of a block's expand ratio that goes with a depth."""
    return stage.choices_at(block)["expand"].index(stage.choices_at(block, depth)["expand"][0])


def recoded(codes: Codes, space: SearchSpace, wider: SearchSpace) -> Codes:
    """Rows (N, genes) of `space` in the encoding of a space that covers it."""
    if space == wider:
        return codes
    mine, out = space.genes, np.zeros((len(codes), len(wider.cardinalities)), codes.dtype)
    for column, (gene, values) in enumerate(wider.genes.items()):
        if gene in mine:
            places = np.array([values.index(value) if value in values else 0 for value in mine[gene]], codes.dtype)
            out[:, column] = places[codes[:, list(mine).index(gene)]]
    return canonical(wider, out)


def tabulate(space: SearchSpace, block: Callable[[Plan, BlockPlan], float], rest: Callable[[Plan], float], *,
             largest: bool = False, num_classes: int = 1000) -> CostTable:
    """The table of a cost that is `block` of each elastic block of a plan and `rest` of its other layers."""
    blocks = np.full((len(space.resolutions), len(slots(space)), 1 + max(s.cases(space) for s in slots(space))), np.inf)
    blocks[:, :, 0] = 0
    for r in range(len(space.resolutions)):
        for row in _rows(space):
            row[0] = r
            plan = lower(space, space.decode(row), num_classes)
            costs = [*(block(plan, p) for plans in plan.stages for p in plans), rest(plan)]
            for slot, (number, cost) in enumerate(zip(choices(space, np.array([row]).T), costs, strict=True)):
                blocks[r, slot, number] = cost
    return CostTable(space, np.zeros(len(space.resolutions)), blocks, largest)


def _rows(space: SearchSpace) -> Iterator[list[int]]:
    """Sub-networks (genes,) with all blocks there are that together have every case of every slot."""
    widths = [gene for gene in space.genes if gene[-1] == "width"]
    many = [len(space.genes[gene]) for gene in widths]
    found = {tuple(min(pair[w % 2], n - 1) for w, n in enumerate(many))  # neighbours in all combinations
             for pair in product(range(max(many, default=1)), repeat=2)}
    ends = slots(space)[-1].genes
    found |= {tuple(dict(zip(ends, picks, strict=True)).get(gene, 0) for gene in widths)
              for picks in product(*(range(len(space.genes[gene])) for gene in ends))}
    ways = {(slot.stage, slot.place): list(product(*(range(len(values)) for values in choices)))
            for slot in slots(space)[:-1] for choices in [space.stages[slot.stage].choices_at(slot.place).values()]}
    for picked in sorted(found):
        for way in range(max(map(len, ways.values()), default=1)):
            row = dict(zip(widths, picked, strict=True))
            row |= {(s, "depth"): len(stage.depth) - 1 for s, stage in enumerate(space.stages)}
            for (s, b), picks in ways.items():
                names = (name for name, _ in space.stages[s].elastic)
                row |= {(s, b, name): i for name, i in zip(names, picks[min(way, len(picks) - 1)], strict=True)}
            yield [row.get(gene, 0) for gene in space.genes]


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
    return tabulate(space, lambda p, b: block_memory(b), lambda p: max([rest_memory(p), *map(block_memory, p.first)]),
                    largest=True)


def _rest(plan: Plan) -> list[Layer]:
    """The layers outside the elastic blocks."""
    return [plan.stem, *(layer for block in plan.first for layer in block.layers), *plan.features,
            *plan.head]
