"""Evaluation: extract a sub-network, recalibrate its BN statistics, score it. The one path for all scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceforall.data import Batch, DataSet, Pictures, eval_batches, normalize
from onceforall.errors import UserError
from onceforall.nn import Subnet, Supernet, extract, input_spread, rebase, recalibrate, take_norms
from onceforall.nn.folding import fold
from onceforall.space import Arch, SearchSpace
from onceforall.training.engine.distributed import Processes, follow_first, summed

CALIBRATION = 2  # how BN is recalibrated; 1: on pictures in the order of the data set, class by class in a folder
CALIBRATION_BATCH = 100
_KEPT_SIZES = 4
_KEPT_BYTES = 1 << 30  # of decoded pictures to score on, all sizes together


@dataclass(frozen=True)
class Score:
    """Accuracies in [0, 1] and mean cross entropy over `images` pictures."""

    top1: float
    top5: float
    loss: float
    images: int


@dataclass(frozen=True, eq=False)
class Compute:
    """Where and in which precision nets run: autocast to `dtype` unless that is float32."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32

    def place(self, net: nn.Module) -> None:
        """Move a net there, its weights channels last, which is the faster format on CPU and GPU."""
        net.to(self.device).to(memory_format=torch.channels_last)

    def run(self, net: Callable[..., Tensor], *inputs: object) -> Tensor:
        """The net's output on `inputs`, under autocast where asked for, never narrower than float32."""
        with self.autocast():
            out = net(*inputs)
        return out.float() if self.dtype != torch.float32 else out

    def autocast(self) -> torch.autocast:
        """The context that nets run in."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


@dataclass(eq=False)
class Evaluator:
    """Scores sub-networks on one data set; every process calls it with the same arguments and gets the same score.

    Recalibration sees a fixed, shuffled sample of `calibration_images` training pictures, without augmentation. That
    sample, and pictures to score on up to 1 GiB, are decoded once for all sub-networks.
    """

    data: DataSet
    compute: Compute = field(default_factory=Compute)
    batch: int = 200
    calibration_images: int = 2000
    workers: int | None = 0
    strict: bool = False
    processes: Processes = field(default_factory=Processes)
    _calibration: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)
    _kept: dict[tuple[int, int], tuple[Pictures, list[Batch]]] = field(default_factory=dict, repr=False)

    def subnet(self, supernet: Supernet, arch: Arch, *, kept: bool = False) -> Subnet:
        """`arch` extracted, in evaluation mode: recalibrated at its resolution, or as it is where its statistics are
        `kept`."""
        net = extract(supernet, arch)
        return net.eval() if kept else self.recalibrated(net, arch.resolution)

    def recalibrated(self, net: Subnet, resolution: int) -> Subnet:
        """The net itself with BN statistics of the calibration sample at `resolution`, in evaluation mode."""
        with self.compute.autocast():
            recalibrate(net, self._calibrating(resolution))
        net.eval()
        return net

    def settled(self, supernet: Supernet, part: SearchSpace) -> Supernet:
        """A copy of a supernet that was trained with fixed statistics, whose sub-networks can be recalibrated.

        The largest sub-network of `part` answers as before. Its statistics are those of the calibration sample at the
        middle resolution of `part`. At the other resolutions they lose less than those of the largest one.
        """
        largest = extract(supernet, part.largest).eval()
        with self.compute.autocast():
            rebase(largest, self._calibrating(part.middle.resolution))
        copy = deepcopy(supernet)
        take_norms(copy, largest)
        return copy

    def input_spread(self, net: Subnet, resolution: int) -> dict[str, Tensor]:
        """`nn.input_spread` on the calibration sample at `resolution`, to the bit the same in every process."""
        with self.compute.autocast():
            spread = input_spread(net, self._calibrating(resolution))
        follow_first(spread.values(), self.processes)
        return spread

    def score(self, supernet: Supernet, arch: Arch, pictures: Pictures, *, kept: bool = False) -> Score:
        """Accuracy of a sub-network of the supernet on `pictures`; `kept` as in `subnet`."""
        return self.score_net(self.subnet(supernet, arch, kept=kept), arch.resolution, pictures)

    def score_net(self, net: nn.Module, resolution: int, pictures: Pictures) -> Score:
        """Accuracy of a net, as it is, on `pictures` at `resolution`; each process takes its share of them."""
        net = fold(net) if isinstance(net, Subnet) else net.eval()
        return _score(net, self._scaled(pictures, resolution), self)

    def confusion(self, net: nn.Module, resolution: int, pictures: Pictures) -> Tensor:
        """Count for which classes a net takes the pictures of each class.

        Args:
            net: scored as it is.
            resolution: the size of the pictures in pixels.
            pictures: each process takes its share of them.

        Returns:
            Counts (K, K) int64 on CPU. Row i holds the pictures of class i, column j those taken for class j.
        """
        net = fold(net) if isinstance(net, Subnet) else net.eval()
        return _confusion(net, self._scaled(pictures, resolution), self)

    def _scaled(self, pictures: Pictures, resolution: int) -> Iterable[Batch]:
        """This process's share of `pictures` at one size, decoded now or kept from before."""
        key = id(pictures), resolution
        if key in self._kept:
            return self._kept[key][1]
        mine = pictures.subset(range(self.processes.rank, len(pictures), self.processes.world))
        batches = self._batches(mine, resolution, self.batch)
        if len(mine) * 3 * resolution**2 * (1 if mine.rounded else 4) > _KEPT_BYTES:
            return batches
        # copies: what workers send lies in shared memory, which may be small, and each piece holds an open file
        self._kept[key] = pictures, [replace(b, images=b.images.clone(), labels=b.labels.clone()) for b in batches]
        while sum(b.images.nbytes for _, kept in self._kept.values() for b in kept) > _KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        return self._kept[key][1]

    def _batches(self, pictures: Pictures, resolution: int, size: int) -> Iterator[Batch]:
        return eval_batches(pictures, resolution, batch=size, framing=self.data.framing, workers=self.workers,
                            strict=self.strict, local_world=self.processes.local_world)

    def _sample(self, resolution: int) -> list[Tensor]:
        """The calibration pictures at one size, decoded once, in batches of one shape."""
        if resolution not in self._calibration:
            chosen = self.data.calibration(self.calibration_images)
            size = min(CALIBRATION_BATCH, len(chosen))
            images = [b.images.clone() for b in self._batches(chosen, resolution, size)]  # copies: as in `_scaled`
            if not images:
                raise UserError("training pictures", "none of the calibration sample can be read")
            whole = torch.cat(images)  # broken pictures are left out: cut anew into batches of one shape
            size = min(size, len(whole))
            self._calibration[resolution] = list(torch.split(whole[:len(whole) // size * size], size))
            if len(self._calibration) > _KEPT_SIZES:
                del self._calibration[next(iter(self._calibration))]
        return self._calibration[resolution]

    def _calibrating(self, resolution: int) -> Iterator[Tensor]:
        return map(self._prepared, self._sample(resolution))

    def _prepared(self, images: Tensor) -> Tensor:
        return normalize(images, self.data.mean, self.data.std, self.compute.device)


@torch.inference_mode()
def _score(net: nn.Module, batches: Iterable[Batch], evaluator: Evaluator) -> Score:
    device = evaluator.compute.device
    totals = torch.zeros(4, dtype=torch.float64, device=device)  # top-1, top-5, loss, pictures
    for logits, labels in _answers(net, batches, evaluator):
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        totals += torch.stack([ranked[:, 0].sum(), ranked.sum(), F.cross_entropy(logits, labels, reduction="sum"),
                               torch.tensor(len(labels), device=device)]).double()
    top1, top5, loss, images = summed(totals, evaluator.processes).tolist()
    if not images:
        raise UserError("validation pictures", "there are none, or none can be read")
    return Score(top1 / images, top5 / images, loss / images, int(images))


@torch.inference_mode()
def _confusion(net: nn.Module, batches: Iterable[Batch], evaluator: Evaluator) -> Tensor:
    counts = torch.zeros(0)
    for logits, labels in _answers(net, batches, evaluator):
        classes = logits.shape[1]
        found = (labels * classes + logits.argmax(1)).bincount(minlength=classes**2)
        counts = found if not len(counts) else counts + found
    if not len(counts):
        raise UserError("validation pictures", "there are none, or none can be read")
    whole = summed(counts.double(), evaluator.processes).long().cpu()
    return whole.view(math.isqrt(len(whole)), -1)


def _answers(net: nn.Module, batches: Iterable[Batch], evaluator: Evaluator) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (B, K) and labels (B,) of each batch."""
    for batch in batches:
        labels = batch.labels.to(evaluator.compute.device)
        yield evaluator.compute.run(net, evaluator._prepared(batch.images)), labels
