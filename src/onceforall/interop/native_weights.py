"""This project's own form of a weights file: safetensors under our names, its header says what net it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from onceforall.interop.entries import ABOUT, Content, Entry, parsed
from onceforall.space import UserError

_MEAN, _COUNT = "running_mean", "num_batches_tracked"


def to_file(entry: Entry, tensor: Tensor) -> Tensor:
    """Our tensor: the layout is ours."""
    return tensor


def read(path: Path) -> Content:
    """Raises UserError for a file that is not safetensors, or not of this project."""
    arrays, counts = {}, {}
    try:
        with safe_open(path, "pt") as file:
            about = _about(path, file.metadata())
            for name in file.keys():  # noqa: SIM118  # no mapping
                tensor = file.get_tensor(name)
                if name.endswith(_COUNT):
                    counts[name.removesuffix(_COUNT) + _MEAN] = int(tensor)
                else:
                    arrays[name] = tensor.float()
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(path), f"is not a readable safetensors file ({str(error).splitlines()[0]})") from None
    return Content(arrays, counts, about)


def read_about(path: Path) -> dict[str, Any]:
    """What this project wrote about the file's net."""
    try:
        with safe_open(path, "pt") as file:
            return _about(path, file.metadata())
    except (SafetensorError, OSError) as error:
        raise UserError(str(path), f"is not a readable safetensors file ({str(error).splitlines()[0]})") from None


def write(path: Path, content: Content) -> None:
    """Write arrays, counts and description."""
    counts = {name.removesuffix(_MEAN) + _COUNT: torch.tensor(n) for name, n in content.counts.items()}
    save_file({**content.arrays, **counts}, path, {"format": "pt", ABOUT: json.dumps(content.about)})


def _about(path: Path, header: dict[str, str] | None) -> dict[str, Any]:
    if ABOUT not in (header or {}):
        raise UserError(str(path), "is a safetensors file that does not say which net it holds",
                        "of an extracted sub-network give the folder")
    return parsed(path, (header or {})[ABOUT])
