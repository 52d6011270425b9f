"""Nets of the authors' own code (PyPI's `ofa`) with random weights, and ours with the same."""

from __future__ import annotations

from typing import Any

import torch

from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.weights.nets import load_weights


def randomise(net: torch.nn.Module, seed: int) -> None:
    """Random scales, shifts and kernel matrices, so that a wrong mapping shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("matrix"):
            tensor.copy_(torch.eye(len(tensor)) + 0.1 * torch.randn(tensor.shape, generator=generator))
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(seed + len(name))
        else:
            gain = 0.1 if "se.fc" in name else 2**0.5  # strong gates make float32 rounding grow from block to block
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * gain / tensor[0].numel() ** 0.5)


FAMILIES = {"mobilenet_v3_large": "OFAMobileNetV3", "proxyless_nas": "OFAProxylessNASNets",
            "resnet50d": "OFAResNets"}  # our name, their class


def empty_of(kind: Any, width: float, *, expand: tuple[int, ...] = (3, 4, 6)) -> Any:
    """A supernet of that class of theirs with ten classes and no dropout."""
    if kind.__name__ == FAMILIES["resnet50d"]:
        return kind(n_classes=10, dropout_rate=0, depth_list=[0, 1, 2], expand_ratio_list=[0.2, 0.25, 0.35],
                    width_mult_list=[0.65, 0.8, 1.0])
    return kind(n_classes=10, dropout_rate=0, width_mult=width, ks_list=[3, 5, 7], expand_ratio_list=list(expand),
                depth_list=[2, 3, 4])


def theirs_of(authors: Any, width: float, *, family: str = "mobilenet_v3_large", expand: tuple[int, ...] = (3, 4, 6),
              seed: int = 1) -> Any:
    """A supernet of theirs with ten classes, no dropout, every array random."""
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
    net = empty_of(getattr(authors, FAMILIES[family]), width, expand=expand)
    randomise(net, seed)
    generator = torch.Generator().manual_seed(seed)
    set_running_statistics(net, [(torch.randn(8, 3, 96, 96, generator=generator), None)])
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.mul_(0.2 * torch.rand(tensor.shape, generator=generator) + 0.9)
    return net.eval()


def ours_of(theirs: Any, folder: Any, *, expand: tuple[int, ...] = (3, 4, 6)) -> Supernet:
    """Ours with the weights of theirs, by way of their checkpoint."""
    torch.save({"state_dict": theirs.state_dict()}, folder / "theirs.pth")
    family = next(name for name, kind in FAMILIES.items() if type(theirs).__name__ == kind)
    space = search_space(family) if family == "resnet50d" else search_space(
        family, width_mult=theirs.width_mult).restrict(expand=expand)
    net = Supernet(space, 10, dropout=0.0)
    load_weights(net, folder / "theirs.pth")
    return net.eval()
