"""A strategy and a schedule of one's own."""

import random

from onceforall.space import SearchSpace
from onceforall.training.strategy import Moment, Term


def turns(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
    """The largest sub-network and a random one in turns."""
    return [Term(space.sample(rng) if moment.step % 2 else space.largest, "labels")]


def falling(step: int, steps: int) -> float:
    """The rate falls in a line."""
    return 1 - step / steps
