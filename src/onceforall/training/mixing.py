"""Mixing: two training pictures of a batch in one, by torchvision's mixup and CutMix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onceforall.training.settings import Mixing


@dataclass(frozen=True, eq=False)
class Mixture:
    """Pictures of a batch, and whose labels they have.

    Args:
        images: (B, 3, R, R).
        labels: (B, N) of the N pictures that each consists of.
        shares: of the N pictures in each.
    """

    images: Tensor
    labels: Tensor
    shares: tuple[float, ...] = (1.0,)

    def split(self, size: int) -> list[Mixture]:
        """Micro-batches of so many pictures."""
        pairs = zip(torch.split(self.images, size), torch.split(self.labels, size), strict=True)
        return [Mixture(images, labels, self.shares) for images, labels in pairs]


def mixed(images: Tensor, labels: Tensor, mixing: Mixing) -> Mixture:
    """Every picture of a batch mixed with the one before it, by torch's default generator.

    Args:
        images: (B, 3, R, R).
        labels: (B,).
        mixing: how; by default the pictures stay as they are.
    """
    kinds = [(kind, alpha) for kind, alpha in (("MixUp", mixing.mixup), ("CutMix", mixing.cutmix)) if alpha]
    if not kinds:
        return Mixture(images, labels[:, None])
    from torchvision.transforms import v2  # loads torchvision, which other stages do without

    kind, alpha = kinds[int(torch.randint(len(kinds), ()))]
    first = torch.zeros(len(images), 1)  # labels are mixed as pictures are: this 1 becomes the share that is kept
    first[0] = 1
    images, kept = getattr(v2, kind)(alpha=alpha)(images, first)
    share = float(kept[0])
    return Mixture(images, torch.stack([labels, labels.roll(1)], 1), (share, 1 - share))
