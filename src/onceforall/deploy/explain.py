"""What each block of a sub-network loses by int8: one block at a time in int8, the others in float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from onceforall.data import DataSet, sample
from onceforall.deploy.blocks import block_names, within
from onceforall.deploy.ends import Images
from onceforall.deploy.export import Request, calibration, opened_subnet
from onceforall.deploy.job import Infer, Job
from onceforall.deploy.verify import answered, prepared
from onceforall.errors import UserError
from onceforall.functions import Listener, tell
from onceforall.nn import Subnet
from onceforall.nn.folding import fold

_PICTURES, _CALIBRATION, _BATCH = 200, 50, 50
_MEAN = "pool"  # the name of the global mean in the graphs; it is in no block


@dataclass(frozen=True, kw_only=True)
class BlockLoss:
    """What int8 of one block alone costs.

    Args:
        block: its name.
        error: root mean square of the differences of logits, divided by that of the logits.
        changed: how many pictures get another top-1.
        images: how many pictures there were.
        points: points of top-1 that are lost; negative where some are gained.
    """

    block: str
    error: float
    changed: int
    images: int
    points: float


def explain(folder: Path, request: Request, data: DataSet | None = None, *,
            listener: Listener | None = None) -> list[BlockLoss]:
    """Measure the loss of each block alone in int8, the worst first.

    Args:
        folder: of an extracted sub-network; nothing is written into it.
        request: what would be exported; the blocks that it keeps in float are left out.
        data: training pictures of it calibrate; held-out ones measure, or test ones where there are none.
        listener: hears of each block that is done.

    Raises:
        UserError: for another precision than int8, and without data.
    """
    target = request.check()
    if request.precision != "int8":
        raise UserError("--explain", "shows what int8 loses", "give --int8")
    net, about = opened_subnet(folder, request)
    batch = target.batch("int8", request.batch)
    few = replace(request, calibration_images=min(_CALIBRATION, request.calibration_images), pixels=False,
                  softmax=False)
    batches = calibration(few, data, about, batch)
    assert data is not None  # `calibration` refuses to do without
    seen = _sample(net, data, about.resolution, batch)
    blocks, found = block_names(net.plan), []
    wanted = [block for block in blocks if not within(block, request.keep)]
    for done, block in enumerate(wanted, 1):
        keep = (*request.keep, _MEAN, *(other for other in blocks if other != block))
        job = Job(fold(net), about, "int8", batch, calibration=batches, full_range=request.full_range, keep=keep)
        with TemporaryDirectory(prefix="ofa-explain-") as place:
            path = Path(place) / request.file(target)
            target.module().write(job, path)
            found.append(seen.loss(block, target.module().opened(path, request.threads), batch))
        tell(listener, "explain", done=done, of=len(wanted))
    return sorted(found, key=lambda loss: loss.error, reverse=True)


@dataclass(frozen=True, eq=False)
class _Sample:
    """Normalised pictures in batches, their labels (N,), and the net's logits (N, classes) in float."""

    images: Sequence[Images]
    labels: NDArray[np.int64]
    logits: Images

    def loss(self, block: str, infer: Infer, batch: int) -> BlockLoss:
        """What the net with `block` in int8 answers, beside its logits in float."""
        logits = np.concatenate([answered(infer, images, batch) for images in self.images])
        top, wanted = logits.argmax(1), self.logits.argmax(1)
        right = int((wanted == self.labels).sum()) - int((top == self.labels).sum())
        error = np.sqrt(((logits - self.logits) ** 2).mean() / (self.logits ** 2).mean())
        return BlockLoss(block=block, error=float(error), changed=int((top != wanted).sum()), images=len(top),
                         points=100 * right / len(top))


def _sample(net: Subnet, data: DataSet, resolution: int, batch: int) -> _Sample:
    pictures = sample(data.held_out if len(data.held_out) else data.test, _PICTURES, classes=data.classes, seed=0)
    batches = list(prepared(pictures, data, resolution, batch or _BATCH))
    with torch.inference_mode():
        logits = [net(torch.from_numpy(images)).numpy() for images, _ in batches]
    return _Sample([images for images, _ in batches], np.concatenate([labels.numpy() for _, labels in batches]),
                   np.concatenate(logits))
