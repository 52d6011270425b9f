"""BN folding: at inference a batch normalisation is part of the convolution before it."""

from __future__ import annotations

from copy import deepcopy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from onceforall.nn.subnet import Subnet


def fold(net: Subnet) -> Subnet:
    """A copy of the net, in evaluation mode, without batch normalisation: each one's scale and shift are in the weights
    and the bias of its convolution. The layers keep their names."""
    folded = deepcopy(net).eval()
    for module in folded.modules():
        conv, norm = (getattr(module, name, None) for name in ("conv", "norm"))
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            del module.norm
    return folded.requires_grad_(False)
