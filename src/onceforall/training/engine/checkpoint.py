"""Checkpoints: everything a stopped run needs to go on, in safetensors files that are whole or not there.

A run folder holds the newest, the one before it, and the one of the last epoch that validation found good. Whatever
is read is compared with the checksum it was written with; a damaged newest one falls back to those before it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

from onceforall.errors import UserError
from onceforall.files import check_no_pointer, replacing, unreadable, unwritable

_log = logging.getLogger(__name__)
FORMAT, READABLE = 3, (1, 2, 3)  # those before 3 say what they are of; a run goes on from 3 alone
_STATE = "optimizer."
T = TypeVar("T")
NEWEST, BEFORE, GOOD = (f"checkpoint{part}.safetensors" for part in ("", ".before", ".good"))


class DamagedError(UserError):
    """A checkpoint that cannot be read."""


@dataclass(frozen=True)
class Position:
    """How far a run has come: `step` steps of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0


def exists(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return any((folder / name).exists() for name in (NEWEST, BEFORE, GOOD))


def save(folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, *, position: Position,
         extra: Mapping[str, Any], good: bool = False) -> None:
    """Write model, state of the optimiser and position as the newest checkpoint, atomically, and keep the one before;
    `extra` are JSON values. `good`: also as the one of the last good epoch.

    Raises UserError where it cannot be written."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    for name, parameter in net.named_parameters():
        tensors |= {f"{_STATE}{key}.{name}": value for key, value in optimizer.state.get(parameter, {}).items()
                    if isinstance(value, Tensor)}
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    meta = {"format": FORMAT, "epoch": position.epoch, "step": position.step, "extra": dict(extra),
            "crc32": _checksum(whole)}
    path, then = folder / NEWEST, "the same command goes on from the checkpoint before"
    with replacing(path, then=then, before=folder / BEFORE) as partial:
        partial.write_bytes(serialized(whole, {"onceforall": json.dumps(meta)}))
    try:
        if good:
            _also_good(folder)
        _flush(folder)
    except OSError as error:
        raise unwritable(path, error, then=then) from None


def _also_good(folder: Path) -> None:
    """A second name for the newest one, or a copy where the file system has no hard links."""
    partial = folder / f"{GOOD}.partial"
    partial.unlink(missing_ok=True)
    try:
        os.link(folder / NEWEST, partial)
    except OSError:
        shutil.copyfile(folder / NEWEST, partial)
    os.replace(partial, folder / GOOD)


def _flush(folder: Path) -> None:
    """Have the system write down the folder itself, so that a power cut leaves the new names."""
    with suppress(OSError):  # not every file system can
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def settle(folder: Path) -> None:
    """Keep only the newest one: the run is finished."""
    for name in (BEFORE, GOOD):
        (folder / name).unlink(missing_ok=True)


def read_extra(folder: Path) -> dict[str, Any]:
    """The JSON values of the newest checkpoint whose header can be read."""
    return dict(_first(folder, (NEWEST, BEFORE, GOOD), lambda path: _meta(path)["extra"]))


def load(folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, *,
         good: bool = False) -> tuple[Position, dict[str, Any]]:
    """Put the newest readable checkpoint, or the last `good` one, into model and optimiser, which keep their device and
    memory format; returns its position and JSON values.

    Raises UserError where none can be read, or where it is of another network.
    """
    def into(path: Path) -> tuple[Position, dict[str, Any]]:
        meta = _meta(path)
        if meta["format"] != FORMAT:
            raise UserError(str(path), "is of a run that an older version began and did not end",
                            "go on with that version, or take another output folder")
        _fill(path, _tensors(path, meta), net, optimizer)
        return Position(meta["epoch"], meta["step"]), dict(meta["extra"])

    names = (GOOD, BEFORE, NEWEST) if good else (NEWEST, BEFORE, GOOD)
    return _first(folder, names, into)


def _first(folder: Path, names: tuple[str, ...], read: Callable[[Path], T]) -> T:
    """What `read` makes of the first of these files that is there and whole."""
    damaged: DamagedError | None = None
    for path in (folder / name for name in names):
        if not path.exists():
            continue
        try:
            out = read(path)
        except DamagedError as error:
            damaged = damaged or error
            continue
        if damaged is not None:
            _log.warning("%s: %s; going on from %s", damaged.place, damaged.problem, path.name)
        return out
    raise damaged or UserError(str(folder), "holds no checkpoint")


def _fill(path: Path, tensors: Mapping[str, Tensor], net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    state = net.state_dict()
    for name, tensor in state.items():
        found = tensors.get(f"net.{name}")
        if found is None or found.shape != tensor.shape:
            raise UserError(str(path), f"does not hold {name} of shape {tuple(tensor.shape)}",
                            "it is of another run: use another output folder")
    optimizer.state.clear()
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(tensors[f"net.{name}"])
        parameters, groups = dict(net.named_parameters()), optimizer.param_groups
        for place, tensor in tensors.items():
            if place.startswith(_STATE):
                key, _, name = place.removeprefix(_STATE).partition(".")
                parameter = parameters[name]
                there = key != "step" or any(group.get("fused") or group.get("capturable") for group in groups)
                optimizer.state[parameter][key] = _like(parameter, tensor) if there else tensor


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """A value of the optimiser's state on the parameter's device, and in its memory format where it has its shape.

    Only the number of steps may lie elsewhere: torch keeps it on CPU but for fused and capturable optimisers.
    """
    if tensor.shape != parameter.shape:
        return tensor.to(parameter.device)
    return torch.empty_like(parameter, dtype=tensor.dtype, memory_format=torch.preserve_format).copy_(tensor)


def _tensors(path: Path, meta: Mapping[str, Any]) -> dict[str, Tensor]:
    """All tensors of a file; raises DamagedError where they are not those that were written."""
    with _readable(path), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(tensors) != meta["crc32"]:
            raise ValueError("its checksum differs")
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), crc))
    return crc


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turns what a damaged file raises into one line."""
    try:
        yield
    except UserError:
        raise
    except PermissionError as error:  # nothing is wrong with the file: going on from an older one would lose it
        raise unreadable(path, error) from None
    except (SafetensorError, OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DamagedError(str(path), f"is not a readable checkpoint ({reason})",
                           "remove it to start the stage again") from None


def _meta(path: Path) -> dict[str, Any]:
    """The description in the header of a safetensors file: 8 bytes that hold its length, then JSON."""
    with _readable(path), open(path, "rb") as file:
        check_no_pointer(path)
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError("it is cut off")
        meta = json.loads(json.loads(file.read(length))["__metadata__"]["onceforall"])
        if meta["format"] not in READABLE:
            raise UserError(str(path), f"is a checkpoint of format {meta['format']}; this version reads "
                            f"{READABLE[0]} to {READABLE[-1]}", "go on with the version that wrote it")
        if not isinstance(meta["extra"], dict):
            raise TypeError("its values are missing")
        Position(int(meta["epoch"]), int(meta["step"]))
        return dict(meta)
