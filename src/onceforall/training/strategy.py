"""Strategies: which sub-networks a training step runs, and what each learns from."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

from onceforall.space import Arch, Block, SearchSpace
from onceforall.training.sampling import Sampler

Target = Literal["labels", "teacher", "largest"]


@dataclass(frozen=True)
class Term:
    """One sub-network of a step, and what it learns from: the labels, these and the teacher's probabilities, or instead
    those of the largest sub-network, which runs before it. `weight` is a factor of its loss."""

    arch: Arch
    target: Target
    weight: float = 1.0


class Moment(NamedTuple):
    """Where a stage stands: the number of the step, and how many steps there are."""

    step: int
    steps: int


Strategy = Callable[[SearchSpace, random.Random, Moment], list[Term]]  # the stage's space, the step's randomness


def progressive_shrinking(subnets: int, *, teacher: bool, sampler: Sampler = SearchSpace.sample) -> Strategy:
    """`subnets` sub-networks of the stage's space, each beside the teacher (Cai et al. 2020, section 3.3).

    On the whole space from the first step on it is random sampling without stages.
    """

    def terms(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
        return [Term(sampler(space, rng), "teacher" if teacher else "labels") for _ in range(subnets)]

    return terms


def sandwich(subnets: int, *, teacher: bool = False, sampler: Sampler = SearchSpace.sample) -> Strategy:
    """The largest sub-network against the labels; the smallest and `subnets` - 2 others against the largest (sandwich
    rule and in-place distillation: Yu and Huang 2019; BigNAS, Yu et al. 2020, section 3.2). It has no other teacher."""

    def terms(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
        others = [space.smallest, *(sampler(space, rng) for _ in range(subnets - 2))]
        return [Term(space.largest, "labels"), *(Term(arch, "largest") for arch in others)]

    return terms


class Named(Protocol):
    """A strategy that a configuration names."""

    def __call__(self, subnets: int, *, teacher: bool, sampler: Sampler) -> Strategy: ...


STRATEGIES: dict[str, Named] = {"shrinking": progressive_shrinking, "sandwich": sandwich}
SELF_TAUGHT = {"sandwich": 2}  # whose largest sub-network teaches the others: the least sub-networks of a step


def delayed(strategy: Strategy, *, until: float, rise: float = 0.0, teacher: bool = False) -> Strategy:
    """The largest sub-network alone in the first `until` of the steps, then `strategy`, in which the losses of all
    others rise to their weight over the next `rise` of them (DepS, Annavajjala et al. 2024: shrinking is delayed until
    the largest is half trained, and the others' effective learning rate warms up)."""

    def terms(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
        since = (moment.step + 1) / moment.steps - until
        if since <= 0:
            return [Term(space.largest, "teacher" if teacher else "labels")]
        share = min(1.0, since / rise) if rise else 1.0
        return [term if term.arch == space.largest else replace(term, weight=share * term.weight)
                for term in strategy(space, rng, moment)]

    return terms


def often_largest(strategy: Strategy, share: float, *, teacher: bool) -> Strategy:
    """`strategy`, but for a share of the steps at random, in which the largest sub-network is trained alone."""

    def terms(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
        if rng.random() < share:
            return [Term(space.largest, "teacher" if teacher else "labels")]
        return strategy(space, rng, moment)

    return terms


def authors_order(subnets: int, *, teacher: bool) -> Strategy:
    """Progressive shrinking with the kernels, expand ratios and depths that the authors' code draws in that step."""

    def terms(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
        drawn = [_authors_sample(space, random.Random(int(f"{moment.step}{k:03}000"))) for k in range(subnets)]
        return [Term(arch, "teacher" if teacher else "labels") for arch in drawn]

    return terms


def _authors_sample(space: SearchSpace, rng: random.Random) -> Arch:
    """Every slot's kernel, every slot's expand ratio, every stage's depth; slots past the depth are drawn too."""
    names = [name for name, _ in space.stages[0].elastic]
    genes = {name: [[rng.choice(stage.choices_at(b)[name]) for b in range(max(stage.depth))] for stage in space.stages]
             for name in names}
    depths = [rng.choice(stage.depth) for stage in space.stages]
    return Arch(max(space.resolutions), tuple(
        tuple(Block(tuple((name, genes[name][s][b]) for name in names)) for b in range(depth))
        for s, depth in enumerate(depths)))


def only(arch: Arch, *, teacher: bool) -> Strategy:
    """A strategy with `arch` alone in every step: ordinary training, or fine-tuning, of one sub-network."""
    return lambda space, rng, moment: [Term(arch, "teacher" if teacher else "labels")]
