"""Splitting a labelled list class by class, the same way every time."""

import logging
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from onceforall.data.pictures import Pictures

# Part of the data sets' definition: another seed would move pictures between training and validation.
SPLIT_SEED = 2020
MAX_NAMED = 10

logger = logging.getLogger(__name__)


def split_by_class(
    labels: Tensor, portion: float, *, what: str, classes: Sequence[str] | None = None
) -> tuple[list[int], list[int]]:
    """Split pictures class by class, drawn with a fixed seed.

    Args:
        labels: (N,) int64.
        portion: the share of each class in the first part, in (0, 1].
        what: what the warning calls the rest.
        classes: the classes' names, for the warning; their labels by default.

    Returns:
        Ascending indices of the first part and of the rest. Below a portion of 1 the rest has at least one picture
        of each class, but for a class with a single picture, which goes to the first part with a warning.
    """
    first: list[int] = []
    rest: list[int] = []
    single: list[str] = []
    values = labels.numpy()
    for label in np.unique(values).tolist():
        members = np.flatnonzero(values == label)
        rng = np.random.Generator(np.random.PCG64([SPLIT_SEED, label]))
        order = rng.permutation(members).tolist()
        cut = max(1, round(len(order) * portion))
        if portion < 1 and cut == len(order):
            cut = max(1, len(order) - 1)
            if len(order) == 1:
                single.append(str(label) if classes is None else classes[label])
        first += order[:cut]
        rest += order[cut:]
    if single:
        named = ", ".join(single[:MAX_NAMED]) + (", ..." if len(single) > MAX_NAMED else "")
        logger.warning("%s has no picture of %d classes that have a single one to train on: %s", what, len(single),
                       named)
    return sorted(first), sorted(rest)


def carve(
    pictures: Pictures, portion: float, *, what: str, classes: Sequence[str] | None = None
) -> tuple[Pictures, Pictures]:
    """`pictures` in two: a `portion` of every class, and the rest; see `split_by_class`."""
    first, rest = split_by_class(pictures.labels, portion, what=what, classes=classes)
    return pictures.subset(first), pictures.subset(rest)
