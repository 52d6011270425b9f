"""Running a loading function over a sequence of jobs, here or in worker processes."""

import errno
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache, partial
from multiprocessing.connection import Connection, wait
from multiprocessing.queues import Queue
from multiprocessing.util import Finalize, get_temp_dir
from threading import Thread
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from onceforall.data.batch import Loaded
from onceforall.data.pictures import Pictures
from onceforall.data.spec import Loader, default_workers
from onceforall.errors import UserError

_log = logging.getLogger(__name__)
_SHARED = "/dev/shm"
_ENLARGE = f"give {_SHARED} more room (docker run --shm-size=1g)"
_FEWER = "use fewer workers, 0 to load in this process"
_LONGEST = 107 - len("/listener-01234567")  # bytes; the name of a socket between processes has at most 107
Job = TypeVar("Job")


class _Jobs(Dataset[Loaded], Generic[Job]):
    """A data set indexed by jobs, not by numbers: whatever a batch needs travels with its job to the worker."""

    def __init__(self, load: Callable[[Job], Loaded]) -> None:
        self._load = load

    def __getitem__(self, job: Job) -> Loaded:
        loaded = self._load(job)
        return loaded if get_worker_info() is None else _shared(loaded)


class _Feed(Sampler[Job]):
    """The jobs of the next pass; a settable field, because persistent workers need one DataLoader for all passes."""

    def __init__(self) -> None:
        self.jobs: Iterator[Job] = iter(())

    def __iter__(self) -> Iterator[Job]:
        return self.jobs


def _farewell(owner: object) -> Connection:
    """What becomes readable when `owner` is dropped, or this process is about to end.

    Workers have to hear of the end of the process before multiprocessing waits for them. They have to hear of a dropped
    owner in this way, too: where it is part of a cycle, Python closes their queues before torch tells them to end.
    """
    hear, tell = multiprocessing.Pipe(duplex=False)
    Finalize(owner, tell.send_bytes, args=(b"",), exitpriority=1)
    return hear


def _begin_worker(farewell: Connection, _worker: int) -> None:
    """Let a worker live exactly as long as its parent wants.

    A terminal's Ctrl-C and a scheduler's SIGTERM reach workers too, and a run still needs them until it has saved.
    multiprocessing and torch end workers by SIGTERM, which is therefore replaced by what a thread waits for.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    Thread(target=_end_with, args=([parent.sentinel, farewell],), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The parent hears of a dead worker, and says it in one line. It never hears of a batch that gets lost on its way,
    # and would wait for ever; torch's own message about a bus error would be a second line.
    if hasattr(signal, "SIGBUS"):
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
    setattr(Queue, "_on_queue_feeder_error", staticmethod(lambda *_: os._exit(1)))  # noqa: B010


def _end_with(signs: list[Any]) -> None:
    wait(signs)
    os._exit(0)


def died(error: RuntimeError) -> UserError | None:
    """The UserError for torch's RuntimeError about a dead worker; None for another error.

    Torch raises it in the main thread, whatever that does.
    """
    said = [" ".join(str(each).split()) for each in (error.__cause__, error)]  # the cause may name the signal
    said = [text for text in said if "DataLoader worker (pid" in text]
    if not said:
        return None
    remedy = f"{_ENLARGE}, or {_FEWER}" if "Bus error" in said[0] else _FEWER
    return UserError("data.workers", said[0].rstrip("."), remedy)


def _shared(loaded: Loaded) -> Loaded:
    """What a worker loaded, with its images in shared memory; where that is full they go through a pipe."""
    if loaded.batch is None:
        return loaded
    try:
        loaded.batch.images.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        return loaded._replace(piped=True)
    return loaded


@cache
def _say_piped() -> None:
    """Warn once in this process."""
    _log.warning("%s is full: workers hand their pictures over through pipes, which is slower; %s, or use fewer "
                 "workers", _SHARED, _ENLARGE)


def workers_for(pictures: Pictures, loader: Loader) -> int:
    """The loader's worker processes; by default none for pictures in memory and `default_workers` for others."""
    if loader.workers is not None:
        return loader.workers
    return default_workers(loader.local_world) if pictures.in_workers else 0


class Server(Generic[Job]):
    """Maps `load` (picklable) over jobs in `workers` processes that live as long as this object; 0 for none.

    Results come in the order of the jobs. One pass at a time: with workers, starting a pass ends the one before.
    """

    def __init__(self, load: Callable[[Job], Loaded], *, loader: Loader, workers: int) -> None:
        self._feed: _Feed[Job] = _Feed()
        # Workers take over their parent's temporary folder, which removes it; they end too fast to remove their own.
        if workers and len(os.fsencode(folder := get_temp_dir())) > _LONGEST:
            raise UserError("data.workers", f"cannot be started: the path of the temporary folder {folder} is too long",
                            f"set TMPDIR to a shorter one, or {_FEWER}")
        # batch_size None: a job is a whole batch. A worker runs torch on one thread, torch's own default there.
        # Its own generator: DataLoader would draw from the global one and shift the caller's random numbers.
        self._source = DataLoader(
            _Jobs(load),
            batch_size=None,
            sampler=self._feed,
            num_workers=workers,
            prefetch_factor=loader.prefetch if workers else None,
            persistent_workers=workers > 0,
            pin_memory=loader.pin and torch.cuda.is_available(),
            generator=torch.Generator(),
            worker_init_fn=partial(_begin_worker, _farewell(self)) if workers else None,
        )

    def run(self, jobs: Iterator[Job]) -> Iterator[Loaded]:
        """The results of `jobs`; `UserError` when a worker process cannot be started, or dies."""
        self._feed.jobs = jobs
        try:
            source = iter(self._source)
        except OSError as error:
            raise UserError("data.workers", f"cannot be started: {error.strerror}",
                            f"{_FEWER}; they need memory, and some room in {_SHARED}") from error
        try:
            for loaded in source:
                if loaded.piped:
                    _say_piped()
                yield loaded
        except RuntimeError as error:
            worker = died(error)
            if worker is None:
                raise
            raise worker from error
