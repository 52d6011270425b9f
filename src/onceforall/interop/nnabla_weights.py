"""NNablaNAS's `weights.h5`: the names, shapes and order it gives to the arrays of a supernet or an extracted net."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from onceforall.space import BlockPlan, Layer, Plan, UserError

_BN = {"running_mean": "_mean", "running_var": "_var", "bias": "_beta", "weight": "_gamma"}
_ROLES = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}


@dataclass(frozen=True)
class Entry:
    """One array: our name, NNablaNAS's, and whether it is a parameter (or a statistic)."""

    ours: str
    theirs: str
    trained: bool

    def to_theirs(self, tensor: Tensor) -> Tensor:
        """Our tensor in NNablaNAS's shape: BN (1, C, 1, 1), matrices applied as `flat @ M`, linear (in, out)."""
        if self._per_channel():
            return tensor.reshape(1, -1, 1, 1)
        return tensor.t() if tensor.ndim == 2 else tensor

    def to_ours(self, tensor: Tensor) -> Tensor:
        """NNablaNAS's array in our shape."""
        if self._per_channel():
            return tensor.reshape(-1)
        return tensor.t() if tensor.ndim == 2 else tensor

    def _per_channel(self) -> bool:
        return ".norm." in self.ours


def entries(plan: Plan, *, kernels: tuple[int, ...] | None = None) -> list[Entry]:
    """The arrays of a net in NNablaNAS's order; `kernels` for a supernet, None for an extracted net."""
    out = list(_entries(plan, kernels))
    if kernels is None:  # an extracted net's BN arrays come in alphabetical order
        order = ["_W", "_b", "_beta", "_gamma", "_mean", "_var"]
        groups: dict[str, int] = {}
        for entry in out:
            groups.setdefault(entry.theirs.rpartition("/")[0], len(groups))
        out.sort(key=lambda e: (groups[e.theirs.rpartition("/")[0]], order.index(e.theirs.rpartition("/")[2])))
    return out


def _entries(plan: Plan, kernels: tuple[int, ...] | None) -> Iterator[Entry]:
    yield from _conv_bn(plan.stem, "first_conv", "", ())
    for number, block in enumerate(plan.blocks()):
        elastic = kernels is not None and block.name.startswith("stages.")
        yield from _block(block, f"blocks/{number}/conv", kernels if elastic else None)
    expand, mix, classifier = plan.head
    yield from _conv_bn(expand, "final_expand_layer", "", ())
    yield Entry(f"{mix.name}.conv.weight", "feature_mix_layer/conv/_W", True)
    yield Entry(f"{classifier.name}.weight", "classifier/linear/_W", True)
    yield Entry(f"{classifier.name}.bias", "classifier/linear/_b", True)


def _block(block: BlockPlan, prefix: str, kernels: tuple[int, ...] | None) -> Iterator[Entry]:
    for layer in block.layers:
        if layer.role in _ROLES:
            nested = "" if kernels is None else "elastic"
            yield from _conv_bn(layer, f"{prefix}/{_ROLES[layer.role]}", nested,
                                kernels or () if layer.role == "depthwise" else ())
        else:
            name = {"reduce": "reduce", "excite": "expand"}[layer.role]
            for ours, theirs in (("weight", "_W"), ("bias", "_b")):
                yield Entry(f"{layer.name}.conv.{ours}", f"{prefix}/depth_conv/se/fc/{name}/{theirs}", True)


def _conv_bn(layer: Layer, prefix: str, nested: str, kernels: tuple[int, ...]) -> Iterator[Entry]:
    conv, norm = ("conv/conv", "bn/bn") if nested else ("conv", "bn")
    for smaller, larger in pairwise(kernels):
        yield Entry(f"{layer.name}.conv.kernel_{larger}to{smaller}", f"{prefix}/conv/{larger}to{smaller}_matrix", True)
    yield Entry(f"{layer.name}.conv.weight", f"{prefix}/{conv}/_W", True)
    for ours, theirs in _BN.items():
        yield Entry(f"{layer.name}.norm.{ours}", f"{prefix}/{norm}/{theirs}", ours in ("weight", "bias"))


def write_h5(path: Path, arrays: Mapping[str, Tensor], names: list[Entry], attributes: Mapping[str, str]) -> None:
    """Write the tensors under NNablaNAS's names, atomically; `attributes` go onto the file's root."""
    partial = path.with_name(path.name + ".partial")
    with h5py.File(partial, "w") as file:
        file.attrs.update(attributes)
        for index, entry in enumerate(names):
            array = entry.to_theirs(arrays[entry.ours].detach().cpu()).contiguous().numpy()
            data = file.create_dataset(entry.theirs, data=array)
            data.attrs["index"], data.attrs["need_grad"] = index, entry.trained
    with open(partial, "rb+") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)


def read_h5(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every array of an HDF5 file by its full name, as float32, and the attributes of the root.

    Raises UserError for a file that is not HDF5 or holds something else than arrays of numbers.
    """
    arrays: dict[str, Tensor] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "fiu" or item.external or item.is_virtual:
                raise UserError(f"{path}:{name}", f"holds {item.dtype}, not numbers of its own")
            arrays[name] = torch.from_numpy(np.asarray(item[()], dtype=np.float32))

    with _opened(path) as file:
        file.visititems(visit)
        return arrays, {key: str(value) for key, value in file.attrs.items()}


def read_attributes(path: Path) -> dict[str, str]:
    """The attributes of the root of an HDF5 file; raises UserError for a file that is none."""
    with _opened(path) as file:
        return {key: str(value) for key, value in file.attrs.items()}


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise UserError(str(path), "does not exist") from None
    except (OSError, RuntimeError) as error:
        raise UserError(str(path), f"is not a readable HDF5 weights file ({str(error).splitlines()[0]})",
                        "give a weights.h5 that a training stage wrote") from None
