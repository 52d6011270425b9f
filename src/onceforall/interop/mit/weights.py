"""Checkpoints of the authors' code: a state dict, alone or under `state_dict`, as torch saves it. Never unpickled
beyond tensors, numbers and their containers."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceforall.errors import UserError
from onceforall.interop.infer import Foreign
from onceforall.interop.nnabla.names import names_of
from onceforall.nn import Subnet, Supernet
from onceforall.weights import native
from onceforall.weights.about import NAME, About, parsed
from onceforall.weights.content import COUNT, MEAN, Content, count_of, count_tensors

_LEAVES = {"_W": "weight", "_b": "bias", "_gamma": "weight", "_beta": "bias", "_mean": "running_mean",
           "_var": "running_var"}
_DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError, OverflowError, MemoryError, struct.error,  # what torch.load raises on broken files
            zipfile.BadZipFile)


def key(name: str) -> str:
    """The authors' name of the array that NNablaNAS calls `name`.

    The modules have the same names, and the arrays those of torch. The classifier of the authors' ResNet50D is not in a
    sequence, as NNablaNAS's is.
    """
    *modules, leaf = name.replace("classifier/0/", "classifier/").split("/")
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def names(net: Supernet | Subnet) -> dict[str, str]:
    """The authors' names."""
    return {entry.ours: key(entry.theirs) for entry in names_of(net)}


to_file = to_ours = native.to_file  # the authors' layout is torch's, as ours is


def read(path: Path) -> Content:
    """Read a state dict; raises UserError for a file that is none."""
    values = loaded(path)
    state = values.get("state_dict", values)
    if not isinstance(state, Mapping) or not state:
        raise UserError(str(path), "holds no state dict")
    if sum(t.numel() * t.element_size() for t in state.values() if isinstance(t, Tensor)) > path.stat().st_size:
        raise UserError(str(path), "declares more numbers than it holds")  # views that a copy would blow up
    arrays: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{path}:{name}", f"is {type(tensor).__name__}, not a tensor")
        # the older style of keys, and that of DataParallel
        ours = name.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")
        if ours.endswith(COUNT):
            counts[ours.removesuffix(COUNT) + MEAN] = count_of(tensor, place=f"{path}:{name}")
        elif ours in arrays:
            raise UserError(f"{path}:{name}", f"stands beside another array for {ours}")
        elif not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(f"{path}:{name}", f"holds {tensor.dtype} ({tensor.layout}), not an array of numbers")
        else:
            arrays[ours] = tensor.float().contiguous()
    return Content(arrays, counts, _about(path, values))


def read_about(path: Path) -> About | None:
    """What this project wrote about the file's net; None for a foreign file."""
    return _about(path, loaded(path))


def write(path: Path, content: Content) -> None:
    """Write what the authors' `torch.load(..)["state_dict"]` and `load_state_dict` take."""
    about = {} if content.about is None else {NAME: content.about.text()}
    torch.save({"state_dict": OrderedDict({**content.arrays, **count_tensors(content.counts)}), **about}, path)


def foreign(path: Path, content: Content) -> Foreign:
    """What the authors' own files do not say of their net."""
    return Foreign(path, content.arrays, key=key)


def _about(path: Path, values: Mapping[str, Any]) -> About | None:
    return parsed(path, text if isinstance(text := values[NAME], str) else "") if NAME in values else None


def loaded(path: Path) -> Mapping[str, Any]:
    """A torch checkpoint of tensors, numbers and their containers; raises UserError for anything else."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # not the path, whose suffix torch would go by
            warnings.simplefilter("ignore")
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as packed:
                    if any(entry.compress_type for entry in packed.infolist()):
                        raise ValueError("it is compressed, which torch's own are not")  # it may unpack to anything
            file.seek(0)
            values = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(str(path), "does not exist") from None
    except _DAMAGED as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) and "Weights only load failed" in reason:
            reason = "it holds more than tensors, and what it holds is not run"
        raise UserError(str(path), f"is not a readable torch checkpoint ({reason})") from None
    if not isinstance(values, Mapping):
        raise UserError(str(path), f"holds {type(values).__name__}, not a state dict")
    return values
