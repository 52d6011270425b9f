"""Checkpoints: everything a stopped run needs to go on, in one safetensors file that is whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from onceforall.space import UserError

FORMAT = 1


@dataclass(frozen=True)
class Position:
    """How far a run has come: `step` steps of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0


def save(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, *, position: Position,
         extra: Mapping[str, Any]) -> None:
    """Write model, momentum and position atomically; `extra` are JSON values."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[f"momentum.{name}"] = buffer
    meta = {"format": FORMAT, "epoch": position.epoch, "step": position.step, "extra": dict(extra)}
    partial = path.with_name(path.name + ".partial")
    save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, {"onceforall": json.dumps(meta)})
    with open(partial, "rb+") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)


def read_extra(path: Path) -> dict[str, Any]:
    """The JSON values of a checkpoint."""
    return dict(_meta(path)["extra"])


def load(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer) -> Position:
    """Put a checkpoint's state into model and optimiser, which keep their device and memory format.

    Raises UserError for a damaged file or one of another network.
    """
    meta = _meta(path)
    with _readable(path), safe_open(path, "pt") as file, torch.no_grad():
        names = set(file.keys())
        for name, tensor in net.state_dict().items():
            if f"net.{name}" not in names or tuple(file.get_slice(f"net.{name}").get_shape()) != tuple(tensor.shape):
                raise UserError(str(path), f"does not hold {name} of shape {tuple(tensor.shape)}",
                                "it is of another run: use another output folder")
            tensor.copy_(file.get_tensor(f"net.{name}"))
        for name, parameter in net.named_parameters():
            if f"momentum.{name}" in names:
                buffer = torch.empty_like(parameter, memory_format=torch.preserve_format)
                optimizer.state[parameter]["momentum_buffer"] = buffer.copy_(file.get_tensor(f"momentum.{name}"))
    return Position(meta["epoch"], meta["step"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into one line."""
    try:
        yield
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(str(path), f"is not a readable checkpoint ({str(error).splitlines()[0]})",
                        "remove it to start the stage again") from None


def _meta(path: Path) -> dict[str, Any]:
    """The description in the header of a safetensors file: 8 bytes that hold its length, then JSON."""
    with _readable(path), open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it is cut off")
        meta = json.loads(json.loads(file.read(length))["__metadata__"]["onceforall"])
        if meta["format"] != FORMAT:
            raise UserError(str(path), f"is a checkpoint of format {meta['format']}; this version reads {FORMAT}")
        return dict(meta)
