"""The data set: three splits of pictures, what their labels mean, and their colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from onceforall.data.depth import USUAL, Depth
from onceforall.data.found import Found
from onceforall.data.joined import JoinedPictures
from onceforall.data.pictures import ArrayPictures, Pictures, sample
from onceforall.data.spec import USUAL_FRAMING, Colour, DataSpec, Framing

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST_STD = 1 / 255  # a set of one plain colour must not divide by zero


@dataclass(frozen=True, eq=False)
class DataSet:
    """Disjoint splits of one data set.

    Args:
        train: training pictures.
        held_out: pictures that validate while choices are made; there may be none.
        test: pictures for the final accuracy.
        classes: the class that each label means.
        mean: the mean of each channel, of values in [0, 1].
        std: the standard deviation of each channel.
        spec: what it was loaded by; None for one made of other pictures.
        found: what was found when it was loaded.
        depth: how deep the pixels of its files are.
        unlabelled: further training pictures, without labels, for what has a teacher; None: there are none.
        framing: how pictures are scaled and cut when they are scored.
    """

    train: Pictures
    held_out: Pictures
    test: Pictures
    classes: tuple[str, ...]
    mean: Colour
    std: Colour
    spec: DataSpec | None = None
    found: Found | None = None
    depth: Depth = USUAL
    unlabelled: Pictures | None = None
    framing: Framing = USUAL_FRAMING

    @property
    def taught(self) -> Pictures:
        """What trains under a teacher: the training pictures, and those without labels, whose label is -1."""
        return self.train if self.unlabelled is None else JoinedPictures.of([self.train, self.unlabelled])

    @property
    def facts(self) -> dict[str, Any]:
        """What weights files say of the pictures that a net was trained on, as JSON values."""
        return {"mean": self.mean, "std": self.std, "classes": self.classes, "depth": asdict(self.depth),
                "framing": asdict(self.framing)}

    def as_for(self, facts: Mapping[str, Any]) -> DataSet:
        """The same pictures, normalised and framed as for a net whose weights file says these facts.

        A foreign file says none of them: its pictures are normalised as ImageNet's.
        """
        return replace(self, mean=tuple(facts.get("mean", IMAGENET_MEAN)), std=tuple(facts.get("std", IMAGENET_STD)),
                       framing=Framing(**facts.get("framing", {})))

    def calibration(self, count: int) -> Pictures:
        """Training pictures that BN statistics, or the value ranges of int8, are measured on.

        Args:
            count: how many; all training pictures where there are fewer.

        Returns:
            The same pictures in the same shuffled order for every run, process and form of the data set: see `sample`.
        """
        return sample(self.train, count, classes=self.classes, seed=0)


def colour_statistics(pictures: Pictures) -> tuple[Colour, Colour]:
    """Mean and standard deviation of each channel on [0, 1]; of ImageNet for pictures that are not in memory."""
    if not isinstance(pictures, ArrayPictures):
        return IMAGENET_MEAN, IMAGENET_STD
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in pictures.images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        mean = float((share * levels).sum())
        means.append(mean)
        stds.append(max(SMALLEST_STD, float((share * (levels - mean) ** 2).sum()) ** 0.5))
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])
