"""BN recalibration: running statistics of an extracted net, measured anew on training pictures."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn


@torch.no_grad()
def recalibrate(net: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Replace a net's BN statistics by the mean of those of some batches, in place.

    A sub-network shares the supernet's weights, but not the statistics of its activations. Without recalibration its
    accuracy is near chance (Yu and Huang 2019; Cai et al. 2020). Variances are biased, as training normalises with
    them. Dropout stays off, and the mode of the net is kept.

    Args:
        net: the net.
        batches: normalised images (B, 3, H, W), all of one shape, since each batch counts the same.

    Returns:
        The net itself.

    Raises:
        ValueError: there are no batches, or their shapes differ.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta, training = [m.momentum for m in norms], net.training
    samples: dict[nn.Module, int] = {}
    hooks = [m.register_forward_pre_hook(partial(_count, samples)) for m in norms]
    net.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's cumulative mean
        norm.train()
    shapes = set()
    for images in batches:
        net(images)
        shapes.add(images.shape)
    if len(shapes) != 1:
        raise ValueError(f"recalibrate needs batches of one shape, not {sorted(map(tuple, shapes))}")
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        hook.remove()
        norm.momentum = momentum
        if norm.running_var is not None:
            norm.running_var.mul_((samples[norm] - 1) / samples[norm])  # torch accumulates unbiased variances
    return net.train(training)


def _count(samples: dict[nn.Module, int], norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Note how many values a channel's statistics are taken over."""
    samples[norm] = inputs[0].numel() // inputs[0].shape[1]
