"""A search space of two stages: steps, scores and files of its networks take a third of the time."""

from __future__ import annotations

from dataclasses import replace

from onceforall.space import SearchSpace, search_space


def few_blocks(width_mult: float = 0.15) -> SearchSpace:
    """The first stage of `mobilenet_v3_large_32px`, and its last, of the other kind: hswish and SE.

    For CATALOG, under its name.
    """
    whole = search_space("mobilenet_v3_large_32px", width_mult=width_mult)
    return replace(whole, name=f"few_blocks?width_mult={width_mult}", stages=(whole.stages[0], whole.stages[-1]))
