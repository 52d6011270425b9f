"""NNablaNAS's `weights.h5`: HDF5, BN arrays (1, C, 1, 1), linear weights (in, out), matrices applied as `flat @ M`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from onceforall.errors import UserError
from onceforall.interop.infer import Foreign
from onceforall.interop.nnabla.names import names_of
from onceforall.nn import Subnet, Supernet
from onceforall.weights.about import NAME, About, Kept, parsed
from onceforall.weights.content import Content

# as h5py has it
_DAMAGED = (OSError, RuntimeError, SystemError, LookupError, TypeError, ValueError, OverflowError, MemoryError)


def names(net: Supernet | Subnet) -> dict[str, str]:
    """NNablaNAS's names, in its order."""
    return {entry.ours: entry.theirs for entry in names_of(net)}


def to_file(name: str, tensor: Tensor) -> Tensor:
    """Our array in NNablaNAS's layout."""
    if ".norm." in name:
        return tensor.reshape(1, -1, 1, 1)
    return tensor.t() if tensor.ndim == 2 else tensor


def to_ours(name: str, tensor: Tensor) -> Tensor:
    """NNablaNAS's array in our layout."""
    if ".norm." in name:
        return tensor.reshape(-1)
    return tensor.t() if tensor.ndim == 2 else tensor


def read(path: Path) -> Content:
    """Read the arrays; raises UserError for a file that is not HDF5, or holds something else than arrays of numbers."""
    arrays: dict[str, Tensor] = {}
    kept: dict[str, Kept] = {}
    declared = 0

    def visit(name: str, item: object) -> None:
        nonlocal declared
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in "fiu" or item.external or item.is_virtual:
                raise UserError(f"{path}:{name}", f"holds {item.dtype}, not numbers of its own")
            declared += item.nbytes
            if declared > path.stat().st_size:  # before they take memory
                raise UserError(f"{path}:{name}", "declares more numbers than the file holds")
            index, trained = item.attrs.get("index", len(kept)), item.attrs.get("need_grad", True)
            kept[name] = (item.dtype.name, int(index), bool(trained))
            arrays[name] = torch.from_numpy(np.asarray(item[()], dtype=np.float32))

    with _opened(path) as file:
        elsewhere = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
        if elsewhere is not None:
            raise UserError(f"{path}:{elsewhere}", "points elsewhere", "give a file that holds its arrays itself")
        file.visititems(visit)
        about = _about(path, file)
        return Content(arrays, about.counts if about else {}, about, kept)


def read_about(path: Path) -> About | None:
    """What this project wrote about the file's net."""
    with _opened(path) as file:
        return _about(path, file)


def write(path: Path, content: Content) -> None:
    """Write the arrays in their order, with `index` and `need_grad` as NNablaNAS needs them."""
    counts = content.counts if any(content.counts.values()) else {}
    with h5py.File(path, "w") as file:
        if content.about is not None:
            file.attrs[NAME] = content.about.model_copy(update={"counts": counts}).text()
        for number, (name, array) in enumerate(content.arrays.items()):
            dtype, index, trained = content.kept.get(name, by_default(name, number))
            data = file.create_dataset(name, data=array.numpy().astype(dtype))
            data.attrs["index"], data.attrs["need_grad"] = index, trained


def by_default(name: str, number: int) -> Kept:
    """What NNablaNAS writes of an array: its dtype, its place in the order, and whether it is trained."""
    return "float32", number, not name.endswith(("/_mean", "/_var"))


def differing(net: Supernet | Subnet, kept: Mapping[str, Kept]) -> dict[str, Kept]:
    """What a file says of its arrays where that differs from `by_default`."""
    usual = {name: by_default(name, number) for number, name in enumerate(names(net).values())}
    return {name: value for name, value in kept.items() if usual.get(name, value) != value}


def foreign(path: Path, content: Content) -> Foreign:
    """What NNablaNAS's own files do not say of their net."""
    return Foreign(path, content.arrays, key=str)


def _about(path: Path, file: h5py.File) -> About | None:
    return parsed(path, str(file.attrs[NAME])) if NAME in file.attrs else None


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(str(path), "does not exist") from None
    except _DAMAGED as error:
        raise UserError(str(path), f"is not a readable HDF5 weights file ({' '.join(str(error).split())})",
                        "give a weights.h5 that a training stage wrote") from None
