"""Training batches depend on (seed, epoch, step) and on nothing else: workers, ranks and restarts agree bit for bit."""

from __future__ import annotations

import gc
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onceforall.data import ArrayPictures, Augment, Batch, FilePictures, Loader, Pictures, TrainBatches
from onceforall.data.schedule import balanced_order
from onceforall.errors import UserError

SIZES = (8, 12, 17)


def batches(pictures: Pictures, *, seed: int = 0, sizes: tuple[int, ...] = SIZES, **loader: int | bool) -> TrainBatches:
    return TrainBatches(pictures, sizes, augment=Augment(), loader=Loader(**{"batch": 4, **loader}), seed=seed)


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) > 0 and all(
        a.resolution == b.resolution and torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(left, right, strict=True)
    )


@pytest.fixture(params=["array", "files"])
def pictures(request: pytest.FixtureRequest) -> Pictures:
    return request.getfixturevalue(f"{request.param}_pictures" if request.param == "array" else "file_pictures")


def test_an_epoch(pictures: Pictures) -> None:
    source = batches(pictures)
    found = list(source.epoch(0))
    assert len(found) == source.steps_per_epoch == len(pictures) // 4
    for batch in found:
        assert batch.resolution in SIZES
        assert batch.images.shape == (4, 3, batch.resolution, batch.resolution)
        assert batch.images.dtype == (torch.float32 if isinstance(pictures, ArrayPictures) else torch.uint8)
        assert batch.labels.dtype == torch.int64
    labels = torch.cat([batch.labels for batch in found]).tolist()
    assert len(set(labels)) == len(labels)
    assert len({batch.resolution for epoch in range(3) for batch in source.epoch(epoch)}) == 3


def rare(pictures: Pictures) -> Pictures:
    """The same pictures, of which the first one alone is of class 1."""
    labels = torch.zeros(len(pictures), dtype=torch.int64)
    labels[0] = 1
    return replace(pictures, labels=labels)


def test_balanced_batches_hold_as_many_pictures_of_each_class(pictures: Pictures) -> None:
    given, loader = rare(pictures), Loader(batch=4)
    for balanced, share in ((True, 0.5), (False, 1 / len(pictures))):
        source = TrainBatches(given, SIZES, augment=Augment(), loader=loader, seed=0, balanced=balanced)
        assert source.steps_per_epoch == len(pictures) // 4
        labels = torch.cat([batch.labels for epoch in range(20) for batch in source.epoch(epoch)])
        assert float(labels.double().mean()) == pytest.approx(share, abs=0.05)
    source = TrainBatches(given, SIZES, augment=Augment(), loader=loader, seed=0, balanced=True)
    assert same(list(source.epoch(3))[1:], list(source.epoch(3, start=1)))


def test_a_balanced_order_shows_each_picture_as_often_as_the_others_of_its_class() -> None:
    labels = np.repeat([0, 1, 2], [20, 7, 3])
    order = balanced_order(labels, seed=0, epoch=0)
    times = np.bincount(order, minlength=30)
    assert len(order) == 30
    assert [int(times[labels == label].sum()) for label in range(3)] == [10, 10, 10]
    for label, most in ((0, 1), (1, 2), (2, 4)):
        assert times[labels == label].max() == most
        assert times[labels == label].min() >= most - 1
    assert order.tolist() != balanced_order(labels, seed=0, epoch=1).tolist()
    assert labels[order].tolist() != sorted(labels[order])


def test_workers_change_nothing(pictures: Pictures) -> None:
    alone, helped = batches(pictures), batches(pictures, workers=2)
    for epoch in (0, 3):
        assert same(list(alone.epoch(epoch)), list(helped.epoch(epoch)))
    assert same(list(alone.epoch(3, start=1)), list(helped.epoch(3, start=1)))


def test_a_pass_given_up_does_not_disturb_the_next(file_pictures: FilePictures) -> None:
    source = batches(file_pictures, workers=2, batch=2)
    next(source.epoch(0))
    assert same(list(source.epoch(1)), list(batches(file_pictures, batch=2).epoch(1)))


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_a_dropped_pass_stops_its_workers_at_once(file_pictures: FilePictures, in_a_cycle: bool) -> None:
    """Also as the traceback of a caught error keeps them: with themselves."""
    source = batches(file_pictures, workers=2, batch=2)
    running = source.epoch(0)
    next(running)
    kept: list[object] = [source, running]
    if in_a_cycle:
        kept.append(kept)
    began = time.perf_counter()
    del source, running, kept
    gc.collect()
    assert time.perf_counter() - began < 4


def test_start_yields_the_rest_of_the_epoch(pictures: Pictures) -> None:
    source = batches(pictures, batch=3)
    whole = list(source.epoch(1))
    for start in range(1, len(whole)):
        assert same(list(source.epoch(1, start=start)), whole[start:])
    assert list(source.epoch(1, start=source.steps_per_epoch)) == []
    with pytest.raises(ValueError, match="start 99 is not within"):
        next(source.epoch(1, start=99))


def test_two_ranks_together_are_one(pictures: Pictures) -> None:
    alone = list(batches(pictures, batch=6).epoch(2))
    parts = [list(batches(pictures, batch=3, rank=rank, world=2).epoch(2)) for rank in (0, 1)]
    joined = [
        Batch(torch.cat([a.images, b.images]), torch.cat([a.labels, b.labels]), a.resolution)
        for a, b in zip(*parts, strict=True)
    ]
    assert [batch.resolution for batch in parts[0]] == [batch.resolution for batch in parts[1]]
    assert same(joined, alone)


def test_seed_and_epoch_change_everything(pictures: Pictures) -> None:
    base = list(batches(pictures, sizes=(8,)).epoch(0))
    assert same(base, list(batches(pictures, sizes=(8,)).epoch(0)))
    for other in (batches(pictures, sizes=(8,)).epoch(1), batches(pictures, sizes=(8,), seed=1).epoch(0)):
        for left, right in zip(base, other, strict=True):
            assert left.labels.tolist() != right.labels.tolist()
            assert not torch.equal(left.images, right.images)


def test_a_small_data_set_wraps_around(pictures: Pictures) -> None:
    source = batches(pictures.subset(range(3)), batch=4, world=2, rank=1, sizes=(8,))
    assert source.steps_per_epoch == 1
    (batch,) = source.epoch(0)
    both = torch.cat([batch.labels, *(b.labels for b in batches(pictures.subset(range(3)), batch=4, world=2).epoch(0))])
    assert torch.bincount(both).sort().values.tolist() == [2, 3, 3]
    twice = [batch.images[i] for i in range(4) if batch.labels[i] == batch.labels[0]]
    assert not torch.equal(twice[0], twice[1]), "a repeated picture is augmented anew"


def test_the_global_generators_are_left_alone(pictures: Pictures) -> None:
    before = torch.get_rng_state()
    list(batches(pictures).epoch(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_replaced_by_the_next(
    file_pictures: FilePictures, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    for index in (5, 6, 12):
        Path(file_pictures.paths[index]).write_bytes(b"")
    source = batches(file_pictures, batch=13, workers=workers)
    for epoch in (0, 1):
        (batch,) = source.epoch(epoch)
        assert sorted(batch.labels.tolist()) == [0, 0, 1, 2, 3, 4, 7, 7, 7, 8, 9, 10, 11]
    assert source.broken == 3
    assert caplog.text.count(file_pictures.paths[5]) == 1
    assert same([batch], list(batches(file_pictures, batch=13).epoch(1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_stops_with_one_line(file_pictures: FilePictures, workers: int) -> None:
    Path(file_pictures.paths[5]).write_bytes(b"")
    with pytest.raises(UserError, match=r"05\.png: broken picture \(not a picture\)") as caught:
        list(batches(file_pictures, batch=13, workers=workers, strict=True).epoch(0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_readable_ends(file_pictures: FilePictures, workers: int) -> None:
    for path in file_pictures.paths:
        Path(path).unlink()
    with pytest.raises(UserError, match="gave up after 13 broken pictures .*No such file"):
        list(batches(file_pictures, workers=workers).epoch(0))


def test_a_worker_that_dies_is_named(file_pictures: FilePictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceforall.data.training._load_each", lambda *_, **__: die())
    with pytest.raises(UserError, match=r"data\.workers: DataLoader worker .*; use fewer workers") as caught:
        list(batches(file_pictures, workers=1).epoch(0))
    assert "\n" not in str(caught.value)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sizes": ()}, "resolutions"), ({"sizes": (0,)}, "resolutions"), ({"seed": -1}, "seed: -1 is negative")],
)
def test_wrong_arguments(array_pictures: ArrayPictures, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        batches(array_pictures, **change)


def test_no_pictures(array_pictures: ArrayPictures) -> None:
    with pytest.raises(UserError, match="there are no training pictures"):
        batches(array_pictures.subset([]))
