"""Labelled pictures, in memory or as files, and the data set made of them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onceforall.data.found import Found
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
    """Pictures on disk, decoded when asked for: N paths, labels (N,) int64."""

    paths: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int]) -> "FilePictures":
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return FilePictures(tuple(self.paths[i] for i in chosen.tolist()), self.labels[chosen])


Pictures: TypeAlias = ArrayPictures | FilePictures


@dataclass(frozen=True, eq=False)
class DataSet:
    """Disjoint splits of one data set; label i means `classes[i]`; `mean` and `std` of a channel on [0, 1].

    `held_out` (may be empty) validates during the search, `test` is for the final accuracy only. `spec`: what it was
    loaded by; None for one made of other pictures. `found`: what was found when it was loaded.
    """

    train: Pictures
    held_out: Pictures
    test: Pictures
    classes: tuple[str, ...]
    mean: Colour
    std: Colour
    spec: DataSpec | None = None
    found: Found | None = None

    def calibration(self, count: int) -> Pictures:
        """Training pictures that BN statistics, or the value ranges of int8, are measured on.

        Args:
            count: how many; all training pictures where there are fewer.

        Returns:
            The same pictures in the same shuffled order for every run, process and form of the data set: see `sample`.
        """
        return sample(self.train, count, classes=self.classes, seed=0)


def from_grey(grey: Tensor, labels: Tensor) -> ArrayPictures:
    """Grey pictures (N, H, W) uint8 as three equal channels."""
    return ArrayPictures(grey[:, None].repeat(1, 3, 1, 1), labels)


def sample(pictures: Pictures, count: int, *, classes: Sequence[str], seed: int) -> Pictures:
    """Draw pictures without replacement, in shuffled order.

    A picture's place in the draw follows from the seed, the name of its class and its rank within its class. The
    draw is therefore the same whether the pictures come by name, as a folder or as a list. The order matters: BN
    recalibration averages the variances of batches, and a batch of one class lacks what differs between classes.

    Args:
        pictures: what to draw from, N pictures.
        count: how many to draw; all N where there are fewer.
        classes: the name of the class that each label means.
        seed: another seed gives another draw.

    Returns:
        min(count, N) pictures.
    """
    labels = pictures.labels.numpy()
    places = np.empty(len(labels), dtype=np.uint64)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        places[members] = _stream(f"{seed} {classes[label]}", len(members))
    return pictures.subset(np.argsort(places, kind="stable")[:count].tolist())


def _stream(name: str, count: int) -> NDArray[np.uint64]:
    """The first `count` numbers of a random stream that has this name."""
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u8").astype(np.uint64)
    return np.random.Philox(key=key).random_raw(count)


def digest(pictures: Pictures) -> str:
    """What identifies pictures, as hexadecimal digits.

    It covers labels and pixels of pictures in memory. Of files it covers labels, and each file's name with its folder's
    name, so that a data set may lie elsewhere on another machine.
    """
    out = hashlib.sha256(pictures.labels.numpy().tobytes())
    if isinstance(pictures, ArrayPictures):
        out.update(pictures.images.contiguous().numpy().data)
    else:
        names = ("/".join(Path(path).parts[-2:]) for path in pictures.paths)
        out.update("\n".join(names).encode(errors="surrogateescape"))
    return out.hexdigest()[:16]


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
