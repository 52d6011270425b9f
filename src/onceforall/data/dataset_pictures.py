"""Pictures of a torch Dataset, whose items are (picture, label)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from onceforall.data.decode import DAMAGE, Aim, Broken, cut, error_line, to_rgb
from onceforall.data.depth import USUAL, deep_type
from onceforall.data.orientation import turn_of
from onceforall.data.pictures import Pictures, identity_of
from onceforall.errors import UserError

LOOKED_AT = 1000  # pictures that identify a Dataset, beside all its labels
MAX_LABEL = 999_999
_TWICE = 10  # pictures that are read twice: a random flip shows in one of two
_ASKED = 20  # items whose label is compared with `targets`, and as many classes
SPLITS = "give (train, test) or (train, held_out, test), each a Dataset of (picture, label)"
_OUTSIDE = 1 / 16  # that resampling leaves of values in [0, 1]
_FORMS = "give a PIL image, an array (H, W, 3) or a tensor (3, H, W), with uint8 or with floats in [0, 1]"


@dataclass(frozen=True, eq=False)
class DatasetPictures(Pictures):
    """Pictures of a map-style Dataset, at `indices` of it, with labels (N,) int64."""

    dataset: Any
    indices: Tensor
    labels: Tensor

    @classmethod
    def of(cls, dataset: Any, *, place: str) -> DatasetPictures:
        """All pictures of a Dataset.

        Raises:
            UserError: its items are no pairs of a picture and a label, or a picture is another one each time.
        """
        base, indices = _flat(dataset, place)
        if not len(indices):
            raise UserError(place, "is empty")
        item = _item(base, int(indices[0]), place)
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise UserError(place, f"its items are no pairs ({type(item).__name__})", "give (picture, label)")
        pixels = _pixels(item[0])
        if isinstance(pixels, str):
            raise UserError(place, f"its picture 0 {pixels}", _FORMS)
        out = cls(base, indices, _labels(base, indices, place))
        for index in range(0, len(out), max(1, len(out) // _TWICE))[:_TWICE]:
            one, again = out.read(index), out.read(index)
            if not isinstance(one, Broken) and not isinstance(again, Broken) and not np.array_equal(one, again):
                raise UserError(place, f"its picture {index} is another one each time", "leave random transforms out "
                                "of the Dataset: training augments by itself")
        return out

    def read(self, index: int, aim: Aim | None = None) -> NDArray[np.uint8] | Broken:
        """As `Pictures.read`."""
        try:
            pixels = _pixels(self.dataset[int(self.indices[index])][0])
        except DAMAGE as error:
            pixels = error_line(error)
        return Broken(self.name(index), pixels) if isinstance(pixels, str) else cut(pixels, aim)

    def subset(self, indices: Sequence[int]) -> DatasetPictures:
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, indices=self.indices[chosen], labels=self.labels[chosen])

    def labelled(self, labels: Tensor) -> DatasetPictures:
        """The same pictures with other labels."""
        return replace(self, labels=labels)

    def identity(self) -> str:
        """A digest of the labels, the places in the Dataset, and the pixels of some pictures."""
        found = hashlib.sha256(self.indices.numpy().tobytes())
        for index in range(0, len(self), max(1, len(self) // LOOKED_AT))[:LOOKED_AT]:
            pixels = self.read(index)
            found.update(pixels.reason.encode() if isinstance(pixels, Broken) else pixels.tobytes())
        return identity_of(self.labels, found.digest())

    def name(self, index: int) -> str:
        """Its number in the Dataset."""
        return f"picture {int(self.indices[index])}"


def _flat(dataset: Any, place: str) -> tuple[Any, Tensor]:
    """The Dataset inside any Subsets, and the indices that these leave of it."""
    try:
        indices = torch.arange(len(dataset))
        mapped = hasattr(dataset, "__getitem__") and not isinstance(dataset, str | dict)
    except TypeError:
        mapped = False
    if not mapped:
        hint = "; or name a function, as module:name" if callable(dataset) else ""
        raise UserError(place, f"{type(dataset).__name__} is no map-style Dataset", SPLITS + hint)
    if isinstance(dataset, list | tuple) and len(dataset) and hasattr(dataset[0], "__getitem__") \
            and not isinstance(dataset[0], tuple | list):
        raise UserError(place, f"is a {type(dataset).__name__} of Datasets", "give them as a tuple: (train, test)")
    while isinstance(dataset, Subset):
        indices = torch.as_tensor(dataset.indices)[indices]
        dataset = dataset.dataset
    return dataset, indices


def _labels(dataset: Any, indices: Tensor, place: str) -> Tensor:
    """The labels (N,) int64: `targets`, as torchvision's Datasets have them, or those of the items themselves."""
    known = None if getattr(dataset, "target_transform", None) else _whole(getattr(dataset, "targets", None))
    if known is not None and len(known) == len(dataset):
        labels = known[indices]
        first = [int((labels == label).nonzero()[0]) for label in torch.unique(labels)[:_ASKED]]
        spread = range(0, len(labels), max(1, len(labels) // _ASKED))
        if all(_says(dataset, int(indices[i]), int(labels[i])) for i in {*first, *spread}):
            return _allowed(labels, place)
    return _allowed(_whole([_item(dataset, i, place)[1] for i in indices.tolist()]), place)


def _says(dataset: Any, index: int, label: int) -> bool:
    """Whether an item has that label, as far as it can be read."""
    try:
        return bool(dataset[index][1] == label)
    except DAMAGE:
        return True


def _allowed(labels: Tensor | None, place: str) -> Tensor:
    if labels is None or int(labels.min()) < 0 or int(labels.max()) > MAX_LABEL:
        raise UserError(place, f"has labels that are no whole numbers from 0 to {MAX_LABEL:,}", "give (picture, label)")
    return labels


def _item(dataset: Any, index: int, place: str) -> Any:
    try:
        return dataset[index]
    except DAMAGE as error:
        raise UserError(place, f"its item {index} cannot be read ({type(error).__name__}: {error_line(error)})",
                        "mend it, or leave it out") from None


def _whole(values: Any) -> Tensor | None:
    """Values as (N,) int64; None where they are no whole numbers."""
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return None
    whole = found.ndim == 1 and not found.is_floating_point() and found.dtype != torch.bool
    return found.to(torch.int64) if whole else None


def _pixels(picture: Any) -> NDArray[np.uint8] | str:
    """A picture as (H, W, 3) uint8, upright; or why it is none."""
    if isinstance(picture, Image.Image):
        if deep_type(picture) is not None:
            return f"is of the mode {picture.mode}, with more than 8 bits"
        return np.array(turn_of(picture).apply(to_rgb(picture, USUAL)))
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu()
        picture = (picture.float() if picture.is_floating_point() else picture).numpy()
        picture = picture.transpose(1, 2, 0) if picture.ndim == 3 else picture
    if not isinstance(picture, np.ndarray):
        return f"is of the type {type(picture).__name__}"
    values = picture[..., None] if picture.ndim == 2 else picture
    if values.ndim != 3 or values.shape[2] not in (1, 3) or not values.size:
        return f"has the shape {tuple(picture.shape)} as an array"
    return _in_eight_bits(values)


def _in_eight_bits(values: NDArray[Any]) -> NDArray[np.uint8] | str:
    """Values (H, W, 1 or 3) as (H, W, 3) uint8; or why they are none."""
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= -_OUTSIDE and high <= 1 + _OUTSIDE):
            return f"has values from {low:.3g} to {high:.3g}"
        values = (values.clip(0, 1) * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        return f"has values of type {values.dtype}"
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
