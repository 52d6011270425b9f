"""Files: written as a whole or not at all, strict JSON, and what a failed read or write means for the user."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onceforall.errors import UserError

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
_DEEPEST = 20  # levels of JSON
_POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def replacing(path: Path, *, causes: tuple[type[Exception], ...] = (OSError,), then: str = "",
              before: Path | None = None) -> Iterator[Path]:
    """Write a file as a whole or not at all.

    The block writes to the path that it is given, in the same folder. When it ends well, that file takes the place of
    `path`; when it does not, nothing is left of it. The folder is made.

    Args:
        path: the file to write.
        causes: what the block raises where it cannot write.
        then: what follows once the cause is gone, such as "the same command goes on".
        before: where the file that is replaced stays.

    Raises:
        UserError: for an error of `causes`.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()  # its error says why the file cannot be written; those of libraries may not
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        if before is not None and path.exists():
            os.replace(path, before)
        os.replace(partial, path)
    except causes as error:
        raise unwritable(path, error, then=then) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, then: str = "") -> None:
    """Write a text as UTF-8, as a whole or not at all; raises UserError where it cannot be written."""
    with replacing(path, then=then) as partial:
        partial.write_text(text, encoding="utf-8")


def make_folder(folder: Path) -> None:
    """Make the folder if it is not there; raises UserError where that is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, verb="made") from None


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


def read_text(path: str | Path, *, missing: str = "") -> str:
    """The text of a file in UTF-8; raises UserError where it cannot be read.

    Args:
        path: the file; it may begin with a byte order mark.
        missing: the remedy where there is no such file.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(path, error, missing=missing) from None
    except ValueError as error:
        raise UserError(str(path), f"cannot be read: {error}") from None


def start_of(path: Path, count: int, *, missing: str = "") -> bytes:
    """The first bytes of a file; raises UserError where it cannot be read, or is a pointer of Git LFS.

    Args:
        path: the file.
        count: how many bytes.
        missing: the remedy where there is no such file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(count)
    except OSError as error:
        raise unreadable(path, error, missing=missing) from None
    check_no_pointer(path)
    return start


def read_object(path: str | Path, *, remedy: str) -> dict[str, Any]:
    """The JSON object in a file; raises UserError with that remedy where it holds another value."""
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, dict):
        raise UserError(str(path), "holds no JSON object at the top", remedy)
    return value


def known(error: OSError) -> bool:
    """Whether the cause of a failed write has a remedy of its own."""
    return error.errno in _REMEDIES


def check_no_pointer(path: Path) -> None:
    """Raise UserError where the file is what Git LFS leaves in a clone until its content is fetched."""
    with suppress(OSError), path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(str(path), "is a pointer of Git LFS, not the file itself",
                            "`git lfs pull` fetches the file")


def in_full(path: str | Path) -> str:
    """What a message adds to a relative path: the place it names in the working directory, such as " (/home/me/d)"."""
    return "" if Path(path).is_absolute() else f" ({Path(path).absolute()})"


def _number(error: Exception) -> int:
    """The system's number of the cause; 0 where the error does not have one."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"errno = ([0-9]+)", str(error))  # as HDF5 writes it
    return int(found[1]) if found else 0


def _reason(error: Exception, number: int) -> str:
    return os.strerror(number) if number else (str(error) or type(error).__name__).splitlines()[0]


class _Object(dict[str, Any]):
    """A JSON object that remembers a key that it has twice."""

    repeated: str | None = None


def parse_json(text: str, place: str) -> Any:
    """The value of strict JSON; raises UserError for a syntax error, a repeated key, NaN and Infinity."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise UserError(place, f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(place, f"is not JSON that can be read: {type(error).__name__}: {error}") from None
    check_plain(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    found = _Object(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        found.repeated = next(key for i, key in enumerate(keys) if key in keys[:i])
    return found


def check_plain(value: Any, loc: tuple[str | int, ...] = ()) -> None:
    """Raises UserError where `value` holds what JSON does not, or the same key twice."""
    place = dotted(loc) or "configuration"
    if len(loc) > _DEEPEST:
        raise UserError(place, f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, Mapping):
        if isinstance(value, _Object) and value.repeated is not None:
            raise UserError(dotted((*loc, value.repeated)), "is given twice", "delete one of the two")
        for key, entry in value.items():
            if not isinstance(key, str) or _broken(key):
                raise UserError(place, f"key {key!a} is not a text")
            check_plain(entry, (*loc, key))
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            check_plain(entry, (*loc, i))
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(place, f"{value} is not a finite number")
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(place, "is a whole number of more than 63 bits")
    elif isinstance(value, str) and _broken(value):
        raise UserError(place, f"{shown(value)} has half a character in it (a lone surrogate)")
    elif value is not None and not isinstance(value, str | int):
        raise UserError(place, f"a value of type {type(value).__name__} has no JSON form")


def _broken(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def dotted(loc: Sequence[str | int]) -> str:
    """`stages.full.choices[4]` for ("stages", "full", "choices", 4)."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if re.fullmatch(r"[\w-]+", part, re.ASCII) else shown(part))
    return text


def shown(value: Any) -> str:
    """A value as it stands in a file, on one line and not too long."""
    return shortened(json.dumps(value, default=repr), 60)


def shortened(text: str, length: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= length else text[:length - 3] + "..."
