"""Strategies: which sub-networks a training step runs, and what each learns from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from onceforall.space import Arch, SearchSpace


@dataclass(frozen=True)
class Term:
    """One sub-network of a step; `teacher`: it also learns from the teacher's probabilities."""

    arch: Arch
    teacher: bool


Strategy = Callable[[SearchSpace, random.Random], list[Term]]


def progressive_shrinking(subnets: int, *, teacher: bool) -> Strategy:
    """`subnets` random sub-networks of the stage's space, each beside the teacher (Cai et al. 2020, section 3.3)."""

    def terms(space: SearchSpace, rng: random.Random) -> list[Term]:
        return [Term(space.sample(rng), teacher) for _ in range(subnets)]

    return terms


def only(arch: Arch, *, teacher: bool) -> Strategy:
    """`arch` in every step: ordinary training, or fine-tuning, of one sub-network."""
    return lambda space, rng: [Term(arch, teacher)]
