"""Samplers: which sub-network is drawn next, by a step's randomness."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from onceforall.cost.population import macs_table
from onceforall.cost.predictor import Predictor
from onceforall.space import Arch, SearchSpace

Sampler = Callable[[SearchSpace, random.Random], Arch]


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
