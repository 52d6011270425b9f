"""Augmentation of a whole batch at once: random resized crop, flip and colour jitter."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from onceforall.data.crop import BRIGHTNESS, FLIP, SATURATION, Boxes, Uniform, crop_boxes
from onceforall.data.spec import Augment

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's and torchvision's grey


def augment_arrays(images: Tensor, rows: Uniform, *, resolution: int, augment: Augment) -> Tensor:
    """Images (B, 3, H, W) uint8 to (B, 3, R, R) float32 in [0, 1]; rows (B, 28) as `noise` gives them.

    Bilinear without antialiasing: crops of pictures in memory are enlarged or shrunk a little.
    """
    height, width = images.shape[-2:]
    boxes = crop_boxes(rows, (height, width), augment=augment)
    grid = _sampling_grid(boxes, (height, width), resolution=resolution, flips=_flips(rows, augment))
    scaled = images.to(torch.float32).div_(255)
    cut = F.grid_sample(scaled, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return jitter_colours(cut, rows, augment=augment)


def flip_and_jitter(images: Tensor, rows: Uniform, *, augment: Augment) -> Tensor:
    """Flip and colour jitter of images (B, 3, R, R) uint8, again uint8."""
    flips = _flips(rows, augment)
    if len(images) == 1:
        images = images.flip(-1) if flips else images
    else:
        images = torch.where(flips[:, None, None, None], images.flip(-1), images)
    if augment.brightness == 0 and augment.saturation == 0:
        return images
    scaled = images.to(torch.float32).div_(255)
    return jitter_colours(scaled, rows, augment=augment).mul_(255).round_().to(torch.uint8)


def jitter_colours(images: Tensor, rows: Uniform, *, augment: Augment) -> Tensor:
    """Brightness, then saturation of images (B, 3, R, R) float in [0, 1], each picture by its own factors."""
    if augment.brightness > 0:
        images = images.mul(_factors(rows[:, BRIGHTNESS], augment.brightness)).clamp_(0, 1)
    if augment.saturation > 0:
        factors = _factors(rows[:, SATURATION], augment.saturation)
        red, green, blue = images.unbind(1)
        grey = red.mul(LUMA[0]).add_(green.mul(LUMA[1])).add_(blue.mul(LUMA[2]))[:, None]
        images = images.mul(factors).add_(grey.mul_(1 - factors)).clamp_(0, 1)
    return images


def _factors(uniform: Uniform, strength: float) -> Tensor:
    low = max(0.0, 1 - strength)
    factors = low + (1 + strength - low) * uniform
    return torch.from_numpy(factors.astype(np.float32)).view(-1, 1, 1, 1)


def _flips(rows: Uniform, augment: Augment) -> Tensor:
    return torch.from_numpy((rows[:, FLIP] < 0.5) & augment.flip)


def _sampling_grid(boxes: Boxes, size: tuple[int, int], *, resolution: int, flips: Tensor) -> Tensor:
    """Where each output pixel looks, (B, R, R, 2), in grid_sample's coordinates: -1 and 1 are the edges."""
    centres = (torch.arange(resolution, dtype=torch.float32) + 0.5) / resolution
    columns = torch.where(flips[:, None], centres.flip(0), centres)  # (B, R)
    top, left, cut_height, cut_width = torch.from_numpy(boxes).to(torch.float32).unbind(1)
    across = _axis(columns, left, cut_width, size[1])
    down = _axis(centres.expand(len(boxes), -1), top, cut_height, size[0])
    grid = torch.empty(len(boxes), resolution, resolution, 2)
    grid[..., 0] = across[:, None, :]
    grid[..., 1] = down[:, :, None]
    return grid


def _axis(centres: Tensor, start: Tensor, extent: Tensor, size: int) -> Tensor:
    start, extent = start[:, None], extent[:, None]
    # no further out than the crop's outermost pixel centres: a crop must not see beyond its box
    pixels = (start + centres * extent).clamp(start + 0.5, start + extent - 0.5)
    return pixels * (2 / size) - 1
