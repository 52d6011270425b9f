"""Labelled pictures: what every source of them can do, and the two kinds that come with the package."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from onceforall.data.decode import Aim, Broken, Size, cut, read_pixels, read_size
from onceforall.data.depth import USUAL, Depth


class Pictures(ABC):
    """Labelled pictures, read one at a time: what training, evaluation and exports ask of a source.

    A class of one's own defines `labels`, `read`, `subset`, `labelled` and `identity`. It has to be picklable, since
    worker processes read from it. `onceforall.testing.check_pictures` tests it.

    Attributes:
        labels: (N,) int64, the class of each picture.
        rounded: whether pictures are rounded to 8 bits after they were scaled. Those in memory are not.
        in_workers: whether worker processes read them by default.
    """

    labels: Tensor
    rounded = True
    in_workers = True

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int, aim: Aim | None = None) -> NDArray[np.uint8] | Broken:
        """Read a picture.

        Args:
            index: from 0.
            aim: a function from the picture's (width, height) to what is taken of it; `onceforall.data.decode.cut` does
                it. None: the whole picture as it is.

        Returns:
            The picture, upright, as (H, W, 3) uint8, the same every time; or why it cannot be read.
        """

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> Self:
        """The pictures at `indices`, in that order."""

    @abstractmethod
    def labelled(self, labels: Tensor) -> Self:
        """The same pictures with other labels (N,) int64."""

    @abstractmethod
    def identity(self) -> str:
        """What tells these pictures, with their labels and order, from others. A run goes on with the same only."""

    def name(self, index: int) -> str:
        """What messages call a picture."""
        return f"picture {index}"

    def size(self, index: int) -> Size | None:
        """(width, height) of a picture; None for one that cannot be read."""
        pixels = self.read(index)
        return None if isinstance(pixels, Broken) else (pixels.shape[1], pixels.shape[0])


@dataclass(frozen=True, eq=False)
class ArrayPictures(Pictures):
    """Pictures in memory: images (N, 3, H, W) uint8, labels (N,) int64."""

    images: Tensor
    labels: Tensor
    rounded = False
    in_workers = False

    def read(self, index: int, aim: Aim | None = None) -> NDArray[np.uint8]:
        """As `Pictures.read`; none is broken."""
        return cut(self.images[index].permute(1, 2, 0).contiguous().numpy(), aim)

    def subset(self, indices: Sequence[int]) -> ArrayPictures:
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return ArrayPictures(self.images[chosen], self.labels[chosen])

    def labelled(self, labels: Tensor) -> ArrayPictures:
        """The same pictures with other labels."""
        return replace(self, labels=labels)

    def identity(self) -> str:
        """Of labels and pixels."""
        return identity_of(self.labels, self.images.contiguous().numpy().data)

    def size(self, index: int) -> Size:
        """(width, height), the same of all."""
        return self.images.shape[3], self.images.shape[2]


@dataclass(frozen=True, eq=False)
class FilePictures(Pictures):
    """Pictures on disk, decoded when asked for: N paths, labels (N,) int64, and how deep their pixels are."""

    paths: tuple[str, ...]
    labels: Tensor
    depth: Depth = USUAL

    def read(self, index: int, aim: Aim | None = None) -> NDArray[np.uint8] | Broken:
        """As `Pictures.read`."""
        return read_pixels(self.paths[index], aim, self.depth)

    def subset(self, indices: Sequence[int]) -> FilePictures:
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, paths=tuple(self.paths[i] for i in chosen.tolist()), labels=self.labels[chosen])

    def labelled(self, labels: Tensor) -> FilePictures:
        """The same pictures with other labels."""
        return replace(self, labels=labels)

    def identity(self) -> str:
        """Of labels, and of each file's name with its folder's name, so that a data set may lie elsewhere on another
        machine."""
        names = ("/".join(Path(path).parts[-2:]) for path in self.paths)
        return identity_of(self.labels, "\n".join(names).encode(errors="surrogateescape"))

    def name(self, index: int) -> str:
        """Its path."""
        return self.paths[index]

    def size(self, index: int) -> Size | None:
        """From the file's header."""
        return read_size(self.paths[index])


def identity_of(labels: Tensor, content: bytes | memoryview) -> str:
    """A digest of labels (N,) int64, and of whatever else identifies the pictures, as hexadecimal digits."""
    out = hashlib.sha256(labels.numpy().tobytes())
    out.update(content)
    return out.hexdigest()[:16]


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
