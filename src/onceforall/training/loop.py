"""The loop: one training step for every strategy, and the epochs around it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from onceforall.data import DataSet, TrainBatches, normalize
from onceforall.nn import Shared, Supernet
from onceforall.space import Arch
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes, average_gradients
from onceforall.training.evaluate import Compute
from onceforall.training.mixing import Mixture, mixed
from onceforall.training.settings import Loss
from onceforall.training.strategy import Moment, Target, Term

Mark = Callable[[str], AbstractContextManager[None]]  # a context around one part of a step, by name
PARTS = ("data wait", "teacher", "forward", "backward", "reduce", "optimizer")
_UNMARKED = nullcontext()


def unmarked(_part: str) -> AbstractContextManager[None]:
    """The mark that times nothing."""
    return _UNMARKED


@dataclass(eq=False)
class Learner:
    """What learns.

    Args:
        net: the supernet, or one sub-network.
        forward: runs a sub-network: images (B, 3, R, R) and its arch to logits (B, K).
        optimizer: updates the weights.
        teacher: what is learned from, too; None: the labels alone.
        compute: the device and the precision.
        scaler: scales gradients where the precision is float16.
        processes: all processes of the run.
        rate: factor of the stage's learning rate.
        clip: the largest norm of all gradients together; None: any.
        mark: gives a context for each of a step's PARTS, by its name.
    """

    net: nn.Module
    forward: Callable[[Tensor, Arch], Tensor]
    optimizer: torch.optim.Optimizer
    teacher: nn.Module | None
    compute: Compute
    scaler: torch.amp.GradScaler
    processes: Processes
    rate: float = 1.0
    clip: float | None = None
    mark: Mark = unmarked


@dataclass(frozen=True, eq=False)
class StepReport:
    """One step as the loop saw it; `loss` is on the device and summed over the step's sub-networks."""

    epoch: int
    step: int
    steps: int
    resolution: int
    lr: float
    loss: Tensor
    images: int
    seconds: float
    waited: float


def run_epoch(learner: Learner, course: Course, batches: TrainBatches, *, data: DataSet, epoch: int,
              start: int = 0) -> Generator[StepReport]:
    """Train the steps `start`, `start` + 1, .. of an epoch, yielding after each.

    All randomness of a step derives from (seed, epoch, step), and dropout's from the rank too.
    """
    steps = batches.steps_per_epoch
    stage = course.stage
    rates = stage.rate(steps)
    served = batches.epoch(epoch, start)
    learner.net.train()
    if course.stage.bn != "batch":
        for module in learner.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    for step in range(start, steps):
        began = time.perf_counter()
        with learner.mark("data wait"):
            batch = next(served)
            images = normalize(batch.images, data.mean, data.std, learner.compute.device)
            labels = batch.labels.to(learner.compute.device, non_blocking=True)
        waited = time.perf_counter() - began
        key = f"{stage.seed}/{epoch}/{step}"
        moment = Moment(epoch * steps + step, stage.epochs * steps)
        terms = course.strategy(course.space, random.Random(key), moment)
        rate = learner.rate * rates(moment.step)
        with _seeded(f"{key}/{learner.processes.rank}", learner.compute.device):
            loss = train_step(learner, course, images, labels, terms=terms, lr=rate)
        yield StepReport(epoch, step, steps, batch.resolution, rate, loss, len(images) * learner.processes.world,
                         time.perf_counter() - began, waited)


def train_step(learner: Learner, course: Course, images: Tensor, labels: Tensor, *, terms: list[Term],
               lr: float) -> Tensor:
    """One update: gradients of all terms added up, averaged over micro-batches and processes. Returns the loss.

    images: normalised (B, 3, R, R); labels (B,). A parameter that no sub-network of the step uses gets no gradient,
    hence neither weight decay nor momentum, unless the stage asks for both (`update_unused`).
    """
    learner.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), dtype=torch.float64, device=images.device)
    for part in mixed(images, labels, course.stage.mixing).split(course.stage.batches.each):
        share = len(part.images) / len(images)
        wanted = {term.target for term in terms}
        taught: dict[Target, Tensor] = {"teacher": _teach(learner, part.images)} if "teacher" in wanted else {}
        shared = _share(learner, part.images, [term.arch for term in terms])
        for term in terms:
            with learner.mark("forward"):
                logits = learner.compute.run(shared or partial(learner.forward, part.images), term.arch)
                loss = term.weight * _loss(course, term, logits, part, taught)
                if "largest" in wanted and term.arch == course.space.largest:
                    taught["largest"] = torch.softmax(logits.detach(), dim=1)
            with learner.mark("backward"):
                learner.scaler.scale(loss * share).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * share
        if shared is not None:
            with learner.mark("backward"):
                shared.backward()
    _update(learner, lr, unused=course.stage.update_unused)
    return total


def _loss(course: Course, term: Term, logits: Tensor, batch: Mixture, taught: Mapping[Target, Tensor]) -> Tensor:
    """The loss of one sub-network by its target; `taught`: the probabilities of each target that gives some."""
    settings = course.stage.loss
    if term.target == "largest":
        return settings.of_teacher(logits, taught["largest"])
    loss = _of_labels(course, logits, batch)
    if term.target == "teacher":
        return loss + settings.kd_weight * settings.of_teacher(logits, taught["teacher"])
    return loss


def _of_labels(course: Course, logits: Tensor, batch: Mixture) -> Tensor:
    """The weighted loss against the labels of what each picture consists of."""
    settings = course.stage.loss
    if not settings.label_weight:
        return logits.sum() * 0
    loss = _of_known if course.unlabelled else Loss.of_labels
    parts = zip(batch.shares, batch.labels.unbind(1), strict=True)
    return settings.label_weight * sum((share * loss(settings, logits, labels) for share, labels in parts),
                                       logits.new_zeros(()))


def _of_known(settings: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss against labels (B,), which is 0 for a picture without one."""
    known = labels >= 0
    if not known.any():
        return logits.sum() * 0
    return settings.of_labels(logits[known], labels[known]) * (known.sum() / len(labels))


def _update(learner: Learner, lr: float, *, unused: bool) -> None:
    if unused:
        for parameter in learner.net.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    with learner.mark("reduce"):
        average_gradients(learner.net.parameters(), learner.processes)
    for group in learner.optimizer.param_groups:
        group["lr"] = lr
    with learner.mark("optimizer"):
        if learner.clip is not None:
            learner.scaler.unscale_(learner.optimizer)
            nn.utils.clip_grad_norm_(learner.net.parameters(), learner.clip)
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()


def _share(learner: Learner, images: Tensor, archs: list[Arch]) -> Shared | None:
    """What several sub-networks of a supernet have in common."""
    if not isinstance(learner.net, Supernet) or len(archs) == 1:
        return None
    with learner.mark("forward"), learner.compute.autocast():
        return Shared(learner.net, images, archs)


@torch.no_grad()
def _teach(learner: Learner, images: Tensor) -> Tensor:
    assert learner.teacher is not None
    with learner.mark("teacher"):
        return torch.softmax(learner.compute.run(learner.teacher, images), dim=1)


@contextmanager
def _seeded(key: str, device: torch.device) -> Iterator[None]:
    """torch's default generators derive from `key` inside, and are as before afterwards."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(random.Random(key).getrandbits(63))
        yield
