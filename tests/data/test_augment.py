"""Batched augmentation does what torchvision does picture by picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as V

from onceforall.data import ArrayPictures, Augment
from onceforall.data.augment import augment_arrays, flip_and_jitter, jitter_colours
from onceforall.data.crop import BRIGHTNESS, FLIP, SATURATION, crop_boxes, noise

PLAIN = Augment(crop_scale=(1, 1), ratio=(0.1, 10), flip=False, brightness=0, saturation=0)


@pytest.mark.parametrize("resolution", [8, 16, 21])
def test_crop_and_flip_equal_torchvisions(array_pictures: ArrayPictures, resolution: int) -> None:
    augment = Augment(brightness=0, saturation=0)
    rows = noise(0, 30, seed=0, epoch=0)
    got = augment_arrays(array_pictures.images, rows, resolution=resolution, augment=augment)
    assert got.shape == (30, 3, resolution, resolution)
    boxes = crop_boxes(rows, (16, 12), augment=augment).tolist()
    for image, box, row, result in zip(array_pictures.images, boxes, rows, got, strict=True):
        expected = V.resized_crop(image.float() / 255, *box, [resolution, resolution], antialias=False)
        torch.testing.assert_close(result, expected.flip(-1) if row[FLIP] < 0.5 else expected, atol=1e-5, rtol=0)


def test_no_augmentation_is_the_identity() -> None:
    images = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    square = Augment(crop_scale=(1, 1), ratio=(1, 1), flip=False, brightness=0, saturation=0)
    got = augment_arrays(images, noise(0, 5, seed=0, epoch=0), resolution=8, augment=square)
    torch.testing.assert_close(got, images / 255, atol=1e-6, rtol=0)


def test_colours_equal_torchvisions(array_pictures: ArrayPictures) -> None:
    rows = noise(0, 30, seed=0, epoch=0)
    images = array_pictures.images.float() / 255
    got = jitter_colours(images, rows, augment=Augment(brightness=0.4, saturation=0.5))
    for image, row, result in zip(images, rows, got, strict=True):
        brighter = V.adjust_brightness(image, 0.6 + 0.8 * row[BRIGHTNESS])
        expected = V.adjust_saturation(brighter, 0.5 + row[SATURATION])
        torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)
    assert (got.min() >= 0) & (got.max() <= 1)


def test_a_strength_above_one_never_turns_negative() -> None:
    rows = np.full((1, 28), 0.4)  # 0.4 of the way from 0 to 4
    grey = jitter_colours(torch.full((1, 3, 2, 2), 0.5), rows, augment=Augment(brightness=3, saturation=0))
    torch.testing.assert_close(grey, torch.full((1, 3, 2, 2), 0.8))


def test_bytes_flip_and_jitter(array_pictures: ArrayPictures) -> None:
    rows = noise(0, 30, seed=0, epoch=0)
    images = array_pictures.images
    before = images.clone()
    flipped = flip_and_jitter(images, rows, augment=Augment(brightness=0, saturation=0))
    for image, row, result in zip(images, rows, flipped, strict=True):
        assert torch.equal(result, image.flip(-1) if row[FLIP] < 0.5 else image)
    assert torch.equal(flip_and_jitter(images, rows, augment=PLAIN), images)
    coloured = flip_and_jitter(images, rows, augment=Augment(flip=False))
    assert coloured.dtype == torch.uint8
    floats = jitter_colours(images.float() / 255, rows, augment=Augment())
    assert ((coloured.float() / 255 - floats).abs() <= 0.5001 / 255).all()
    assert torch.equal(images, before)
