"""Content: what a weights file holds, before it is a net."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from onceforall.errors import UserError
from onceforall.weights.about import About, Kept


@dataclass(frozen=True, eq=False)
class Stored:
    """Sub-networks in their supernet's file: `text` says which, `statistics` holds arrays of each by its number."""

    text: str
    statistics: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Content:
    """What a weights file holds.

    Args:
        arrays: float32, under the file's own names and in its own layout.
        counts: batches that each batch normalisation has seen, by the name of its running mean.
        about: what this project says of the net; None in a foreign file.
        kept: as in `About`.
        stored: sub-networks that the file has beside its supernet; only the native form does.
    """

    arrays: dict[str, Tensor]
    counts: dict[str, int] = field(default_factory=dict)
    about: About | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    stored: Stored | None = None


MEAN, COUNT = "running_mean", "num_batches_tracked"  # torch's names; a count is known by its running mean's name

_COUNTED = (torch.int64, torch.int32, torch.float32, torch.float64)


def count_tensors(counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Counts as the tensors that torch keeps, by torch's names."""
    return {name.removesuffix(MEAN) + COUNT: torch.tensor(n) for name, n in counts.items()}


def count_of(tensor: Tensor, *, place: str) -> int:
    """A stored number of batches; raises UserError for anything else than a whole number."""
    if tensor.numel() != 1 or tensor.dtype not in _COUNTED or tensor.is_meta or not 0 <= tensor.item() < 2**53:
        raise UserError(place, "is not one whole number from 0")
    return int(tensor)
