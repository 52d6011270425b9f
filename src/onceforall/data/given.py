"""Pictures from Python: torch Datasets of (picture, label), given as they are or by the name of a function."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from onceforall.data.decode import DAMAGE, Aim, Broken, cut, error_line, to_rgb
from onceforall.data.depth import USUAL
from onceforall.data.labels import positions, relabelled
from onceforall.data.orientation import turn_of
from onceforall.data.pictures import Pictures, identity_of
from onceforall.data.spec import GIVEN, DataSpec, spec_of
from onceforall.errors import UserError
from onceforall.functions import function_of

LOOKED_AT = 64  # pictures that identify a Dataset, beside all its labels
_OUTSIDE = 1 / 16  # that resampling leaves of values in [0, 1]
_SPLITS = "give (train, test) or (train, held_out, test), each a Dataset of (picture, label)"
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
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__") or isinstance(dataset, str):
            raise UserError(place, f"a {type(dataset).__name__} is no map-style Dataset", _SPLITS)
        if not len(dataset):
            raise UserError(place, "is empty")
        try:
            picture, _ = dataset[0]
        except (TypeError, ValueError):
            raise UserError(place, "its items are no pairs", "give (picture, label)") from None
        pixels = _pixels(picture)
        if isinstance(pixels, str):
            raise UserError(place, f"its picture 0 {pixels}", _FORMS)
        out = cls(dataset, torch.arange(len(dataset)), _labels(dataset, place))
        again = out.read(0)
        if isinstance(again, Broken) or not np.array_equal(pixels, again):
            raise UserError(place, "its picture 0 is another one each time", "leave random transforms out of the "
                            "Dataset: training augments by itself")
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
        """Of labels, places in the Dataset, and the pixels of some pictures."""
        found = hashlib.sha256(self.indices.numpy().tobytes())
        for index in range(0, len(self), max(1, len(self) // LOOKED_AT))[:LOOKED_AT]:
            pixels = self.read(index)
            found.update(pixels.reason.encode() if isinstance(pixels, Broken) else pixels.tobytes())
        return identity_of(self.labels, found.digest())

    def name(self, index: int) -> str:
        """Its number in the Dataset."""
        return f"picture {int(self.indices[index])}"


@dataclass(frozen=True, eq=False)
class Given:
    """The splits that were given, as `data_set` takes them, and what their labels mean."""

    splits: tuple[Pictures, ...]
    classes: tuple[str, ...]


def give(data: Any) -> DataSpec:
    """Say which pictures to use that are there in this process only, for as long as it lives.

    Args:
        data: a map-style Dataset of (picture, label); or (train, test), or (train, held_out, test). `Pictures` of one's
            own may stand for a Dataset. What is not given is carved from the training pictures.

    Returns:
        What names these pictures. Another process has to be given them again.

    Raises:
        UserError: they are none of these.
    """
    given = given_of(data, place="data")
    whole = "/".join((*(split.identity() for split in given.splits), *given.classes))
    source = f"{GIVEN}{hashlib.sha256(whole.encode()).hexdigest()[:16]}"
    _GIVEN[source] = given
    return DataSpec("python", source=source)


def asked_for(data: Any) -> DataSpec:
    """The pictures that an argument `data` names: a `DataSpec`, a text as `spec_of` takes it, a folder, or `give`'s."""
    if isinstance(data, DataSpec):
        return data
    return spec_of(str(data)) if isinstance(data, str | Path) else give(data)


_GIVEN: dict[str, Given] = {}


def found(spec: DataSpec) -> Given:
    """The pictures that `spec.source` names: those that were given, or what a function `module:name` returns.

    Raises:
        UserError: they were given to another process, or there is no such function.
    """
    place, source = "data.source", spec.source
    if source is None:
        raise UserError(place, "is missing for 'python'", "name a function without arguments, as module:name")
    if source in _GIVEN:
        return _GIVEN[source]
    if source.startswith(GIVEN):
        raise UserError("data", "the pictures are those that a program gave from Python", "give them there again, as "
                        "Run(folder, data=...), or name others: --data")
    return given_of(function_of(source, {}, place=place)(), place=source)


def given_of(data: Any, *, place: str) -> Given:
    """The splits and classes of `give`'s `data`."""
    parts = data if isinstance(data, tuple) else (data,)
    if not 1 <= len(parts) <= 3:
        raise UserError(place, f"has {len(parts)} parts", _SPLITS)
    names = ("train", "test") if len(parts) < 3 else ("train", "held_out", "test")
    splits = [part if isinstance(part, Pictures) else DatasetPictures.of(part, place=f"{place}: {name}")
              for name, part in zip(names, parts, strict=False)]
    classes = _classes(parts[0]) or tuple(map(str, range(max(int(split.labels.max()) for split in splits) + 1)))
    for i, (split, part) in enumerate(zip(splits, parts, strict=True)):
        own = _classes(part)
        if own is not None and own != classes:
            splits[i] = relabelled(split, positions(own, classes, place=f"{place}: {names[i]}"))
        elif int(split.labels.max()) >= len(classes):
            raise UserError(f"{place}: {names[i]}", f"label {int(split.labels.max())} is none of its {len(classes)} "
                            "classes", "labels start at 0")
    return Given(tuple(splits), classes)


def _classes(part: Any) -> tuple[str, ...] | None:
    """The names of its classes, as torchvision's Datasets have them."""
    part = part.dataset if isinstance(part, Subset) else part
    names = getattr(part, "classes", None)
    return None if names is None else tuple(map(str, names))


def _labels(dataset: Any, place: str) -> Tensor:
    """The labels (N,) int64: `targets`, as torchvision's Datasets have them, or those of all items."""
    if isinstance(dataset, Subset):
        return _labels(dataset.dataset, place)[torch.as_tensor(dataset.indices)]
    some = {0, len(dataset) // 2, len(dataset) - 1}
    labels = _whole(getattr(dataset, "targets", None))
    if labels is None or len(labels) != len(dataset) or any(labels[i] != _label(dataset, i, place) for i in some):
        labels = _whole([_label(dataset, i, place) for i in range(len(dataset))])
    if labels is None or int(labels.min()) < 0:
        raise UserError(place, "has labels that are no whole numbers from 0", "give (picture, label)")
    return labels


def _label(dataset: Any, index: int, place: str) -> Any:
    try:
        return dataset[index][1]
    except DAMAGE as error:
        raise UserError(place, f"its item {index} cannot be read ({error_line(error)})", "mend it, or leave it out"
                        ) from None


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
        return np.array(turn_of(picture).apply(to_rgb(picture, USUAL)))
    if not isinstance(picture, Tensor | np.ndarray):
        return f"is a {type(picture).__name__}"
    values = np.asarray(picture)
    if values.ndim == 2:
        values = values[..., None]
    elif isinstance(picture, Tensor) and values.ndim == 3:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] not in (1, 3) or not values.size:
        return f"has the shape {tuple(picture.shape)}"
    if np.issubdtype(values.dtype, np.floating):
        low, high = float(values.min()), float(values.max())
        if not (low >= -_OUTSIDE and high <= 1 + _OUTSIDE):
            return f"has values from {low:.3g} to {high:.3g}"
        values = (values.clip(0, 1) * 255).round().astype(np.uint8)
    if values.dtype != np.uint8:
        return f"has values of type {values.dtype}"
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))
