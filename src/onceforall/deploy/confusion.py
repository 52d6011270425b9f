"""How well a network tells each class, and what it takes its pictures for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ClassRow:
    """One class on the test pictures.

    `images`: its pictures. `top1`: the share of them in [0, 1] that is told right. `taken_for`: how many wrong answers
    name which other class, the most frequent first.
    """

    name: str
    images: int
    top1: float
    taken_for: dict[str, int]


def by_class(confusion: Tensor, classes: Sequence[str]) -> list[ClassRow]:
    """The rows of a confusion matrix in words.

    Args:
        confusion: counts (K, K); row i are the pictures of class i, column j those that are taken for class j.
        classes: the names of the outputs. An output without a name goes by its number.

    Returns:
        A row for each class that has pictures, in the order of the outputs.
    """
    names, rows = names_of(len(confusion), classes), []
    for label, counts in enumerate(confusion.tolist()):
        images = sum(counts)
        if images:
            wrong = sorted((-count, answer) for answer, count in enumerate(counts) if count and answer != label)
            rows.append(ClassRow(names[label], images, counts[label] / images,
                                 {names[answer]: -count for count, answer in wrong}))
    return rows


def names_of(outputs: int, classes: Sequence[str]) -> list[str]:
    """A name for each output: that of its class, else its number."""
    return [classes[i] if i < len(classes) else str(i) for i in range(outputs)]
