"""Small pictures of one size are decoded once and kept in memory."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from onceforall.data.decode import Broken, BrokenLog
from onceforall.data.pictures import ArrayPictures, Pictures
from onceforall.errors import UserError

MAX_SIDE = 64
MAX_BYTES = 2 * 1024**3
HEADERS = 16  # pictures looked at before deciding
CHUNK = 1000  # pictures a task
MAX_THREADS = 8
PROGRESS_EVERY = 10  # chunks

logger = logging.getLogger(__name__)


def in_memory_if_small(pictures: Pictures, log: BrokenLog) -> Pictures:
    """The pictures in memory, without broken ones, if all have one size up to 64x64 and fit in 2 GiB; else as they are.

    Raises `UserError` if none can be read. If the log is strict, it raises at the first broken one.
    """
    size = _common_size(pictures)
    if size is None or 3 * size[0] * size[1] * len(pictures) > MAX_BYTES:
        return pictures
    images = np.empty((len(pictures), size[1], size[0], 3), dtype=np.uint8)
    broken = _decode_into(images, pictures)
    if broken is None:
        return pictures
    for fault in broken.values():
        log.note(fault)
    if len(broken) == len(pictures):
        raise UserError(pictures.name(0), f"none of {len(pictures)} pictures can be read")
    if broken:
        logger.warning("skipped %d broken pictures of %d", len(broken), len(pictures))
    good = np.setdiff1d(np.arange(len(pictures)), np.fromiter(broken, dtype=np.int64))
    kept = torch.from_numpy(images[good] if broken else images).permute(0, 3, 1, 2).contiguous()
    return ArrayPictures(kept, pictures.labels[torch.from_numpy(good)])


def _common_size(pictures: Pictures) -> tuple[int, int] | None:
    picks = np.unique(np.linspace(0, len(pictures) - 1, HEADERS).astype(int)).tolist()
    sizes = set(filter(None, map(pictures.size, picks)))
    if len(sizes) != 1 or max(next(iter(sizes))) > MAX_SIDE:
        return None
    return sizes.pop()


def _decode_into(images: NDArray[np.uint8], pictures: Pictures) -> dict[int, Broken] | None:
    """Fill images (N, H, W, 3); the broken ones by index, or None when a picture has another size."""

    def decode(start: int) -> dict[int, Broken] | None:
        broken: dict[int, Broken] = {}
        for index in range(start, min(start + CHUNK, len(pictures))):
            pixels = pictures.read(index)
            if isinstance(pixels, Broken):
                broken[index] = pixels
            elif pixels.shape != images.shape[1:]:
                return None
            else:
                images[index] = pixels
        return broken

    every: dict[int, Broken] = {}
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        for done, broken in enumerate(pool.map(decode, range(0, len(pictures), CHUNK)), start=1):
            if broken is None:
                pool.shutdown(cancel_futures=True)
                return None
            every |= broken
            if done % PROGRESS_EVERY == 0:
                logger.info("decoded %d of %d pictures", done * CHUNK, len(pictures))
    return every
