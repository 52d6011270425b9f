"""Samplers: which sub-network is drawn next, by a step's randomness."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from onceforall.cost.population import macs_table
from onceforall.cost.predictor import Predictor
from onceforall.space import Arch, Block, SearchSpace, StageSpace, search_space

Sampler = Callable[[SearchSpace, random.Random], Arch]


def uniform(space: SearchSpace, rng: random.Random) -> Arch:
    """Every choice drawn evenly (Cai et al. 2020, section 3.3)."""
    return space.sample(rng)


def compound(space: SearchSpace, rng: random.Random) -> Arch:
    """One expand ratio a stage, tied to its depth: the whole space's smallest depth goes with its smallest ratio, and
    so on, or with the next larger one that `space` has (CompOFA, Sahni et al. 2021). Kernels are drawn evenly."""
    full = search_space(space.name)
    stages = []
    for stage, whole in zip(space.stages, full.stages, strict=True):
        depth = rng.choice(stage.depth)
        tied = _tied(stage, whole, depth)
        stages.append(tuple(Block(tuple((n, tied[n] if n in tied else rng.choice(v)) for n, v in stage.elastic))
                            for _ in range(depth)))
    return Arch(rng.choice(space.resolutions), tuple(stages), tuple(rng.choice(values) for values in space.widths))


def _tied(stage: StageSpace, whole: StageSpace, depth: int) -> dict[str, float]:
    """The expand ratio that goes with the depth; a stage with one depth has none."""
    if len(whole.depth) == 1:
        return {}
    ratio = dict(zip(whole.depth, whole.choices["expand"], strict=True))[depth]
    own = stage.choices["expand"]
    return {"expand": next((e for e in own if e >= ratio), own[-1])}


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
