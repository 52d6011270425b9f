"""Losses: smoothed cross entropy, and distillation against a teacher's probabilities."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean cross entropy of logits (B, K) and labels (B,); `smoothing` is shared out over all K classes."""
    return F.cross_entropy(logits, labels, label_smoothing=smoothing)


def distillation(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, K) against a teacher's probabilities (B, K), at temperature 1.

    Hinton et al. 2015, as Cai et al. 2020, section 3.3, use it.
    """
    return F.cross_entropy(logits, probabilities)
