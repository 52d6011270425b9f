"""BN statistics: measured anew on training pictures, and replaced without a change of the answers."""

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
    _run(net, batches)
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        hook.remove()
        norm.momentum = momentum
        if norm.running_var is not None:
            norm.running_var.mul_((samples[norm] - 1) / samples[norm])  # torch accumulates unbiased variances
    return net.train(training)


def _count(samples: dict[nn.Module, int], norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Note how many values a channel's statistics are taken over."""
    samples[norm] = inputs[0].numel() // inputs[0].shape[1]


@torch.no_grad()
def rebase(net: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Give a net's BN the statistics of some batches, and a scale and shift with which it answers as before, in place.

    In training with fixed statistics activations move away from them, so that recalibration changes the answers. After
    `rebase` on the same pictures it does not: BN normalises by statistics that are true, and
    scale * (x - mean) / sqrt(var + eps) + shift is the same as it was for every x.

    Args:
        net: the net, in evaluation mode.
        batches: normalised images (B, 3, H, W), all of one shape, since each batch counts the same.

    Returns:
        The net itself.

    Raises:
        ValueError: there are no batches, or their shapes differ.
    """
    found = input_statistics(net, nn.BatchNorm2d, batches)
    for name, (mean, var) in found.items():
        norm = net.get_submodule(name)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        before = torch.sqrt(norm.running_var + norm.eps)
        norm.bias.add_(norm.weight * (mean - norm.running_mean) / before)
        norm.weight.mul_(torch.sqrt(var + norm.eps) / before)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)
    return net


@torch.no_grad()
def input_statistics(net: nn.Module, kind: type[nn.Module],
                     batches: Iterable[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and biased variance of each channel that reaches the modules of one kind.

    Args:
        net: the net, which runs as it is.
        kind: the class of the modules.
        batches: normalised images (B, 3, H, W), all of one shape, since each batch counts the same.

    Returns:
        For the name of each module its inputs' means (C,) and variances (C,).

    Raises:
        ValueError: there are no batches, or their shapes differ.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def look(name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        var, mean = torch.var_mean(inputs[0].float(), (0, 2, 3), correction=0)
        found.setdefault(name, []).append((mean, var))

    hooks = [module.register_forward_pre_hook(partial(look, name))
             for name, module in net.named_modules() if isinstance(module, kind)]
    _run(net, batches)
    for hook in hooks:
        hook.remove()
    return {name: (torch.stack([mean for mean, _ in each]).mean(0), torch.stack([var for _, var in each]).mean(0))
            for name, each in found.items()}


def input_spread(net: nn.Module, batches: Iterable[Tensor]) -> dict[str, Tensor]:
    """How much each channel that a convolution reads changes its outputs.

    It is the channel's standard deviation where BN follows, since recalibrated BN takes away what is constant. Where
    none follows, as in a gate, it is the root of the mean square.

    Args:
        net: layers that hold a convolution as `conv`, and BN as `norm` where they have some.
        batches: as `input_statistics` takes them.

    Returns:
        A number for each channel (C,), by the name of the convolution.
    """
    modules = dict(net.named_modules())

    def normed(name: str) -> bool:
        return f"{name.rpartition('.')[0]}.norm" in modules

    return {name: (var if normed(name) else var + mean.square()).sqrt()
            for name, (mean, var) in input_statistics(net, nn.Conv2d, batches).items()}


@torch.no_grad()
def take_norms(net: nn.Module, part: nn.Module) -> None:
    """Give a supernet the BN of one of its sub-networks, in place. Channels that this one lacks stay as they are."""
    own = net.state_dict()
    for name, module in part.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            for field in ("weight", "bias", "running_mean", "running_var"):
                value = getattr(module, field)
                own[f"{name}.{field}"][:len(value)].copy_(value)


def _run(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Run the net on batches; raises ValueError for none, and for more than one shape."""
    shapes = set()
    for images in batches:
        net(images)
        shapes.add(images.shape)
    if len(shapes) != 1:
        raise ValueError(f"BN statistics need batches of one shape, not {sorted(map(tuple, shapes))}")
