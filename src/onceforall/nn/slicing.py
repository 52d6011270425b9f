"""Slicing: the weights of a sub-network as views of (or functions of) the supernet's. The only slicing there is."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


def channels(tensor: Tensor, count: int) -> Tensor:
    """The first `count` entries of a per-channel tensor (C, ...)."""
    return tensor if count == tensor.shape[0] else tensor[:count]


def convolution(weight: Tensor, outputs: int, inputs: int) -> Tensor:
    """The first `outputs` filters (O, I, k, k), of each the first `inputs` input channels of its group."""
    rows = channels(weight, outputs)
    return rows if inputs == rows.shape[1] else rows[:, :inputs]


def centre(weight: Tensor, kernel: int) -> Tensor:
    """The central kernel x kernel window of filters (O, I, k, k)."""
    start = weight.shape[-1] // 2 - kernel // 2
    return weight[:, :, start:start + kernel, start:start + kernel]


def smaller_kernel(weight: Tensor, kernel: int, transforms: Mapping[tuple[int, int], Tensor]) -> Tensor:
    """Depthwise filters (C, 1, k, k) at a smaller kernel size (Cai et al. 2020, section 3.3, elastic kernel).

    From each size to the next smaller one of `transforms` ({(7, 5): (25, 25), (5, 3): (9, 9)}, largest first) the
    window is cut from the centre, then multiplied by the learned matrix, which all channels share.
    """
    for (larger, smaller), matrix in transforms.items():
        if kernel >= larger:
            break
        window = centre(weight, smaller)
        weight = F.linear(window.reshape(*window.shape[:2], -1), matrix).view(window.shape)
    return weight
