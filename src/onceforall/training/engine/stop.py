"""Stopping: SIGTERM and Ctrl-C let a run save what it has before it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and what it had is saved. Not an Exception: nothing on its way may take it for one."""


class Stop:
    """Listens for SIGTERM and SIGINT while inside; `asked` is the one that came.

    Either raises `Stopped` at once, except inside `deferred`: whoever runs there looks at `asked` and saves first. A
    second Ctrl-C does not wait for that. Only in the process that made it (not its workers), on its main thread.
    """

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._deferred, self._process = False, os.getpid()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._hear) for s in (signal.SIGTERM, signal.SIGINT)
                            if signal.getsignal(s) is not signal.SIG_IGN}  # as the shell has it for what runs behind
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        impatient = self.asked is not None and number == signal.SIGINT
        self.asked = signal.Signals(number)
        if impatient or not self._deferred:
            raise Stopped(f"stopped by {self.asked.name}")

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only note a signal that comes while inside."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def check(self) -> None:
        """Raise `Stopped` for a signal that was noted."""
        if self.asked is not None:
            raise Stopped(f"stopped by {self.asked.name}")
