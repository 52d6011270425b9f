"""Torch's own files, read as tensors, numbers and their containers: nothing else in them is unpickled."""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onceforall.errors import UserError

_DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
            AssertionError, OverflowError, MemoryError, struct.error,  # what torch.load raises on broken files
            zipfile.BadZipFile)


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
