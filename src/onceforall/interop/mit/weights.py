"""Checkpoints of the authors' code: a state dict, alone or under `state_dict`, as torch saves it. Never unpickled
beyond tensors, numbers and their containers."""

from __future__ import annotations

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
from onceforall.weights.torch_file import loaded

_LEAVES = {"_W": "weight", "_b": "bias", "_gamma": "weight", "_beta": "bias", "_mean": "running_mean",
           "_var": "running_var"}

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
