"""Budgets: for each limit on MACs the best of some sampled sub-networks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from onceforall.cost import macs
from onceforall.space import Arch, SearchSpace

_TRIES = 2000


def budgets(space: SearchSpace, *, count: int, num_classes: int) -> list[int]:
    """`count` limits on MACs, evenly spaced between the smallest and the largest sub-network's, both left out."""
    low = macs(space, space.smallest, num_classes=num_classes)
    high = macs(space, space.largest, num_classes=num_classes)
    return [low + (high - low) * (i + 1) // (count + 1) for i in range(count)]


def candidates(space: SearchSpace, limit: int, *, count: int, rng: random.Random, num_classes: int) -> list[Arch]:
    """Up to `count` random sub-networks with 75 to 100 % of `limit` MACs; the smallest where none is met."""
    found: dict[Arch, None] = {}
    for _ in range(_TRIES):
        arch = _leaning(space, rng)
        if 0.75 * limit <= macs(space, arch, num_classes=num_classes) <= limit:
            found[arch] = None
        if len(found) == count:
            break
    return list(found) or [space.smallest]


def best(archs: Sequence[Arch], score: Callable[[Arch], float]) -> Arch:
    """The arch of the highest score, the first of equals."""
    return max(archs, key=score)


def _leaning(space: SearchSpace, rng: random.Random) -> Arch:
    """A random arch whose choices lean to one side, so that small and large ones occur too: a choice drawn among
    the smallest, the largest, or all values, by a lot drawn once an arch."""
    lean = rng.random()
    small, large = space.smallest, space.largest
    arch, stages = space.sample(rng), []
    for blocks, least, most in zip(arch.stages, small.stages, large.stages, strict=True):
        end = least if rng.random() < lean else most
        stages.append(end if rng.random() < 0.5 else blocks)
    return Arch(arch.resolution, tuple(stages))
