"""What every strategy has to do."""

from __future__ import annotations

import math
import random

import torch

from onceforall.space import SearchSpace, search_space
from onceforall.training.strategy import Moment, Strategy

STEPS = 10


def check_strategy(strategy: Strategy, space: SearchSpace | None = None, *, teacher: bool = False) -> None:
    """Check a function from (space, randomness, moment) to the terms of a step.

    Args:
        strategy: the function, such as a strategy of `STRATEGIES` gives it.
        space: what it is tried on; by default one of small pictures.
        teacher: whether there is a teacher that terms may learn from.

    Raises:
        AssertionError: a rule does not hold; the message says which.
    """
    space = space or search_space("mobilenet_v3_large_32px", width_mult=0.25)
    targets = {"labels", "largest", *(["teacher"] if teacher else [])}
    for step in range(STEPS):
        moment, before = Moment(step, STEPS), (random.getstate(), torch.get_rng_state())
        terms = strategy(space, random.Random(step), moment)
        assert terms, "a step has at least one term"
        assert terms == strategy(space, random.Random(step), moment), "equal randomness gives equal terms"
        assert random.getstate() == before[0], "a strategy draws from its argument, not from Python's generator"
        assert torch.equal(torch.get_rng_state(), before[1]), "a strategy does not draw from torch's generator"
        seen = set()
        for term in terms:
            assert space.contains(term.arch), f"{term.arch} is in the space"
            assert term.target in targets, f"{term.target} is one of {', '.join(sorted(targets))}"
            assert math.isfinite(term.weight), "weights are finite"
            assert term.weight >= 0, "weights are not negative"
            if term.target == "largest":
                assert space.largest in seen, "the largest sub-network runs before those that learn from it"
            seen.add(term.arch)
