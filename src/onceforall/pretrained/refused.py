"""Refused: what no block here computes, by the names that its classes have in timm and torchvision."""

from __future__ import annotations

from torch import nn

_KINDS = {  # a part of a class's name, and what it is
    "CondConv": "convolutions whose weights depend on the picture", "MixedConv": "a mixed convolution",
    "SpaceToDepth": "space-to-depth", "GlobalContext": "global context", "EvoNorm": "EvoNorm",
    "GroupNorm": "group normalisation", "LayerNorm": "layer normalisation", "LayerScale": "layer scale",
    "BlurPool": "blur pooling", "Eca": "channel attention by a convolution", "Attention": "attention",
    "Attn": "attention",
}


def first_refused(module: nn.Module) -> tuple[str, str] | None:
    """The path of the first layer that is known to have no block, and what it is; None where there is none."""
    for path, layer in module.named_modules():
        kind = type(layer).__name__
        what = next((what for part, what in _KINDS.items() if part in kind), None)
        if what is not None and path:
            return path, f"{what} (in {kind})"
    return None
