"""Strategies: which sub-networks a training step runs, and what each learns from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from onceforall.space import Arch, Block, SearchSpace


@dataclass(frozen=True)
class Term:
    """One sub-network of a step; `teacher`: it also learns from the teacher's probabilities."""

    arch: Arch
    teacher: bool


Strategy = Callable[[SearchSpace, random.Random, int], list[Term]]  # space, the step's randomness, its number


def progressive_shrinking(subnets: int, *, teacher: bool) -> Strategy:
    """`subnets` random sub-networks of the stage's space, each beside the teacher (Cai et al. 2020, section 3.3)."""

    def terms(space: SearchSpace, rng: random.Random, step: int) -> list[Term]:
        return [Term(space.sample(rng), teacher) for _ in range(subnets)]

    return terms


def authors_order(subnets: int, *, teacher: bool) -> Strategy:
    """The same, with the kernels, expand ratios and depths that the authors' code draws in that step."""

    def terms(space: SearchSpace, rng: random.Random, step: int) -> list[Term]:
        return [Term(_authors_sample(space, random.Random(int(f"{step}{k:03}000"))), teacher) for k in range(subnets)]

    return terms


def _authors_sample(space: SearchSpace, rng: random.Random) -> Arch:
    """Every slot's kernel, every slot's expand ratio, every stage's depth; slots past the depth are drawn too."""
    names = [name for name, _ in space.stages[0].elastic]
    genes = {name: [[rng.choice(stage.choices[name]) for _ in range(max(stage.depth))] for stage in space.stages]
             for name in names}
    depths = [rng.choice(stage.depth) for stage in space.stages]
    return Arch(max(space.resolutions), tuple(
        tuple(Block(tuple((name, genes[name][s][b]) for name in names)) for b in range(depth))
        for s, depth in enumerate(depths)))


def only(arch: Arch, *, teacher: bool) -> Strategy:
    """`arch` in every step: ordinary training, or fine-tuning, of one sub-network."""
    return lambda space, rng, step: [Term(arch, teacher)]
