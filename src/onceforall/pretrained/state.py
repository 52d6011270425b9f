"""State: weights of a network of others, from a file to its module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from onceforall.errors import UserError
from onceforall.weights.content import COUNT
from onceforall.weights.torch_file import loaded

_INSIDE = ("state_dict_ema", "model_ema", "state_dict", "model")  # training scripts put it there
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile


def state_of(file: Path) -> dict[str, Tensor]:
    """The tensors of a file of safetensors or of torch, by their names, in the file's order.

    Raises:
        UserError: it is neither, or holds something else.
    """
    values: Mapping[str, Any] = _safetensors(file) if file.suffix == ".safetensors" else loaded(file)
    state: Mapping[str, Any] = next((values[name] for name in _INSIDE if isinstance(values.get(name), Mapping)), values)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(str(file), "holds no weights", "give that network's own weights file")
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def load(module: nn.Module, file: Path, name: str) -> None:
    """Give a module the weights of a file.

    Args:
        module: the network.
        file: its weights, by the module's own names.
        name: what people call the network.

    Raises:
        UserError: an array is missing, has another shape, or is none of the module's.
    """
    state, wanted = state_of(file), module.state_dict()
    remedy = f"give the weights file of {name}"
    for array, tensor in wanted.items():
        if array not in state and not array.endswith(COUNT):
            raise UserError(str(file), f"has no {array!r}, which {name} has", remedy)
        if array in state and state[array].shape != tensor.shape:
            raise UserError(str(file), f"has {array!r} of shape {tuple(state[array].shape)}, and {name} has "
                            f"{tuple(tensor.shape)}", remedy)
    if others := state.keys() - wanted.keys():
        raise UserError(str(file), f"has {min(others)!r}, which {name} does not have", remedy)
    wanted.update(state)  # which keeps counts of batches that are missing, and what torch notes of versions
    module.load_state_dict(wanted)


def _safetensors(file: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(file, "pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    except (SafetensorError, OSError) as error:
        raise UserError(str(file), f"is not a readable safetensors file ({str(error).splitlines()[0]})") from None
