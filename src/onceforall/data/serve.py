"""Running a loading function over a sequence of jobs, here or in worker processes."""

import signal
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from onceforall.data.batch import Loaded
from onceforall.data.pictures import ArrayPictures, Pictures
from onceforall.data.spec import Loader, default_workers
from onceforall.space.errors import UserError

Job = TypeVar("Job")


class _Jobs(Dataset[Loaded], Generic[Job]):
    """A data set indexed by jobs, not by numbers: whatever a batch needs travels with its job to the worker."""

    def __init__(self, load: Callable[[Job], Loaded]) -> None:
        self._load = load

    def __getitem__(self, job: Job) -> Loaded:
        return self._load(job)


class _Feed(Sampler[Job]):
    """The jobs of the next pass; a settable field, because persistent workers need one DataLoader for all passes."""

    def __init__(self) -> None:
        self.jobs: Iterator[Job] = iter(())

    def __iter__(self) -> Iterator[Job]:
        return self.jobs


def _outlive_signals(_worker: int) -> None:
    """A terminal's Ctrl-C and a scheduler's SIGTERM reach workers too: they stay until the run has saved, however long
    its step takes, and ends them, or has died. A second SIGTERM ends a worker, as torch and then Python end one that
    hangs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def died(error: RuntimeError) -> UserError | None:
    """What torch's RuntimeError about a dead worker comes to; None for another. Torch raises it in the main thread,
    wherever that is."""
    if "DataLoader worker" not in str(error):
        return None
    return UserError("data.workers", " ".join(str(error).split()), "use fewer workers, 0 to load in this process")


def workers_for(pictures: Pictures, loader: Loader) -> int:
    """The loader's worker processes; by default none for pictures in memory and `default_workers` for files."""
    if loader.workers is not None:
        return loader.workers
    return 0 if isinstance(pictures, ArrayPictures) else default_workers(loader.local_world)


class Server(Generic[Job]):
    """Maps `load` (picklable) over jobs in `workers` processes that live as long as this object; 0 for none.

    Results come in the order of the jobs. One pass at a time: with workers, starting a pass ends the one before.
    """

    def __init__(self, load: Callable[[Job], Loaded], *, loader: Loader, workers: int) -> None:
        self._feed: _Feed[Job] = _Feed()
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
            worker_init_fn=_outlive_signals,
        )

    def run(self, jobs: Iterator[Job]) -> Iterator[Loaded]:
        """The results of `jobs`; `UserError` when a worker process dies."""
        self._feed.jobs = jobs
        try:
            yield from self._source
        except RuntimeError as error:
            worker = died(error)
            if worker is None:
                raise
            raise worker from error
