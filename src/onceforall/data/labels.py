"""Labels by the names of classes: pictures get the labels that a network knows their classes by."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from onceforall.data.depth import Depth
from onceforall.data.pictures import Pictures
from onceforall.errors import UserError, printable

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """What a network knows from its training of how pictures are read.

    `classes`: the names of its outputs in their order, which labels are given by; None: the data set's own classes.
    `depth`: of the pixels in files; None: as the files themselves say.
    """

    classes: tuple[str, ...] | None = None
    depth: Depth | None = None


NOTHING = Known()
_MAX_NAMED = 8
AnyPictures = TypeVar("AnyPictures", bound=Pictures)


def positions(found: Sequence[str], known: Sequence[str], *, place: str) -> tuple[int, ...]:
    """Find the classes of a data set among those that a network knows, by name.

    No folder can have the name `T-shirt/top`: `T-shirt_top` means the same class.

    Args:
        found: the names of the data set's classes.
        known: the names of the network's outputs.
        place: what an error names.

    Returns:
        Of each class of the data set its place in `known`.

    Raises:
        UserError: the network does not know a class. The message lists the differences on both sides.
    """
    places = {_folder_name(name): i for i, name in enumerate(known)}
    unknown = [name for name in found if _folder_name(name) not in places]
    if unknown:
        there = {_folder_name(name) for name in found}
        others = [name for name in known if _folder_name(name) not in there]
        remedy = f"it also knows {listed(others)}; name the classes as it does" if others else "leave them out"
        raise UserError(place, f"the network does not know {listed(unknown)}", f"{remedy}, or train on these")
    return tuple(places[_folder_name(name)] for name in found)


def same_classes(found: Sequence[str], known: Sequence[str]) -> bool:
    """Whether two lists hold the names of the same classes, in whatever order."""
    return sorted(map(_folder_name, found)) == sorted(map(_folder_name, known))


def warn_of_positions(source: str, classes: Sequence[str]) -> None:
    """Say that the outputs of a network that does not name its classes are taken for these, in their order."""
    _log.warning("%s does not name its classes: its outputs are taken to mean, in this order, %s", source,
                 listed(classes))


def relabelled(pictures: AnyPictures, places: Sequence[int]) -> AnyPictures:
    """The pictures with label `places[i]` instead of i."""
    return pictures.labelled(torch.tensor(places, dtype=torch.int64)[pictures.labels])


def listed(names: Sequence[str]) -> str:
    """Names for a message on one line: the first few, and how many there are."""
    more = f", ... ({len(names):,} classes)" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(printable, names[:_MAX_NAMED])) + more


def absent(pictures: Pictures, classes: Sequence[str]) -> list[str]:
    """The names of the classes that none of the pictures is of."""
    there = set(pictures.labels.tolist())
    return [name for label, name in enumerate(classes) if label not in there]


def _folder_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).replace("/", "_")
