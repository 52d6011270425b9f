"""Evaluation batches: the shorter side scaled, then the centre cut out, in the pictures' order."""

import logging
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from onceforall.data.batch import Batch, Loaded
from onceforall.data.crop import central_box
from onceforall.data.decode import Broken, BrokenLog, Cut, Size
from onceforall.data.pictures import ArrayPictures, Pictures
from onceforall.data.serve import Server, workers_for
from onceforall.data.spec import USUAL_FRAMING, Framing, Loader

MAX_RATIO = 16

logger = logging.getLogger(__name__)


def eval_batches(
    pictures: Pictures, resolution: int, *, batch: int, framing: Framing = USUAL_FRAMING, workers: int | None = 0,
    pin: bool = False, strict: bool = False, local_world: int = 1,
) -> Iterator[Batch]:
    """All pictures once, in order, at one resolution; the last batch may be smaller.

    A broken file is left out, named in a warning and counted; `UserError` if `strict`.
    """
    loader = Loader(batch=batch, workers=workers, pin=pin, strict=strict, local_world=local_world)
    log = BrokenLog(strict=strict)
    load = partial(_load_span, pictures=pictures, resolution=resolution, framing=framing)
    server: Server[range] = Server(load, loader=loader, workers=workers_for(pictures, loader))
    spans = (range(start, min(start + batch, len(pictures))) for start in range(0, len(pictures), batch))
    for loaded in server.run(spans):
        if (ready := loaded.checked(log)) is not None:
            yield ready
    if log.count:
        logger.warning("left out %d broken pictures of %d", log.count, len(pictures))


def scaled_size(width: int, height: int, *, shorter: int) -> Size:
    """(width, height) with the shorter side at `shorter`, the longer one rounded down."""
    longer = shorter * max(width, height) // min(width, height)
    return (shorter, longer) if width <= height else (longer, shorter)


def _load_span(span: range, *, pictures: Pictures, resolution: int, framing: Framing) -> Loaded:
    if not isinstance(pictures, ArrayPictures):
        return _load_each(span, pictures, resolution, framing)
    chosen = pictures.subset(span)
    height, width = chosen.images.shape[-2:]
    new_width, new_height = scaled_size(width, height, shorter=framing.shorter_side(resolution))
    scaled = F.interpolate(
        chosen.images.to(torch.float32).div_(255), (new_height, new_width), mode=framing.interpolation, antialias=True
    )
    return Loaded(Batch(_centre(scaled, resolution).clamp_(0, 1), chosen.labels, resolution), ())


def _load_each(span: range, pictures: Pictures, resolution: int, framing: Framing) -> Loaded:
    aim = partial(_aim, framing.shorter_side(resolution), framing)
    images: list[Tensor] = []
    used: list[int] = []
    broken: list[Broken] = []
    for index in span:
        pixels = pictures.read(index, aim)
        if isinstance(pixels, Broken):
            broken.append(pixels)
        else:
            used.append(index)
            images.append(_centre(torch.from_numpy(pixels).permute(2, 0, 1), resolution).permute(1, 2, 0))
    if not images:
        return Loaded(None, tuple(broken))
    stacked = torch.stack(images).permute(0, 3, 1, 2)
    return Loaded(Batch(stacked, pictures.labels[torch.tensor(used)], resolution), tuple(broken))


def _aim(shorter: int, framing: Framing, width: int, height: int) -> Cut:
    # a strip of 1 x 80,000 pixels would scale to gigabytes: of extreme shapes only the middle
    top, left, cut_height, cut_width = central_box(height, width, ratio=(1 / MAX_RATIO, MAX_RATIO))
    return Cut((left, top, left + cut_width, top + cut_height), scaled_size(cut_width, cut_height, shorter=shorter),
               framing.interpolation)


def _centre(images: Tensor, resolution: int) -> Tensor:
    top, left = (round((extent - resolution) / 2) for extent in images.shape[-2:])
    return images[..., top : top + resolution, left : left + resolution]
