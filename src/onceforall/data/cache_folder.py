"""The folder that shrunk pictures are kept in: a file a picture, written as a whole, and no more bytes than allowed."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import get_worker_info

from onceforall.errors import printable

FREE = 2 * 1024**3  # bytes of the disk that are left to others, checkpoints above all
_ENDING, _UNFINISHED = ".npy", ".partial"
_HOUR, _DAY = 3600, 86400
_HEADER = re.compile(rb"\x93NUMPY\x01\x00v\x00\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d+), (\d+), 3\)")
_START = 128  # bytes of the header
_WORD = 8  # the last bytes of a file

_log = logging.getLogger(__name__)


def cache_place() -> Path:
    """The folder of the cache: below $ONCEFORALL_CACHE, else $XDG_CACHE_HOME/onceforall, else ~/.cache/onceforall, and
    for a user without a home in the folder for temporary files."""
    own, users = os.environ.get("ONCEFORALL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own or users:
        return Path(own or Path(str(users), "onceforall")).absolute() / "pictures"
    try:
        home = Path("~/.cache").expanduser()
    except RuntimeError:
        home = Path(tempfile.gettempdir())
    return home.absolute() / "onceforall" / "pictures"


@dataclass
class CacheFolder:
    """Pixels (H, W, 3) uint8 by a key that names all they depend on. Any number of processes may use the folder.

    Each process counts for itself what it adds, so `room` is its share.

    Attributes:
        place: the folder.
        room: bytes that this process may still add.
    """

    place: str
    room: int = 0

    def read(self, key: str) -> NDArray[np.uint8] | None:
        """The pixels of that key, read-only; None where there is no sound file of them."""
        path = self._path(key)
        # The whole file in one read takes 20 microseconds, and np.load 130. A map is no faster, and a disk's fault
        # there would end the process.
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read()
                used = os.fstat(file.fileno()).st_mtime
        except OSError:
            return None
        if time.time() - used > _DAY:
            with suppress(OSError):
                os.utime(path)  # files that were not used for longest go first
        return unpacked(data)

    def write(self, key: str, pixels: NDArray[np.uint8]) -> None:
        """Keep pixels, where there is room. A failure is said once, and nothing more is kept."""
        data = packed(pixels)
        if len(data) > self.room:
            return
        path = self._path(key)
        partial = f"{path}.{os.urandom(4).hex()}{_UNFINISHED}"  # several processes may write the same picture
        try:
            with open(partial, "xb") as file:
                file.write(data)
            os.replace(partial, path)
        except OSError as error:
            with suppress(OSError):
                os.unlink(partial)
            self.room = 0
            worker = get_worker_info()
            if worker is None or worker.id == 0:  # the others will find out, too
                _say_unwritable(self.place, error.strerror or str(error))
        else:
            self.room -= len(data)

    def _path(self, key: str) -> str:
        return os.path.join(self.place, f"{key}{_ENDING}")


def open_folder(place: Path, limit: int, *, wanted: int, keys: Callable[[], Set[str | None]]) -> CacheFolder:
    """The folder for a set of pictures, which is made, tidied, and cut to its limit.

    Files of these pictures stay before those of others, and files that were used lately before older ones.

    Args:
        place: where it is.
        limit: bytes that it may hold in all.
        wanted: bytes that the set will take, about.
        keys: gives the keys of the set; it is called only where there is too little room for all.
    """
    folder = CacheFolder(str(place))
    try:
        place.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(place)
        trial = place / f"{os.urandom(4).hex()}{_UNFINISHED}"
        trial.open("xb").close()
        trial.unlink()
        free = shutil.disk_usage(place).free - FREE
    except OSError as error:
        _say_unwritable(str(place), error.strerror or str(error))
        return folder
    folder.room = max(0, min(limit - _cut_down(place, limit, wanted=wanted, keys=keys), free))
    return folder


class _Kept(NamedTuple):
    of_others: bool
    used: float
    size: int
    path: str


def _cut_down(place: Path, limit: int, *, wanted: int, keys: Callable[[], Set[str | None]]) -> int:
    """Remove files until there is room for the set of pictures; returns the bytes of those that stay."""
    kept = list(_files(place, frozenset()))
    total = sum(file.size for file in kept)
    if total + wanted <= limit:
        return total
    kept = sorted(_files(place, keys()), key=lambda file: (not file.of_others, file.used))
    total = sum(file.size for file in kept)
    missing = max(0, min(wanted, limit) - sum(file.size for file in kept if not file.of_others))
    for file in kept:
        if total > (limit - missing if file.of_others else limit):
            with suppress(OSError):
                os.unlink(file.path)
                total -= file.size
    return total


def _files(place: Path, keys: Set[str | None]) -> Iterator[_Kept]:
    """The files in the folder; those of others have none of these keys."""
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.endswith(_ENDING):
                with suppress(OSError):  # another process may have removed it
                    found = entry.stat()
                    other = entry.name.removesuffix(_ENDING) not in keys
                    yield _Kept(other, found.st_mtime, found.st_size, entry.path)


def _remove_unfinished(place: Path) -> None:
    """Remove what killed processes left. A file that is being written is younger than an hour."""
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.endswith(_UNFINISHED):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _HOUR:
                        os.unlink(entry.path)


@cache
def _say_unwritable(place: str, reason: str) -> None:
    """Warn once in this process."""
    _log.warning("%s: training pictures cannot be kept (%s): pictures are decoded in every epoch", printable(place),
                 reason)


def packed(pixels: NDArray[np.uint8]) -> bytes:
    """A file of pixels (H, W, 3), which np.load reads, too. Its 64-bit words add up to 0."""
    height, width, _ = pixels.shape
    shape = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({height}, {width}, 3), }}"
    header = b"\x93NUMPY\x01\x00v\x00" + shape.ljust(_START - 11).encode() + b"\n"
    data = header + pixels.tobytes()
    data += bytes(-len(data) % _WORD)
    return data + (-_total(data) % 2**64).to_bytes(_WORD, "little")


def unpacked(data: bytes) -> NDArray[np.uint8] | None:
    """The pixels that a file holds; None for one that was cut off, or changed."""
    header = _HEADER.match(data)
    if header is None:
        return None
    height, width = int(header[1]), int(header[2])
    count = height * width * 3
    if len(data) != _START + count + -count % _WORD + _WORD or _total(data):
        return None
    return np.frombuffer(data, np.uint8, count, _START).reshape(height, width, 3)


def _total(data: bytes) -> int:
    """The sum of 64-bit words, of 64 bits; ten times as fast as a CRC."""
    return int(np.frombuffer(data, "<u8").sum(dtype=np.uint64))
