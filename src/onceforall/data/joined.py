"""Pictures of several sources as one, such as those with labels and those without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onceforall.data.decode import Aim, Broken, Size
from onceforall.data.depth import Depth
from onceforall.data.folders import EXTENSIONS, pictures_under
from onceforall.data.pictures import FilePictures, Pictures, identity_of
from onceforall.errors import UserError

UNLABELLED = -1  # the label of a picture that has none


@dataclass(frozen=True, eq=False)
class JoinedPictures(Pictures):
    """Some pictures of several sources.

    Args:
        parts: the sources.
        labels: (N,) int64.
        places: (N, 2) int64: of each picture its source, and its number there.
    """

    parts: tuple[Pictures, ...]
    labels: Tensor
    places: Tensor

    @staticmethod
    def of(parts: Sequence[Pictures]) -> JoinedPictures:
        """All pictures of some sources, one source after the other."""
        places = [torch.stack([torch.full((len(part),), i), torch.arange(len(part))], dim=1)
                  for i, part in enumerate(parts)]
        return JoinedPictures(tuple(parts), torch.cat([part.labels for part in parts]), torch.cat(places))

    def read(self, index: int, aim: Aim | None = None) -> NDArray[np.uint8] | Broken:
        """As `Pictures.read`."""
        part, place = self._place(index)
        return part.read(place, aim)

    def subset(self, indices: Sequence[int]) -> JoinedPictures:
        """The pictures at `indices`, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        return replace(self, labels=self.labels[chosen], places=self.places[chosen])

    def labelled(self, labels: Tensor) -> JoinedPictures:
        """The same pictures with other labels."""
        return replace(self, labels=labels)

    def identity(self) -> str:
        """Of labels, of which pictures there are, and of each source."""
        sources = "/".join(part.identity() for part in self.parts).encode()
        return identity_of(self.labels, self.places.contiguous().numpy().tobytes() + sources)

    def name(self, index: int) -> str:
        """What its source calls it."""
        part, place = self._place(index)
        return part.name(place)

    def size(self, index: int) -> Size | None:
        """As its source says."""
        part, place = self._place(index)
        return part.size(place)

    def _place(self, index: int) -> tuple[Pictures, int]:
        part, place = self.places[index].tolist()
        return self.parts[part], place


def unlabelled_pictures(folder: str, depth: Depth) -> FilePictures:
    """All pictures below a folder, without labels.

    Args:
        folder: it may have folders in it.
        depth: of the pixels.

    Raises:
        UserError: it is no folder, or holds no pictures.
    """
    if not folder or not Path(folder).is_dir():
        raise UserError("data.unlabelled", f"{folder!r} is not a folder", "give one that holds pictures")
    paths, _ = pictures_under(Path(folder))
    if not paths:
        raise UserError("data.unlabelled", f"{folder!r} holds no pictures", f"known endings: {' '.join(EXTENSIONS)}")
    return FilePictures(tuple(paths), torch.full((len(paths),), UNLABELLED), depth)
