"""Optimizer: a class of `torch.optim` over the parameters that decay, and over those that do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import torch

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): found for name, found in vars(torch.optim).items()
    if isinstance(found, type) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
    and name not in ("LBFGS", "SparseAdam", "Muon")}  # they need a closure, sparse gradients, matrices alone
_ROLES: dict[str, Callable[[str], bool]] = {
    "norm": lambda name: ".norm." in name, "bias": lambda name: name.endswith(".bias")}


def spared(names: Iterable[str], no_decay: Iterable[str]) -> set[str]:
    """Those of the parameters' names that `no_decay` means: by a role, or by a regular expression."""
    tests = [_ROLES.get(entry) or re.compile(entry).search for entry in no_decay]
    return {name for name in names if any(test(name) for test in tests)}


def made(name: str, groups: list[dict[str, Any]], **arguments: Any) -> torch.optim.Optimizer:
    """The optimiser of that name in `OPTIMIZERS`."""
    make: Callable[..., torch.optim.Optimizer] = sgd if name == "sgd" else OPTIMIZERS[name]
    return make(groups, **arguments)


def sgd(groups: list[dict[str, Any]], *, lr: float, momentum: float = 0.0, **others: Any) -> torch.optim.SGD:
    """SGD in one fused pass over all parameters, each of which may get its first gradient in any step."""
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, **{"fused": True, **others})

    def begin(*_: object) -> None:  # torch's fused pass takes momentum for all parameters with gradients, or for none
        for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            if optimizer.state[parameter].get("momentum_buffer") is None:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    if momentum:
        optimizer.register_step_pre_hook(begin)
    return optimizer
