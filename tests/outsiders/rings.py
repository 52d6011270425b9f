"""Pictures of one's own: rings and discs, made when they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from onceforall.data import Pictures
from onceforall.data.decode import cut


@dataclass(frozen=True)
class Rings(Pictures):
    """Label 0 is a disc, label 1 a ring; `seeds` (N,) are what a picture is drawn from."""

    seeds: torch.Tensor
    labels: torch.Tensor
    classes = ("disc", "ring")

    def read(self, index, aim=None):
        """A picture of 20 x 20 pixels."""
        rng = np.random.default_rng(int(self.seeds[index]))
        y, x = np.mgrid[:20, :20] - rng.uniform(7, 12, (2, 1, 1))
        radius = np.hypot(x, y)
        shape = radius < 6 if int(self.seeds[index]) % 2 == 0 else (radius < 6) & (radius > 3)
        pixels = rng.integers(0, 60, (20, 20, 3)) + 180 * shape[..., None]
        return cut(pixels.astype(np.uint8), aim)

    def subset(self, indices):
        """Those at `indices`."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, seeds=self.seeds[chosen], labels=self.labels[chosen])

    def labelled(self, labels):
        """With other labels."""
        return replace(self, labels=labels)

    def identity(self):
        """All that they are made of."""
        return f"rings {self.seeds.tolist()} {self.labels.tolist()}"

    def name(self, index):
        """By its seed."""
        return f"ring {int(self.seeds[index])}"


def splits() -> tuple[Rings, Rings]:
    """Pictures to train and to test on."""
    train, test = torch.arange(600), torch.arange(600, 700)
    return Rings(train, train % 2), Rings(test, test % 2)
