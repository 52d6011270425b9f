"""Which pictures, random numbers and resolution each training step of a rank gets.

Everything here is a function of (seed, epoch, step or position): no state, hence the same for any number of workers
and ranks and from any starting step.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from onceforall.data.crop import ORDER_STREAM, Uniform, noise
from onceforall.data.spec import Loader
from onceforall.errors import UserError


@dataclass(frozen=True, eq=False)
class Step:
    """One rank's part of a training step: indices (B,), their random numbers (B, 28) and the resolution."""

    indices: NDArray[np.int64]
    rows: Uniform
    resolution: int


@dataclass(frozen=True, eq=False)
class Schedule:
    """The steps of every epoch over `count` pictures for the loader's rank.

    `labels` (count,): where they are given, every class is drawn equally often; None: every picture once an epoch.

    A value beside `TrainBatches`, not methods of it: the DataLoader keeps the generator of its jobs, and a generator
    that keeps the owner of the DataLoader makes a cycle, in which torch waits 5 s for each worker to stop.
    """

    count: int
    resolutions: tuple[int, ...]
    _: KW_ONLY
    loader: Loader
    seed: int
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if not self.resolutions or min(self.resolutions) < 1:
            raise UserError("resolutions", f"{list(self.resolutions)} holds no sizes of at least 1 pixel")
        if self.seed < 0:
            raise UserError("seed", f"{self.seed} is negative", "give an integer from 0")

    @property
    def steps_per_epoch(self) -> int:
        return max(1, self.count // (self.loader.batch * self.loader.world))

    def steps(self, epoch: int, start: int) -> Iterator[Step]:
        """The steps start, start + 1, ... of an epoch."""
        if not 0 <= start <= self.steps_per_epoch:
            raise ValueError(f"start {start} is not within 0..{self.steps_per_epoch}")
        order = epoch_order(self.count, seed=self.seed, epoch=epoch) if self.labels is None else \
            balanced_order(self.labels, seed=self.seed, epoch=epoch)
        batch = self.loader.batch
        for step in range(start, self.steps_per_epoch):
            first = (step * self.loader.world + self.loader.rank) * batch
            yield Step(
                indices=order[np.arange(first, first + batch) % self.count],
                rows=noise(first, batch, seed=self.seed, epoch=epoch),
                resolution=step_resolution(self.resolutions, seed=self.seed, epoch=epoch, step=step),
            )


def epoch_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of `range(count)`."""
    return np.random.Generator(np.random.PCG64([seed, epoch, ORDER_STREAM])).permutation(count)


def balanced_order(labels: NDArray[np.int64], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw as many pictures as there are, each class equally often.

    A class with few pictures shows each of them several times, a class with many pictures only some of them.

    Args:
        labels: the class of each picture, (N,).
        seed: another seed gives another order.
        epoch: counted from 0.

    Returns:
        Indices of pictures, (N,), in random order. The classes' shares differ by one at most.
    """
    rng = np.random.Generator(np.random.PCG64([seed, epoch, ORDER_STREAM]))
    classes = rng.permutation(np.unique(labels))
    drawn = []
    for place, label in enumerate(classes.tolist()):
        members = np.flatnonzero(labels == label)
        share = len(labels) // len(classes) + (place < len(labels) % len(classes))
        rounds = [rng.permutation(members) for _ in range(-(-share // len(members)))]
        drawn += [np.concatenate(rounds)[:share]] if rounds else []
    return rng.permutation(np.concatenate(drawn))


def step_resolution(resolutions: Sequence[int], *, seed: int, epoch: int, step: int) -> int:
    """The resolution of one training step, the same on every rank."""
    return random.Random(f"resolution {seed} {epoch} {step}").choice(resolutions)
