"""Photographs are decoded once: training cuts its crops from shrunk copies, which a folder keeps from epoch to epoch.

Every epoch reads the same pixels, the first one too, whether they are kept or not: what cannot be kept is shrunk anew.
Evaluation, BN recalibration and exports read the files themselves.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, __version__
from torch.nn import functional as F

from onceforall.data.cache_folder import CacheFolder, cache_place, open_folder
from onceforall.data.decode import Aim, Broken, Size, decoded, pixels_of, read_with
from onceforall.data.depth import Depth
from onceforall.data.joined import JoinedPictures
from onceforall.data.orientation import Turn
from onceforall.data.pictures import FilePictures, Pictures
from onceforall.data.spec import Augment

_MADE_BY = f"1 {__version__} {torch.__version__}"  # the form of the files, and whose arithmetic shrinks pictures
_STEP = 32  # pixels: shorter sides are a multiple of it, so that runs that differ little share their files
_WORTH = 1.25  # times the shorter side, from which on a picture is shrunk
_SPARE = 1.5  # pixels along a side that a decoder leaves for each that is kept
_LOOKED_AT = 64  # pictures, for what all will take


@dataclass(frozen=True, eq=False)
class CachedPictures(FilePictures):
    """Pictures on disk for training, the large ones shrunk so that their shorter side is `side` pixels.

    A box is rounded to whole pixels. Pictures that are not large are read as `FilePictures` reads them.
    """

    side: int = field(kw_only=True)
    folder: CacheFolder = field(kw_only=True)

    def read(self, index: int, aim: Aim | None = None) -> NDArray[np.uint8] | Broken:
        """As `Pictures.read`, of the shrunk picture."""
        key = self.key(index)
        pixels = None if key is None else self.folder.read(key)
        if pixels is not None:
            return _cut(pixels, aim)
        found = read_with(self.paths[index], partial(self._decode, aim=aim))
        if isinstance(found, Broken):
            return found
        pixels, large = found
        if large and key is not None:
            self.folder.write(key, pixels)
        return _cut(pixels, aim) if large else pixels

    def _decode(self, image: Image.Image, turn: Turn, aim: Aim | None) -> tuple[NDArray[np.uint8], bool]:
        """A large picture, shrunk; or what `aim` names of another. Whether it is large."""
        size = kept_size(turn.size(image.size), self.side)
        if size is None:
            return pixels_of(image, turn, aim, self.depth), False
        return _shrunk(image, turn, size, self.depth), True

    def key(self, index: int) -> str | None:
        """What the pixels depend on, as a name for a file; None for a picture that is not there."""
        path = self.paths[index]
        try:
            found = os.stat(path)
        except OSError:
            return None
        parts = _MADE_BY, self.side, self.depth, found.st_size, found.st_mtime_ns, os.path.abspath(path)
        content = " ".join(map(str, parts)).encode(errors="surrogateescape")
        return hashlib.blake2b(content, digest_size=16).hexdigest()

    def size(self, index: int) -> Size | None:
        """Of the shrunk picture, from the file's header."""
        size = super().size(index)
        return size and (kept_size(size, self.side) or size)


def kept_size(size: Size, side: int) -> Size | None:
    """(width, height) that a picture of `size` is shrunk to; None for one that is not large."""
    shorter = min(size)
    if shorter < _WORTH * side:
        return None
    width, height = (max(side, round(length * side / shorter)) for length in size)
    return width, height


def kept_side(resolution: int, augment: Augment) -> int:
    """The shorter side of which the smallest crop has no fewer than `resolution` pixels along each side.

    A crop of a share `low` of the area W x H, as wide as `ratio` times its height, is sqrt(low W H ratio) pixels wide
    and sqrt(low W H / ratio) high. W H is at least the square of the shorter side.
    """
    narrowest, widest = augment.ratio
    share = sqrt(augment.crop_scale[0] * min(narrowest, 1 / widest, 1))
    return _STEP * ceil(resolution / share / _STEP)


def may_cache(pictures: Pictures) -> bool:
    """Whether there are files among the pictures, which `cached` has an effect on."""
    return bool(_files(pictures))


def cache_fits(pictures: Pictures, resolutions: Sequence[int], *, augment: Augment, limit: int) -> bool:
    """Whether at least half of the shrunk pictures fit into `limit` bytes. With fewer, a cache costs more time than it
    saves, since what is not kept is shrunk anew in every epoch."""
    side, files = kept_side(max(resolutions), augment), _files(pictures)
    return bool(files) and sum(_wanted(_with_side(part, side)) for part in files) <= 2 * limit


def cached(pictures: Pictures, resolutions: Sequence[int], *, augment: Augment, limit: int, readers: int) -> Pictures:
    """The pictures as training reads them, picture files through the cache.

    Args:
        pictures: of training.
        resolutions: that it trains at.
        augment: how it cuts them.
        limit: bytes that the cache may hold; 0: the pictures as they are.
        readers: processes that share what room there is.
    """
    if isinstance(pictures, JoinedPictures):
        return replace(pictures, parts=tuple(cached(part, resolutions, augment=augment, limit=limit,
                                                    readers=readers * len(pictures.parts)) for part in pictures.parts))
    if limit == 0 or not isinstance(pictures, FilePictures):
        return pictures
    out = _with_side(pictures, kept_side(max(resolutions), augment))
    wanted = _wanted(out)
    if not wanted:
        return out
    folder = open_folder(cache_place(), limit, wanted=wanted, keys=lambda: {out.key(i) for i in range(len(out))})
    return replace(out, folder=replace(folder, room=folder.room // readers))


def cache_text(pictures: Pictures, resolutions: Sequence[int], *, augment: Augment, limit: int) -> str:
    """Where shrunk pictures are kept, and how much that will take, in a line; empty where none is."""
    side = kept_side(max(resolutions), augment)
    wanted = sum(_wanted(_with_side(part, side)) for part in _files(pictures)) if limit else 0
    if not wanted:
        return ""
    room = "" if wanted <= limit else f", of which {_in_words(limit)} are kept"
    return (f"cache: large training pictures, shrunk to {side} pixels, in {cache_place()}: about "
            f"{_in_words(wanted)}{room}")


def _files(pictures: Pictures) -> list[FilePictures]:
    """The sources among the pictures that are files."""
    parts = pictures.parts if isinstance(pictures, JoinedPictures) else (pictures,)
    return [part for part in parts if isinstance(part, FilePictures)]


def _in_words(count: int) -> str:
    """A number of bytes."""
    return f"{count / 1024**2:,.1f} MiB" if count < 1024**3 else f"{count / 1024**3:,.1f} GiB"


def _with_side(pictures: FilePictures, side: int) -> CachedPictures:
    """Nothing more is kept of them."""
    return CachedPictures(pictures.paths, pictures.labels, pictures.depth, side=side,
                          folder=CacheFolder(str(cache_place())))


def _wanted(pictures: CachedPictures) -> int:
    """Bytes that the shrunk pictures take, about."""
    looked_at = np.unique(np.linspace(0, len(pictures) - 1, _LOOKED_AT).astype(int)).tolist()
    sizes = (FilePictures.size(pictures, index) for index in looked_at)
    kept = [kept_size(size, pictures.side) for size in sizes if size is not None]
    return sum(3 * size[0] * size[1] for size in kept if size) * len(pictures) // len(looked_at)


def _cut(pixels: NDArray[np.uint8], aim: Aim | None) -> NDArray[np.uint8]:
    """What `aim` names of pixels (H, W, 3)."""
    if aim is None:
        return pixels.copy()
    box, (width, height), _ = aim(pixels.shape[1], pixels.shape[0])
    left, top, right, bottom = map(round, box)
    return _resized(pixels[top:bottom, left:right], (width, height), "bilinear")


def _shrunk(image: Image.Image, turn: Turn, size: Size, depth: Depth) -> NDArray[np.uint8]:
    """The whole picture of an opened file, upright, at (width, height).

    It is resized by a sharp filter, since crops are resized once more. A JPEG is decoded at a smaller scale where that
    leaves 1.5 times as many pixels along a side.
    """
    whole = turn.size(image.size)
    upright, box = decoded(image, (0, 0, *whole), whole[0] / (_SPARE * size[0]), turn=turn, depth=depth)
    if box != (0, 0, *upright.size):  # reduced, it ends within its last pixels; torch cannot begin or end there
        return np.array(upright.resize(size, Image.Resampling.BICUBIC, box=box))
    return _resized(np.asarray(upright), size, "bicubic")


def _resized(pixels: NDArray[np.uint8], size: Size, mode: str) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) at (width, height), by torch, which takes a quarter of Pillow's time and differs by a level."""
    images = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]
    resized = F.interpolate(images, (size[1], size[0]), mode=mode, antialias=True)
    return resized[0].permute(1, 2, 0).numpy()
