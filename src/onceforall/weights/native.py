"""This project's own form of a weights file: safetensors under our names, its header says what net it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NoReturn

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor

from onceforall.errors import UserError
from onceforall.nn import Subnet, Supernet
from onceforall.weights.about import NAME, About, parsed
from onceforall.weights.content import COUNT, MEAN, Content, Stored, count_of, count_tensors

ELASTIC, STATISTICS = "elastic", "statistics."  # of sub-networks stored beside a supernet: header entry, arrays


def names(net: Supernet | Subnet) -> dict[str, str]:
    """Our files have our names."""
    return {name: name for name in net.state_dict() if not name.endswith(COUNT)}


def to_file(_: str, tensor: Tensor) -> Tensor:
    """Our files have our layout."""
    return tensor


to_ours = to_file


def read(path: Path) -> Content:
    """Read a file; raises UserError where it is not safetensors, or not of this project."""
    arrays, counts, statistics = {}, {}, {}
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            about = _about(path, header)
            for name in file.keys():  # noqa: SIM118  # no mapping
                tensor = file.get_tensor(name)
                if name.endswith(COUNT):
                    counts[name.removesuffix(COUNT) + MEAN] = count_of(tensor, place=f"{path}:{name}")
                elif ELASTIC in header and name.startswith(STATISTICS):
                    statistics[name.removeprefix(STATISTICS)] = tensor.float()
                else:
                    arrays[name] = tensor.float()
    except UserError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise UserError(str(path), f"is not a readable safetensors file ({str(error).splitlines()[0]})") from None
    stored = Stored(header[ELASTIC], statistics) if ELASTIC in header else None
    return Content(arrays, counts, about, stored=stored)


def read_about(path: Path) -> About:
    """What this project wrote about the file's net."""
    try:
        with safe_open(path, "pt") as file:
            return _about(path, file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(str(path), f"is not a readable safetensors file ({str(error).splitlines()[0]})") from None


def foreign(path: Path, content: Content) -> NoReturn:
    """Every file of ours says which net it holds, and `read` refuses others."""
    raise _nameless(path)


def stores(path: Path) -> bool:
    """Whether sub-networks are stored beside the file's supernet."""
    try:
        with safe_open(path, "pt") as file:
            return ELASTIC in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def write(path: Path, content: Content) -> None:
    """Write arrays, counts and description."""
    header = {NAME: content.about.text()} if content.about else {}
    arrays = {**content.arrays, **count_tensors(content.counts)}
    if content.stored is not None:
        header[ELASTIC] = content.stored.text
        arrays |= {STATISTICS + number: array for number, array in content.stored.statistics.items()}
    path.write_bytes(_in_order(serialized(arrays, {"format": "pt", **header})))


def _in_order(file: bytes) -> bytes:
    """The same file with the entries of its header in order, so that equal weights make equal files.

    safetensors writes the entries in an order that differs from one call to the next.
    """
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    assert len(text) <= end - 8  # arrays stay where they are
    return file[:8] + text.ljust(end - 8) + file[end:]


def _about(path: Path, header: dict[str, str]) -> About:
    if NAME not in header:
        raise _nameless(path)
    if _of_a_checkpoint(header[NAME]):
        weights = next(filter(Path.exists, map(path.with_name, ("weights.safetensors", "weights.h5"))),
                       path.with_name("weights.safetensors"))
        raise UserError(str(path), "is a checkpoint, from which a stopped run goes on, not a weights file",
                        f"give {weights}" if weights.exists() else
                        f"the run has not ended: it will write {weights} when the same command has gone on to its end")
    return parsed(path, header[NAME])


def _nameless(path: Path) -> UserError:
    return UserError(str(path), "is a safetensors file that does not say which net it holds",
                     "extract the sub-network again with this version")


def _of_a_checkpoint(text: str) -> bool:
    """Whether the entry is what `onceforall.training.engine.checkpoint` writes under the same name."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and {"epoch", "step", "extra"} <= values.keys()
