"""Learning rate: linear warm-up, then a cosine to 0, step by step; or in stairs."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CosineWarmup:
    """Rate from `warmup_lr` towards `lr` in `warmup` steps, then lr (1 + cos) / 2 over the rest of `total` steps."""

    lr: float
    warmup_lr: float
    warmup: int
    total: int

    def __call__(self, step: int) -> float:
        """The rate of step 0, 1, .., total - 1."""
        if step < self.warmup:
            return self.warmup_lr + (self.lr - self.warmup_lr) * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.total - self.warmup)
        return 0.5 * self.lr * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class Stairs:
    """`lr`, times `factor` after every `every` steps (Chollet 2017)."""

    lr: float
    factor: float
    every: int

    def __call__(self, step: int) -> float:
        """The rate of step 0, 1, .."""
        return self.lr * self.factor ** (step // self.every)
