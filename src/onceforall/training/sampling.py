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
    """Randomness whose choices all lean to small values, or all to large ones."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng.getrandbits(64))
        self._share = self.random()

    def choice(self, seq: Any) -> Any:
        """The k-th smallest of n values. k is binomial, of n - 1 trials that succeed with this share."""
        ordered = sorted(seq)
        return ordered[sum(self.random() < self._share for _ in ordered[1:])]


def spread(space: SearchSpace, rng: random.Random) -> Arch:
    """A sub-network that is as probably among the cheapest or the dearest as between.

    Independent choices nearly always add up to a middling cost. Here a share, drawn evenly from [0, 1], says for all
    choices of a sub-network how far they lean to large values. Each value of a single choice stays as probable as the
    others.
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
