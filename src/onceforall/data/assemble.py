"""From splits as they were read to a data set, with what was found of it."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from onceforall.data.dataset import DataSet, colour_statistics
from onceforall.data.depth import USUAL, Depth
from onceforall.data.found import Found, Origin, Size, Split
from onceforall.data.pictures import Pictures
from onceforall.data.spec import DataSpec
from onceforall.data.split import SPLIT_SEED, carve

TRAIN_SHARE = 0.8  # of a data set that comes without a test split
MEASURED = 50  # pictures of a split whose size is looked at


def data_set(
    spec: DataSpec, splits: Sequence[Pictures], classes: tuple[str, ...], origin: Origin, *, depth: Depth = USUAL
) -> DataSet:
    """A data set of the splits that were read.

    Args:
        spec: what it was loaded by.
        splits: the training pictures, then those held out, if they are given, then the test pictures, if they are
            given. What is not given is carved from the training pictures.
        classes: what each label means.
        origin: where the splits lie, and what else reading found.
        depth: of the pixels in picture files.

    Returns:
        Its three splits, with what was found.
    """
    train, *given = splits
    if not given:
        train, carved = carve(train, TRAIN_SHARE, what="the test split", classes=classes)
        given = [carved]
    test = given[-1]
    # measured before holding out, so that train_portion does not change what the network sees
    mean, std = (spec.mean, spec.std) if spec.mean and spec.std else colour_statistics(train if len(train) else test)
    if len(given) == 2:
        held_out = given[0]
    else:
        train, held_out = carve(train, spec.train_portion, what="the held-out split", classes=classes)
    found = _found(spec, (train, held_out, test), classes, origin)
    return DataSet(train, held_out, test, classes, mean, std, spec, found, depth, framing=spec.framing)


def _found(spec: DataSpec, splits: Sequence[Pictures], classes: tuple[str, ...], origin: Origin) -> Found:
    """What was found, from the splits as they are used: training, held-out and test pictures."""
    if not origin.sizes:
        origin = replace(origin, sizes=sizes_of(splits))
    held_out = origin.held_out or f"{100 - 100 * spec.train_portion:.3g} % {_carved(origin)}"
    test = origin.test or f"{100 - 100 * TRAIN_SHARE:.3g} % {_carved(origin)}; no test pictures come with it"
    if spec.train_portion < 1 and not len(splits[1]) and len(splits[0]):
        note = "no pictures are held out, so that the test pictures choose among sub-networks, and score them too high"
        origin = replace(origin, notes=(*origin.notes, note))
    rows = zip(("training", "held-out", "test"), (origin.train, held_out, test), splits, strict=True)
    return Found(origin, classes, tuple(
        Split(name, source, tuple(torch.bincount(pictures.labels, minlength=len(classes)).tolist()))
        for name, source, pictures in rows if len(pictures)))


def _carved(origin: Origin) -> str:
    return f"of {origin.train or 'it'}, class by class, seed {SPLIT_SEED}"


def sizes_of(splits: Sequence[Pictures]) -> tuple[Size, ...]:
    """(width, height) of some pictures of each split."""
    sizes: list[Size] = []
    for pictures in splits:
        some = range(0, len(pictures), max(1, len(pictures) // MEASURED))[:MEASURED]
        sizes += filter(None, map(pictures.size, some))
    return tuple(sizes)
