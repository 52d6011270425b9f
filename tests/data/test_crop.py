"""The random numbers of an epoch, and torchvision's rule for the random resized crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from onceforall.data import Augment
from onceforall.data.crop import central_box, crop_boxes, noise
from onceforall.data.schedule import epoch_order, step_resolution


def test_noise_belongs_to_the_position() -> None:
    whole = noise(0, 100, seed=1, epoch=2)
    assert np.array_equal(noise(37, 20, seed=1, epoch=2), whole[37:57])
    assert len(np.unique(whole)) == whole.size
    assert not np.array_equal(noise(0, 100, seed=1, epoch=3), whole)
    assert not np.array_equal(noise(0, 100, seed=2, epoch=2), whole)
    assert abs(noise(0, 2000, seed=0, epoch=0).mean(axis=0) - 0.5).max() < 0.04


def test_order_is_a_permutation_by_seed_and_epoch() -> None:
    order = epoch_order(50, seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() != epoch_order(50, seed=0, epoch=1).tolist()
    assert order.tolist() != epoch_order(50, seed=1, epoch=0).tolist()


def test_resolutions_are_drawn_evenly() -> None:
    drawn = [step_resolution((16, 24, 32), seed=0, epoch=1, step=step) for step in range(600)]
    assert np.unique(drawn, return_counts=True)[1].min() > 150
    assert drawn != [step_resolution((16, 24, 32), seed=0, epoch=2, step=step) for step in range(600)]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (300, 200), (20, 90), (1, 1), (1, 500)])
def test_boxes_lie_inside(height: int, width: int) -> None:
    boxes = crop_boxes(noise(0, 3000, seed=0, epoch=0), (height, width), augment=Augment())
    top, left, cut_height, cut_width = boxes.T
    assert min(top.min(), left.min()) >= 0
    assert min(cut_height.min(), cut_width.min()) >= 1
    assert (top + cut_height).max() <= height
    assert (left + cut_width).max() <= width


@pytest.mark.parametrize(("height", "width"), [(64, 64), (120, 80)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int) -> None:
    from torchvision.transforms import RandomResizedCrop

    boxes = crop_boxes(noise(0, 4000, seed=0, epoch=0), (height, width), augment=Augment())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        empty = torch.empty(3, height, width)
        theirs = np.array([RandomResizedCrop.get_params(empty, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    assert boxes.mean(axis=0) == pytest.approx(theirs.mean(axis=0), abs=1.5)
    assert boxes.std(axis=0) == pytest.approx(theirs.std(axis=0), abs=1.2)


def test_where_every_try_fails_the_centre_is_taken() -> None:
    assert crop_boxes(noise(0, 3, seed=0, epoch=0), (10, 100), augment=Augment(crop_scale=(1, 1))).tolist() == (
        [[0, 43, 10, 13]] * 3
    )
    assert central_box(100, 10, ratio=(3 / 4, 4 / 3)) == (43, 0, 13, 10)
    assert central_box(10, 12, ratio=(3 / 4, 4 / 3)) == (0, 0, 10, 12)
