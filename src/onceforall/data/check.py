"""A look at every picture of a data set: broken files, and pictures that are in two splits or of two classes."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np

from onceforall.data.dataset import DataSet
from onceforall.data.decode import Broken
from onceforall.data.pictures import Pictures
from onceforall.functions import Listener, tell

MAX_THREADS = 8
CHUNK = 1000  # pictures between two looks at how far it is



@dataclass(frozen=True)
class Twice:
    """Pictures of the second split that the first one holds too, pixel by pixel: how many, and a pair of them."""

    splits: tuple[str, str]
    count: int
    example: tuple[str, str]


@dataclass(frozen=True)
class Disputed:
    """Pictures that are of another class than an equal picture before them: how many, and a pair of them."""

    count: int
    example: tuple[str, str]


@dataclass(frozen=True)
class Checked:
    """What a look at every picture brought."""

    broken: tuple[Broken, ...]
    twice: tuple[Twice, ...]
    disputed: Disputed | None = None


def checked(data: DataSet, *, listener: Listener | None = None) -> Checked:
    """Decode every picture of a data set.

    Args:
        data: the data set.
        listener: hears how far it is, as records {"kind": "check", "done": pictures, "of": pictures}.

    Returns:
        The files that cannot be read, the pictures that two splits share, and those that are of two classes. Pictures
        are equal where their size and every pixel are.
    """
    splits = {"training": data.train, "held-out": data.held_out, "test": data.test}
    names: dict[str, dict[bytes, str]] = {}
    broken: list[Broken] = []
    twice: dict[str, list[tuple[bytes, str]]] = {}
    classes: dict[bytes, tuple[int, str]] = {}
    disputed: list[tuple[str, str]] = []
    done, of = 0, sum(map(len, splits.values()))
    for split, pictures in splits.items():
        twice[split] = []
        for (found, name), label in zip(_digests(pictures), pictures.labels.tolist(), strict=True):
            done += 1
            if done % CHUNK == 0 or done == of:
                tell(listener, "check", done=done, of=of)
            if isinstance(found, Broken):
                broken.append(found)
            else:
                twice[split].append((found, name))
                other, first = classes.setdefault(found, (label, name))
                if other != label:
                    disputed.append((first, name))
        names[split] = dict(reversed(twice[split]))
    shared = tuple(_shared(one, other, names[one], twice[other]) for one, other in combinations(splits, 2)
                   if any(digest in names[one] for digest, _ in twice[other]))
    return Checked(tuple(broken), shared, Disputed(len(disputed), disputed[0]) if disputed else None)


def _shared(one: str, other: str, first: Mapping[bytes, str], second: list[tuple[bytes, str]]) -> Twice:
    pairs = [(first[digest], name) for digest, name in second if digest in first]
    return Twice((one, other), len(pairs), pairs[0])


def _digests(pictures: Pictures) -> Iterator[tuple[bytes | Broken, str]]:
    """Each picture's digest, or why it cannot be read, and its name."""
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(pictures), CHUNK):  # so that few are under way
            part = range(start, min(start + CHUNK, len(pictures)))
            yield from zip(pool.map(partial(_digest, pictures), part), map(pictures.name, part), strict=True)


def _digest(pictures: Pictures, index: int) -> bytes | Broken:
    pixels = pictures.read(index)
    if isinstance(pixels, Broken):
        return pixels
    found = hashlib.sha256(repr(pixels.shape).encode())
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()[:16]
