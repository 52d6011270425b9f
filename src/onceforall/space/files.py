"""Files: what a failed read or write means for the user, and files that only stand for others."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from onceforall.space.errors import UserError

_FULL = "free some space"
_REMEDIES = {  # of a write
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL,
    errno.EFBIG: "raise the limit on the size of files",
    errno.EACCES: "make it writable, or give another place",
    errno.EPERM: "make it writable, or give another place",
    errno.EROFS: "give a place that is not read-only",
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "a file stands where a folder is needed: give another place",
    errno.EEXIST: "a file stands where a folder is needed: give another place",
    errno.ENAMETOOLONG: "give a shorter name",
}
_ELSEWHERE = "give another place"
_POINTER = b"version https://git-lfs.github.com/spec/"


def unwritable(place: object, error: Exception, *, verb: str = "written", then: str = "") -> UserError:
    """The error of a file or folder that cannot be written, with a remedy that fits its cause.

    Args:
        place: the path that the user knows.
        error: an `OSError`, or an error of a library whose text holds the system's number of one.
        verb: what was tried, such as "made" for a folder.
        then: what follows once the cause is gone, such as "the same command goes on".
    """
    number = _number(error)
    remedy = _REMEDIES.get(number, _ELSEWHERE)
    return UserError(str(place), f"cannot be {verb}: {_reason(error, number)}", f"{remedy}; {then}" if then else remedy)


def unreadable(place: object, error: Exception, *, missing: str = "") -> UserError:
    """The error of a file that cannot be read; `missing`: the remedy where there is no such file."""
    number = _number(error)
    remedies = {errno.ENOENT: missing, errno.ENOTDIR: missing, errno.EACCES: "make it readable",
                errno.EPERM: "make it readable", errno.EISDIR: "give a file in it"}
    return UserError(str(place), f"cannot be read: {_reason(error, number)}", remedies.get(number, ""))


def known(error: OSError) -> bool:
    """Whether the cause of a failed write has a remedy of its own."""
    return error.errno in _REMEDIES


def check_no_pointer(path: Path) -> None:
    """Raise UserError where the file is what Git LFS leaves in a clone until its content is fetched."""
    if is_pointer(path):
        raise UserError(str(path), "is a pointer of Git LFS, not the file itself", "`git lfs pull` fetches the file")


def is_pointer(path: Path) -> bool:
    """Whether the file is a pointer of Git LFS."""
    try:
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False


def in_full(path: str | Path) -> str:
    """What a message adds to a relative path: the place it names in the working directory, such as " (/home/me/d)"."""
    return "" if Path(path).is_absolute() else f" ({Path(path).absolute()})"


def _number(error: Exception) -> int:
    """The system's number of the cause; 0 where nothing says."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"(?:os error |errno = )([0-9]+)", str(error))  # as safetensors and HDF5 write it
    return int(found[1]) if found else 0


def _reason(error: Exception, number: int) -> str:
    return os.strerror(number) if number else (str(error) or type(error).__name__).splitlines()[0]
