"""Labelled pictures, in memory or as files, and the data set made of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from onceforall.data.depth import USUAL, Depth
from onceforall.data.spec import DataSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST_STD = 1 / 255  # a set of one plain colour must not divide by zero

Colour: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ArrayPictures:
    """Pictures in memory: images (N, 3, H, W) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> "ArrayPictures":
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return ArrayPictures(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True, eq=False)
class FilePictures:
    """Pictures on disk, decoded when asked for: N paths, labels (N,) int64, and how deep their pixels are."""

    paths: tuple[str, ...]
    labels: Tensor
    depth: Depth = USUAL

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> "FilePictures":
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, paths=tuple(self.paths[i] for i in chosen.tolist()), labels=self.labels[chosen])


Pictures: TypeAlias = ArrayPictures | FilePictures


@dataclass(frozen=True, eq=False)
class DataSet:
    """Disjoint splits of one data set; label i means `classes[i]`; `mean` and `std` of a channel on [0, 1].

    `held_out` (may be empty) validates during the search, `test` is for the final accuracy only. `spec`: what it was
    loaded by; None for one made of other pictures. `depth`: of its files' pixels.
    """

    train: Pictures
    held_out: Pictures
    test: Pictures
    classes: tuple[str, ...]
    mean: Colour
    std: Colour
    spec: DataSpec | None = None
    depth: Depth = USUAL

    @property
    def facts(self) -> dict[str, Any]:
        """What weights files say of the pictures that a net was trained on, as JSON values."""
        return {"mean": self.mean, "std": self.std, "classes": self.classes, "depth": asdict(self.depth)}


def from_grey(grey: Tensor, labels: Tensor) -> ArrayPictures:
    """Grey pictures (N, H, W) uint8 as three equal channels."""
    return ArrayPictures(grey[:, None].repeat(1, 3, 1, 1), labels)


def sample(pictures: Pictures, count: int, *, seed: int) -> Pictures:
    """`count` pictures (or all, if there are fewer) drawn without replacement, the same for the same seed."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(pictures))
    return pictures.subset(np.sort(order[:count]).tolist())


def colour_statistics(pictures: Pictures) -> tuple[Colour, Colour]:
    """Mean and standard deviation of each channel on [0, 1]; of ImageNet for pictures that are not in memory."""
    if isinstance(pictures, FilePictures):
        return IMAGENET_MEAN, IMAGENET_STD
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in pictures.images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256) / channel.numel()
        mean = float((share * levels).sum())
        means.append(mean)
        stds.append(max(SMALLEST_STD, float((share * (levels - mean) ** 2).sum()) ** 0.5))
    return (means[0], means[1], means[2]), (stds[0], stds[1], stds[2])
