"""Depthwise convolution with a weight gradient that is fast on CPU for kernels of 5 and 7.

oneDNN has a fast depthwise weight gradient for kernels up to 3 only: at 7x7 it takes ten to a hundred times as long
as the forward pass. Here that gradient is computed by a forward convolution. `ONCEFORALL_DEPTHWISE=torch` in the
environment leaves everything to torch.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_LARGEST_MAP = 32  # input side in pixels; above it torch's own gradient is as fast
_ENABLED = os.environ.get("ONCEFORALL_DEPTHWISE") != "torch"


def depthwise_conv2d(images: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Depthwise convolution of images (B, C, H, W) with filters (C, 1, k, k), padding k // 2.

    The output is torch's to the bit; the weight gradient is equal up to rounding.
    """
    fast = (_ENABLED and weight.requires_grad and weight.shape[-1] > 3 and images.device.type == "cpu"
            and images.dtype == weight.dtype == torch.float32 and max(images.shape[2:]) <= _LARGEST_MAP
            and torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"))
    if not fast:
        return F.conv2d(images, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))
    out: Tensor = _DepthwiseConv2d.apply(images, weight, stride)
    return out


class _DepthwiseConv2d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        return F.conv2d(images, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None]:
        images, weight = ctx.saved_tensors
        to_images = None
        if ctx.needs_input_grad[0]:
            padding = [weight.shape[-1] // 2] * 2
            to_images = torch.ops.aten.convolution_backward(
                grad, images, weight, None, [ctx.stride] * 2, padding, [1, 1], False, [0, 0], len(weight),
                [True, False, False])[0]
        return to_images, weight_gradient(images, grad, kernel=weight.shape[-1], stride=ctx.stride), None


def weight_gradient(images: Tensor, grad: Tensor, *, kernel: int, stride: int) -> Tensor:
    """Gradient (C, 1, k, k) of depthwise filters, from the convolution's input (B, C, H, W) and its output's gradient.

    Each picture's channel is correlated with its gradient map: a depthwise convolution over B x C groups whose
    filters are the gradient maps, dilated by the stride; then the sum over the pictures.
    """
    batch, width = images.shape[:2]
    rows, columns = grad.shape[2:]
    reach = max((max(rows, columns) - 1) * stride, max(images.shape[2:]) - 1)  # no larger offset has any overlap
    pad = min(kernel // 2, reach)
    size = 2 * pad + 1
    spread = F.conv2d(images.reshape(1, batch * width, *images.shape[2:]),
                      grad.reshape(batch * width, 1, rows, columns), None, 1, pad, stride, batch * width)
    inner = spread[..., :size, :size].reshape(batch, width, size, size).sum(0).unsqueeze(1)
    return F.pad(inner, [kernel // 2 - pad] * 4) if size < kernel else inner
