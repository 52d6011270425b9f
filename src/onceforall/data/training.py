"""Training batches: shuffled, augmented, each at the resolution of its step, and resumable to the bit."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from onceforall.data.augment import augment_arrays, flip_and_jitter
from onceforall.data.batch import Batch, Loaded
from onceforall.data.cache import cached
from onceforall.data.crop import Uniform, crop_boxes
from onceforall.data.decode import Aim, Broken, BrokenLog, Cut
from onceforall.data.pictures import ArrayPictures, Pictures
from onceforall.data.schedule import Schedule, Step
from onceforall.data.serve import Server, workers_for
from onceforall.data.spec import Augment, Loader
from onceforall.errors import UserError

MAX_REPLACEMENTS = 1000  # broken pictures in a row before a data set counts as unreadable


class TrainBatches:
    """The training batches of every epoch, a function of (seed, epoch, step) alone.

    Each epoch shuffles the pictures, a step takes the next `batch * world` of them and rank r their r-th slice; the
    last incomplete step is dropped. A data set smaller than one step wraps around. `resolutions` lists the sizes a
    step draws from. Random numbers belong to a picture's position in the epoch: neither workers nor ranks nor
    the starting step change a batch. A broken picture is replaced by the next readable one of the data set. `balanced`
    draws every class equally often instead of every picture once.
    """

    def __init__(
        self, pictures: Pictures, resolutions: Sequence[int], *, augment: Augment, loader: Loader, seed: int,
        balanced: bool = False,
    ) -> None:  # fmt: skip
        if len(pictures) == 0:
            raise UserError("data", "there are no training pictures")
        labels = pictures.labels.numpy() if balanced else None
        self._schedule = Schedule(len(pictures), tuple(resolutions), loader=loader, seed=seed, labels=labels)
        self._log = BrokenLog(strict=loader.strict)
        workers = workers_for(pictures, loader)
        kept = cached(pictures, resolutions, augment=augment, limit=loader.cache,
                      readers=max(1, workers) * loader.local_world)
        load = partial(_load_step, pictures=kept, augment=augment)
        self._server: Server[Step] = Server(load, loader=loader, workers=workers)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the same on every rank, at least 1."""
        return self._schedule.steps_per_epoch

    @property
    def broken(self) -> int:
        """Broken picture files met so far, each counted once."""
        return self._log.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches start, start + 1, ... of an epoch.

        One epoch runs at a time: starting the next ends the one before. Raises `UserError` at a broken picture if
        the loader is strict, when too many in a row are broken, and when a worker process dies.
        """
        for loaded in self._server.run(self._schedule.steps(epoch, start)):
            batch = loaded.checked(self._log)
            if batch is None:
                last = loaded.broken[-1]
                raise UserError(last.path, f"gave up after {len(loaded.broken)} broken pictures ({last.reason})")
            yield batch


def _load_step(step: Step, *, pictures: Pictures, augment: Augment) -> Loaded:
    if not isinstance(pictures, ArrayPictures):
        return _load_each(step, pictures, augment=augment)
    chosen = pictures.subset(step.indices.tolist())
    images = augment_arrays(chosen.images, step.rows, resolution=step.resolution, augment=augment)
    return Loaded(Batch(images, chosen.labels, step.resolution), ())


def _load_each(step: Step, pictures: Pictures, *, augment: Augment) -> Loaded:
    images: list[Tensor] = []
    used: list[int] = []
    broken: list[Broken] = []
    for index, row in zip(step.indices.tolist(), step.rows, strict=True):
        found = _first_readable(pictures, index, partial(_aim, row[None], augment, step.resolution), broken)
        if found is None:
            return Loaded(None, tuple(broken))
        used.append(found[0])
        # picture by picture: the colours take half the time of a batch's, as one picture stays in the cache
        images.append(flip_and_jitter(found[1][None], row[None], augment=augment))
    return Loaded(Batch(torch.cat(images), pictures.labels[torch.tensor(used)], step.resolution), tuple(broken))


def _first_readable(
    pictures: Pictures, index: int, aim: Aim, broken: list[Broken]
) -> tuple[int, Tensor] | None:
    """The picture at `index`, or the next readable one, as (index, (3, R, R)); adds what it met to `broken`."""
    for offset in range(min(len(pictures), MAX_REPLACEMENTS)):
        candidate = (index + offset) % len(pictures)
        pixels = pictures.read(candidate, aim)
        if not isinstance(pixels, Broken):
            return candidate, torch.from_numpy(pixels).permute(2, 0, 1)
        broken.append(pixels)
    return None


def _aim(row: Uniform, augment: Augment, resolution: int, width: int, height: int) -> Cut:
    top, left, cut_height, cut_width = crop_boxes(row, (height, width), augment=augment)[0].tolist()
    return Cut((left, top, left + cut_width, top + cut_height), (resolution, resolution))
