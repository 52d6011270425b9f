"""Predictor files: our own (safetensors, the header says of which space), and the authors' published perceptron."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from onceforall.cost.features import Features
from onceforall.cost.population import CostTable
from onceforall.cost.predictor import Mlp, Predictor
from onceforall.errors import UserError
from onceforall.files import check_no_pointer, parse_json_file, replacing, unreadable
from onceforall.space import SearchSpace, read_space

_ABOUT = "onceforall.predictor"
_AUTHORS_SIZES = range(112, 225, 16)  # the resolutions that their encoding has a place for
_AUTHORS_SLOTS, _AUTHORS_INPUTS = 20, 128


def save(predictor: Predictor, path: Path, *, about: Mapping[str, Any]) -> None:
    """Write a predictor of ours; `about`: JSON values to keep beside it, such as its errors."""
    values = {"space": predictor.space.to_dict(), **about}
    if isinstance(predictor, CostTable):
        values["kind"] = "table"
        arrays: dict[str, NDArray[Any]] = {"rest": predictor.rest, "blocks": predictor.blocks}
    else:
        assert isinstance(predictor, Mlp)
        values |= {"kind": "mlp", "scale": predictor.scale, "base": predictor.base}
        arrays = {"sizes": predictor.columns.sizes, "blocks": predictor.columns.blocks}
        for i, (weight, bias) in enumerate(predictor.layers):
            arrays |= {f"{i}.weight": weight, f"{i}.bias": bias}
    with replacing(path, causes=(OSError, SafetensorError)) as partial:
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, partial, {_ABOUT: json.dumps(values)})


def load(path: Path, *, space: SearchSpace | None = None) -> Predictor:
    """A predictor of ours; or the authors' checkpoint, of `space`, which its file does not say, at those of its
    resolutions that they have a place for.

    Raises UserError for a file that is neither, and for a space that the predictor is not of.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise unreadable(path, error, missing="`ofa predictor fit` writes one") from None
    check_no_pointer(path)
    if start[8:] != b"{":
        return _answering(path, lambda: _authors(path, space))
    about, arrays = _read(path)
    predictor = _answering(path, lambda: _built(read_space(about["space"]), about, arrays))
    found = predictor.space
    if space is not None and not found.alike(space):
        raise UserError(str(path), f"predicts for {found.name}, not for {space.name}", "fit one on rows of this space")
    return predictor


def _answering(path: Path, build: Callable[[], Predictor]) -> Predictor:
    """The predictor, once it has told the accuracy of three sub-networks; raises UserError where it cannot."""
    try:
        predictor = build()
        space = predictor.space
        told = predictor.of(np.array([space.encode(arch) for arch in (space.smallest, space.middle, space.largest)]))
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(path), f"is a damaged predictor ({error})", "fit it again") from None
    if told.shape != (3,) or not np.isfinite(told).all():
        raise UserError(str(path), f"is a damaged predictor: it tells {told.tolist()}", "fit it again")
    return predictor


def _built(found: SearchSpace, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Predictor:
    if about["kind"] == "table":
        return CostTable(found, arrays["rest"], arrays["blocks"])
    columns = Features(found, arrays["sizes"], arrays["blocks"], np.zeros(0, np.intp))
    layers = tuple((arrays[f"{i}.weight"], arrays[f"{i}.bias"]) for i in range((len(arrays) - 2) // 2))
    return Mlp(columns, layers, about["scale"], about["base"])


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        with safe_open(path, "numpy") as file:
            about = parse_json_file((file.metadata() or {}).get(_ABOUT, "null"), str(path))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(path), f"is not a readable predictor ({error})",
                        "`ofa predictor fit` writes one") from None
    if not isinstance(about, dict) or about.get("kind") not in ("table", "mlp"):
        raise UserError(str(path), "is no accuracy predictor", "`ofa predictor fit` writes one")
    return about, arrays


def _authors(path: Path, space: SearchSpace | None) -> Mlp:
    """Their perceptron on 20 slots' one-hot kernel, then expand ratio, then resolution."""
    from onceforall.interop.mit.weights import loaded  # torch's format: our own files do without torch
    values = loaded(path)
    state = values.get("state_dict", values)
    weights = [np.asarray(v, np.float32) for v in state.values() if getattr(v, "ndim", 0) == 2]
    biases = [np.asarray(v, np.float32) for v in state.values() if getattr(v, "ndim", 0) == 1]
    if not weights or len(weights) != len(biases) or weights[0].shape[1] != _AUTHORS_INPUTS:
        raise UserError(str(path), "is not the authors' accuracy predictor of a MobileNetV3 space",
                        "its first layer has 128 inputs")
    if space is None:
        raise UserError(str(path), "does not say of which search space it is", "name the space")
    sizes = [size for size in space.resolutions if size in _AUTHORS_SIZES]
    if not sizes or space.slots != _AUTHORS_SLOTS:
        raise UserError(str(path), f"does not fit {space.name}", "it knows 20 slots and 112, 128, .., 224 pixels")
    space = space.restrict(resolutions=sizes)
    first = np.roll(weights[0], len(_AUTHORS_SIZES), axis=1)  # our matrix begins with the resolution
    return Mlp(_one_hot(space), ((first[None], biases[0][None]),
                                 *((w[None], b[None]) for w, b in zip(weights[1:], biases[1:], strict=True))))


def _one_hot(space: SearchSpace) -> Features:
    """Their columns: 20 slots' kernel, 20 slots' expand ratio, a place each; eight resolutions."""
    full = {"kernel": (3, 5, 7), "expand": (3, 4, 6)}
    stage = space.stages[0]
    blocks = np.zeros((_AUTHORS_SLOTS + 1, 1 + len(list(product(*(v for _, v in stage.elastic)))), 120))
    for slot in range(_AUTHORS_SLOTS):
        for number, picks in enumerate(product(*(values for _, values in stage.elastic))):
            for (name, _), value in zip(stage.elastic, picks, strict=True):
                place = 3 * slot + full[name].index(int(value))
                blocks[slot, 1 + number, place + (60 if name == "expand" else 0)] = 1
    sizes = np.array([[float(size == known) for known in _AUTHORS_SIZES] for size in space.resolutions])
    return Features(space, sizes, blocks, np.zeros(0, np.intp))
