"""Losses against a teacher's probabilities."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Distillation = Callable[[Tensor, Tensor], Tensor]  # logits (B, K), the teacher's probabilities (B, K)


def distillation(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Mean cross entropy of logits (B, K) against a teacher's probabilities (B, K), at temperature 1.

    Hinton et al. 2015, as Cai et al. 2020, section 3.3, use it.
    """
    return F.cross_entropy(logits, probabilities)


def alpha_divergence(logits: Tensor, probabilities: Tensor, *, alphas: tuple[float, float] = (-1.0, 1.0),
                     clip: float = 5.0) -> Tensor:
    """Mean over the pictures of the larger of two alpha-divergences, of a teacher's probabilities (B, K) from those of
    logits (B, K) (AlphaNet, Wang et al. 2021, sections 3 and 4).

    A negative alpha punishes what the student is too sure of, a positive one what it is not sure enough of. The
    importance weights (p / q)^alpha are clipped, and no gradient goes through them.
    """
    log_q = F.log_softmax(logits, dim=1)
    q, log_p = log_q.detach().exp(), probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log()
    found = []
    for alpha in alphas:
        weight = torch.exp(alpha * (log_p - log_q.detach())).clamp_max(clip)
        value = (q * weight * weight.log()).sum(1) if alpha == 1 else \
            ((q * weight).sum(1) - 1) / (alpha * (alpha - 1))
        gradient = -(q * weight * log_q).sum(1) / alpha
        found.append(value + gradient - gradient.detach())
    return torch.maximum(*found).mean()
