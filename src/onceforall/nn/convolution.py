"""Convolutions with gradients that are fast on CPU where torch's are slow; forward they are torch's to the bit.

oneDNN has a fast depthwise weight gradient for kernels up to 3 only: at 7x7 it takes ten to a hundred times as long
as the forward pass. Here that gradient is computed by a forward convolution. On maps of one pixel, as in
squeeze-and-excitation, a convolution's gradients are two matrix products. `ONCEFORALL_CONV=torch` in the environment
leaves both to torch, "own" neither; without it the first depends on a torch whose own is the slower one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from onceforall.errors import UserError

_decided: str | None = None  # settled once a process, as a run must not change its arithmetic on the way
_PICTURE_WISE = 28  # input side in pixels from which pictures go one by one: their layout changes within the cache


def conv2d(images: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, groups: int, padding: int) -> Tensor:
    """Convolution of images (B, C, H, W) with filters (O, C / groups, k, k), zeros at both ends of each side."""
    kernel = weight.shape[-1]
    depthwise = kernel > 3 and groups == len(weight) == images.shape[1] and bias is None and padding == kernel // 2
    pixel = kernel == groups == stride == 1 and images.shape[2:] == (1, 1)
    if depthwise and _in_training(images, weight) and decided() == "own":
        out: Tensor = _Depthwise.apply(images, weight, stride)
    elif pixel and _in_training(images, weight) and not _switched_off():
        out = _Pixel.apply(images, weight, bias)
    else:
        out = F.conv2d(images, weight, bias, stride, padding, 1, groups)
    return out


def _in_training(images: Tensor, weight: Tensor) -> bool:
    return (torch.is_grad_enabled() and weight.requires_grad and images.device.type == "cpu"
            and images.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"))


def _switched_off() -> bool:
    wanted = os.environ.get("ONCEFORALL_CONV")
    if wanted not in (None, "own", "torch"):
        raise UserError("environment ONCEFORALL_CONV", f"{wanted!r} is not known", "take own or torch, or unset it")
    return wanted == "torch"


def decided() -> str:
    """Which depthwise gradients are computed from now on: "own" or "torch"."""
    global _decided  # noqa: PLW0603 see there
    if _decided is None:
        _decided = "torch" if _switched_off() or not _faster() else "own"
    return _decided


def decide(whose: str) -> None:
    """Compute "own" or "torch" gradients from now on, as the run began with or another process does.

    What the user set in the environment stays.
    """
    global _decided  # noqa: PLW0603 see there
    if "ONCEFORALL_CONV" not in os.environ:
        _decided = whose


def _faster() -> bool:
    """Whether our depthwise gradient is faster here, by the best of three on 7x7.

    It is timed on one thread. torch's has to win by half, so that a busy machine does not change a run's arithmetic.
    """
    images = torch.ones(8, 64, 8, 8).to(memory_format=torch.channels_last)
    weight, threads = torch.ones(64, 1, 7, 7), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours = _fastest(lambda: weight_gradient(images, images, kernel=7, stride=1))
        return ours < 1.5 * _fastest(lambda: _of_torch(images, images, weight, stride=1, wanted=(False, True)))
    finally:
        torch.set_num_threads(threads)


def _fastest(work: Callable[[], object]) -> float:
    """Seconds that `work` takes, at best of three times, after one that warms up."""
    times = []
    for _ in range(4):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])


class _Depthwise(torch.autograd.Function):
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
            to_images = _of_torch(grad, images, weight, stride=ctx.stride, wanted=(True, False))[0]
        return to_images, weight_gradient(images, grad, kernel=weight.shape[-1], stride=ctx.stride), None


class _Pixel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
        images, weight = ctx.saved_tensors
        grad = grad[:, :, 0, 0]
        to_images = (grad @ weight[:, :, 0, 0])[:, :, None, None] if ctx.needs_input_grad[0] else None
        to_weight = (grad.t() @ images[:, :, 0, 0])[:, :, None, None]
        return to_images, to_weight, grad.sum(0) if ctx.needs_input_grad[2] else None


def _of_torch(grad: Tensor, images: Tensor, weight: Tensor, *, stride: int,
              wanted: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """torch's own gradients of a depthwise convolution, to images and weight."""
    padding = [weight.shape[-1] // 2] * 2
    out = torch.ops.aten.convolution_backward(grad, images, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0],
                                              len(weight), [*wanted, False])
    return out[0], out[1]


def weight_gradient(images: Tensor, grad: Tensor, *, kernel: int, stride: int) -> Tensor:
    """Gradient (C, 1, k, k) of depthwise filters, from the convolution's input (B, C, H, W) and its output's gradient.

    Each picture's channel is correlated with its gradient map: a depthwise convolution over B x C groups whose
    filters are the gradient maps, dilated by the stride; then the sum over the pictures.
    """
    reach = max((max(grad.shape[2:]) - 1) * stride, max(images.shape[2:]) - 1)  # no larger offset has any overlap
    pad = min(kernel // 2, reach)
    if max(images.shape[2:]) >= _PICTURE_WISE:
        total = sum((_spread(images[i:i + 1], grad[i].unsqueeze(1), pad, stride)[0] for i in range(1, len(images))),
                    start=_spread(images[:1], grad[0].unsqueeze(1), pad, stride)[0])
    else:
        spread = _spread(images.reshape(1, -1, *images.shape[2:]), grad.reshape(-1, 1, *grad.shape[2:]), pad, stride)
        total = spread.reshape(len(images), -1, *spread.shape[2:]).sum(0)
    return F.pad(total.unsqueeze(1), [kernel // 2 - pad] * 4)


def _spread(images: Tensor, maps: Tensor, pad: int, stride: int) -> Tensor:
    """Images (1, G, H, W) correlated with maps (G, 1, h, w) at the offsets of -pad to pad: (1, G, 2 pad + 1, ..)."""
    out = F.conv2d(images, maps, None, 1, pad, stride, len(maps))
    return out[..., :2 * pad + 1, :2 * pad + 1]
