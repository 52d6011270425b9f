"""Lock: one run at a time writes into a folder."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from onceforall.errors import UserError
from onceforall.files import make_folder

_log = logging.getLogger(__name__)
LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and hold it while inside; one that is still empty then is removed.

    The system lets go of it when the process ends, however it ends. Raises UserError where another process holds it. A
    record lock: worker processes do not inherit it.
    """
    make_folder(folder)
    file = _acquired(folder / LOCK)
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink()
            folder.rmdir()
        if file is not None:
            os.close(file)


def _acquired(path: Path) -> int | None:
    """The locked file; None where the file system knows no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            holder = os.read(file, 200).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise UserError(str(path.parent), f"is being written by {holder}", "wait for it, stop it, or give another "
                            "-o") from None
        except OSError as error:
            _log.warning("%s cannot be locked (%s): see that no second run writes there", path.parent, error.strerror)
            os.close(file)
            return None
        if _same_file(file, path):  # and not one that its holder has removed meanwhile
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
            return file
        os.close(file)


def _lock(file: int) -> None:
    """Lock an open file for this process, by what the system has; raises OSError where another one holds it."""
    if sys.platform == "win32":
        import msvcrt
        os.lseek(file, 1 << 30, os.SEEK_SET)  # beyond the name of the holder: what is locked cannot be read there
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
    else:
        import fcntl
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same_file(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
