"""Predictor files: safetensors, the header says of which space; files of another form are read at the border."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialized

from onceforall.cost.features import Features
from onceforall.cost.population import CostTable
from onceforall.cost.predictor import Mlp, Predictor
from onceforall.errors import UserError, within
from onceforall.files import parse_json, replacing, start_of
from onceforall.space import SearchSpace, read_space

_ABOUT = "onceforall.predictor"
_FOREIGN = "onceforall.interop.mit.predictor"  # reads what is not safetensors


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
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as partial:
        partial.write_bytes(serialized(whole, {_ABOUT: json.dumps(values)}))


def load(path: Path, *, space: SearchSpace | None = None) -> Predictor:
    """Read a predictor of ours, or a foreign one, whose file does not say that it is of `space`.

    Raises UserError for another file, and for a predictor of another space.
    """
    if start_of(path, 9, missing="`ofa predictor fit` writes one")[8:] != b"{":
        return _answering(path, lambda: cast(Predictor, import_module(_FOREIGN).read(path, space)))
    about, arrays = _read(path)
    predictor = _answering(path, lambda: _built(read_space(about["space"]), about, arrays))
    found = predictor.space
    if space is not None and not found.alike(space):
        raise UserError(str(path), f"predicts for {found.name}, not for {space.name}", "fit one on rows of this space")
    return predictor


def _answering(path: Path, build: Callable[[], Predictor]) -> Predictor:
    """Build a predictor and let it predict three sub-networks; raises UserError where it cannot."""
    try:
        predictor = build()
        space = predictor.space
        told = predictor.of(np.array([space.encode(arch) for arch in (space.smallest, space.middle, space.largest)]))
    except UserError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError, RuntimeError) as error:
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
            with within(str(path)):
                about = parse_json((file.metadata() or {}).get(_ABOUT, "null"), _ABOUT)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except UserError:
        raise
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise UserError(str(path), f"is not a readable predictor ({error})",
                        "`ofa predictor fit` writes one") from None
    if not isinstance(about, dict) or about.get("kind") not in ("table", "mlp"):
        raise UserError(str(path), "is no accuracy predictor", "`ofa predictor fit` writes one")
    return about, arrays
