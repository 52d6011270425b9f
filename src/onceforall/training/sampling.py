"""Samplers: which sub-network is drawn next, by a step's randomness."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

from onceforall.cost.population import macs_table
from onceforall.cost.predictor import Predictor
from onceforall.space import Arch, SearchSpace

Sampler = Callable[[SearchSpace, random.Random], Arch]


class _Leaning(random.Random):
    """Random numbers whose `choice` leans to small values, or to large ones, by a share that is drawn once."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng.getrandbits(64))
        self._share = self.random()

    def choice(self, seq: Any) -> Any:
        """Return the (k + 1)-th smallest of n values. k is drawn from a binomial distribution of n - 1 trials."""
        ordered = sorted(seq)
        return ordered[sum(self.random() < self._share for _ in ordered[1:])]


def spread(space: SearchSpace, rng: random.Random) -> Arch:
    """Draw a sub-network, so that small and large ones come as often as those between.

    Where every choice is drawn by itself, nearly all sub-networks have a medium cost. Here one number in [0, 1] is
    drawn for a sub-network, and all of its choices lean to small values where it is low, and to large ones where it is
    high. Over many sub-networks, every value of a choice still comes equally often.
    """
    return space.sample(_Leaning(rng))


def attentive(sampler: Sampler, predictor: Predictor, *, best: bool, candidates: int) -> Sampler:
    """Of `candidates` sub-networks of about the same MACs the one of the highest predicted accuracy (best-up), or of
    the lowest (worst-up; AttentiveNAS, Wang et al. 2021). The first that `sampler` draws says how many MACs; the others
    are the nearest to it of four times as many."""
    known = predictor.space
    table, size = macs_table(known), max(known.resolutions)

    def draw(space: SearchSpace, rng: random.Random) -> Arch:
        drawn = [sampler(space, rng) for _ in range(4 * candidates)]
        codes = np.array([known.encode(arch.at(size)) for arch in drawn])
        macs = table.of(codes)
        nearest = np.argsort(np.abs(macs - macs[0]), kind="stable")[:candidates]
        predicted = predictor.of(codes[nearest])
        chosen = nearest[np.argmax(predicted) if best else np.argmin(predicted)]
        return drawn[int(chosen)]

    return draw
