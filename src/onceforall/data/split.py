"""Splitting a labelled list class by class, the same way every time."""

import logging

import numpy as np
from torch import Tensor

from onceforall.data.pictures import Pictures

# Part of the data sets' definition: another seed would move pictures between training and validation.
SPLIT_SEED = 2020
MAX_NAMED = 10

logger = logging.getLogger(__name__)


def split_by_class(labels: Tensor, portion: float, *, what: str) -> tuple[list[int], list[int]]:
    """Indices, ascending, of a `portion` of every class and of the rest, drawn with a fixed seed.

    A class too small to split goes to the first part as a whole, with a warning that calls the rest `what`.
    """
    first: list[int] = []
    rest: list[int] = []
    unsplit: list[int] = []
    values = labels.numpy()
    for label in np.unique(values).tolist():
        members = np.flatnonzero(values == label)
        rng = np.random.Generator(np.random.PCG64([SPLIT_SEED, label]))
        order = rng.permutation(members).tolist()
        cut = max(1, round(len(order) * portion))
        if portion < 1 and cut == len(order):
            unsplit.append(label)
        first += order[:cut]
        rest += order[cut:]
    if unsplit:
        named = ", ".join(map(str, unsplit[:MAX_NAMED])) + (", ..." if len(unsplit) > MAX_NAMED else "")
        logger.warning(
            "%d classes are too small to give any picture to %s and stay whole: labels %s",
            len(unsplit), what, named,
        )
    return sorted(first), sorted(rest)


def carve(pictures: Pictures, portion: float, *, what: str) -> tuple[Pictures, Pictures]:
    """`pictures` in two: a `portion` of every class, and the rest, which warnings call `what`."""
    first, rest = split_by_class(pictures.labels, portion, what=what)
    return pictures.subset(first), pictures.subset(rest)
