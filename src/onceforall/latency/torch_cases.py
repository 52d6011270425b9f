"""Parts and sub-networks as torch modules, ready to be timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from onceforall.errors import UserError
from onceforall.latency.runner import pictures
from onceforall.nn import Subnet
from onceforall.nn.subnet import GlobalMean, PlainBlock, conv_norm_act
from onceforall.space import BlockPlan, Plan
from onceforall.space.parts import Part, Pool, input_shape
from onceforall.space.plan import CLASSIFIER

if TYPE_CHECKING:
    from onceforall.latency.runner import Open, Run


def device_of(name: str) -> torch.device:
    """The device of that name; auto is the GPU where there is one. Raises UserError where there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device", "'cuda' needs a GPU, and torch sees none", "take --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with that many threads on the CPU while inside."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def opener(cases: Mapping[str, Part | Plan], device: torch.device, batch: int) -> Open:
    """Builds cases with random weights, in evaluation mode and `channels_last`, as sub-networks run here."""

    def open_case(key: str) -> Run:
        case = cases[key]
        net = _filled(_module(case)).eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        images = torch.from_numpy(pictures((batch, *input_shape(case)))).to(device, memory_format=torch.channels_last)

        def run() -> object:
            with torch.inference_mode():
                out = net(images)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            return out

        return run

    return open_case


def _module(case: Part | Plan) -> nn.Module:
    if isinstance(case, Plan):
        return Subnet(case)
    if isinstance(case, Pool):
        return GlobalMean()
    if isinstance(case, BlockPlan):
        return PlainBlock(case)
    if case.role == CLASSIFIER:
        return nn.Sequential(nn.Flatten(), nn.Linear(case.inputs, case.outputs))
    return conv_norm_act(case)


def _filled(net: nn.Module) -> nn.Module:
    """Give a module weights that keep activations in their size: numbers near zero would be slower."""
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
    return net
