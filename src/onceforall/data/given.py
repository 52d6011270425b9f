"""Pictures from Python: torch Datasets of (picture, label), given as they are or by the name of a function."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from onceforall.data.dataset_pictures import SPLITS, DatasetPictures
from onceforall.data.labels import listed, relabelled
from onceforall.data.pictures import Pictures
from onceforall.data.spec import GIVEN, DataSpec, spec_of
from onceforall.errors import UserError
from onceforall.functions import function_of


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


def given_now(spec: DataSpec) -> object:
    """The pictures that were given last under this name; None for any other name."""
    return _GIVEN.get(spec.source or "")


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
        raise UserError(place, f"has {len(parts)} parts", SPLITS)
    names = ("train", "test") if len(parts) < 3 else ("train", "held_out", "test")
    places = [f"{place}: {name}" for name, _ in zip(names, parts, strict=False)]
    splits = [_checked(part, where) if isinstance(part, Pictures) else DatasetPictures.of(part, place=where)
              for where, part in zip(places, parts, strict=True)]
    most = max(int(split.labels.max()) for split in splits)
    classes = _classes(parts[0], places[0]) or tuple(map(str, range(most + 1)))
    for i, (split, part) in enumerate(zip(splits, parts, strict=True)):
        own = _classes(part, places[i])
        if own is not None and own != classes:
            if unknown := [name for name in own if name not in classes]:
                raise UserError(places[i], f"has the classes {listed(unknown)}, which train lacks",
                                f"it has {listed(classes)}: name the classes alike")
            splits[i] = relabelled(split, [classes.index(name) for name in own])
        elif int(split.labels.max()) >= len(classes):
            raise UserError(places[i], f"label {int(split.labels.max())} is none of its {len(classes)} classes",
                            "labels start at 0")
    return Given(tuple(splits), classes)


def _checked(pictures: Pictures, place: str) -> Pictures:
    """Pictures of the user's own class; raises UserError for labels that are none."""
    labels = getattr(pictures, "labels", None)
    if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.dtype != torch.int64:
        raise UserError(place, "its labels are no tensor (N,) int64", "give a label from 0 for each picture")
    if not len(labels):
        raise UserError(place, "is empty")
    return pictures


def _classes(part: Any, place: str) -> tuple[str, ...] | None:
    """The names of a Dataset's classes, as torchvision has them. Datasets that are joined must have the same ones."""
    while isinstance(part, Subset):
        part = part.dataset
    if isinstance(part, ConcatDataset):
        names = {_classes(one, place) for one in part.datasets}
        if len(names) > 1:
            raise UserError(place, "joins Datasets with other classes, or with another order of them",
                            "give them the same classes")
        return names.pop()
    found = getattr(part, "classes", None)
    return tuple(map(str, found)) if isinstance(found, list | tuple) else None
