"""The authors' accuracy predictor: a perceptron on 20 slots' one-hot kernel, then expand ratio, then resolution."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from onceforall.cost.features import Features
from onceforall.cost.predictor import Mlp
from onceforall.errors import UserError
from onceforall.space import SearchSpace
from onceforall.weights.torch_file import loaded

_SIZES = range(112, 225, 16)  # the resolutions that their encoding has a place for
_SLOTS, _INPUTS = 20, 128


def read(path: Path, space: SearchSpace | None) -> Mlp:
    """The perceptron of a file, of `space`, which the file does not say, at those of its resolutions that it knows.

    Raises UserError for another file, and for a space that it cannot be of.
    """
    values = loaded(path)
    state = values.get("state_dict", values)
    weights = [np.asarray(v, np.float32) for v in state.values() if getattr(v, "ndim", 0) == 2]
    biases = [np.asarray(v, np.float32) for v in state.values() if getattr(v, "ndim", 0) == 1]
    if not weights or len(weights) != len(biases) or weights[0].shape[1] != _INPUTS:
        raise UserError(str(path), "is not the authors' accuracy predictor of a MobileNetV3 space",
                        "its first layer has 128 inputs")
    if space is None:
        raise UserError(str(path), "does not say of which search space it is", "name the space")
    sizes = [size for size in space.resolutions if size in _SIZES]
    if not sizes or space.slots != _SLOTS:
        raise UserError(str(path), f"does not fit {space.name}", "it knows 20 slots and 112, 128, .., 224 pixels")
    space = space.restrict(resolutions=sizes)
    first = np.roll(weights[0], len(_SIZES), axis=1)  # our matrix begins with the resolution
    return Mlp(_one_hot(space), ((first[None], biases[0][None]),
                                 *((w[None], b[None]) for w, b in zip(weights[1:], biases[1:], strict=True))))


def _one_hot(space: SearchSpace) -> Features:
    """The authors' columns: one-hot kernels of 20 slots, then expand ratios of 20 slots, then eight resolutions."""
    full = {"kernel": (3, 5, 7), "expand": (3, 4, 6)}
    stage = space.stages[0]
    blocks = np.zeros((_SLOTS + 1, 1 + len(list(product(*(v for _, v in stage.elastic)))), 120))
    for slot in range(_SLOTS):
        for number, picks in enumerate(product(*(values for _, values in stage.elastic))):
            for (name, _), value in zip(stage.elastic, picks, strict=True):
                place = 3 * slot + full[name].index(int(value))
                blocks[slot, 1 + number, place + (60 if name == "expand" else 0)] = 1
    sizes = np.array([[float(size == known) for known in _SIZES] for size in space.resolutions])
    return Features(space, sizes, blocks, np.zeros(0, np.intp))
