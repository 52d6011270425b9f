"""Checkpoints of the authors' code: a state dict, alone or under `state_dict`, as torch saves it. Never unpickled
beyond tensors, numbers and their containers."""

from __future__ import annotations

import pickle
import struct
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceforall.interop.about import NAME, About, parsed
from onceforall.interop.entries import COUNT, MEAN, Content, count_of, count_tensors
from onceforall.space import UserError

_LEAVES = {"_W": "weight", "_b": "bias", "_gamma": "weight", "_beta": "bias", "_mean": "running_mean",
           "_var": "running_var"}
_DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError, OverflowError, MemoryError, struct.error)  # what torch.load raises on broken files


def key(name: str) -> str:
    """The authors' name of the array that NNablaNAS calls `name`: the same modules, torch's leaves."""
    *modules, leaf = name.split("/")
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def read(path: Path) -> Content:
    """Raises UserError for a file that is no state dict of numbers."""
    values = loaded(path)
    state = values.get("state_dict", values)
    if not isinstance(state, Mapping) or not state:
        raise UserError(str(path), "holds no state dict")
    arrays: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{path}:{name}", f"is {type(tensor).__name__}, not a tensor")
        ours = _present(name)
        if ours.endswith(COUNT):
            counts[ours.removesuffix(COUNT) + MEAN] = count_of(tensor, place=f"{path}:{name}")
        elif ours in arrays:
            raise UserError(f"{path}:{name}", f"stands beside another array for {ours}")
        elif tensor.numel() > 0 and tensor.layout == torch.strided and not tensor.is_meta \
                and tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}:{name}", f"claims {tensor.numel():,} numbers, more than the file holds")
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


def _about(path: Path, values: Mapping[str, Any]) -> About | None:
    return parsed(path, str(values[NAME])) if NAME in values else None


def _present(name: str) -> str:
    """The present key style of a key in the older one, or of one saved from DataParallel."""
    return name.removeprefix("module.").replace(".mobile_inverted_conv.", ".conv.")


def loaded(path: Path) -> Mapping[str, Any]:
    """A torch checkpoint of tensors, numbers and their containers; raises UserError for anything else."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # not the path, whose suffix torch would go by
            warnings.simplefilter("ignore")
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
