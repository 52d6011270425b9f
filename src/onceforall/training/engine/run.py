"""Run: one stage, trained in one output folder, from its start or from where it stopped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onceforall.cost import macs
from onceforall.data import BEFORE, DataSet, Depth, Known, Loader, TrainBatches
from onceforall.errors import UserError
from onceforall.nn import Subnet, Supernet, convolution
from onceforall.space import Arch
from onceforall.training.course import Course, course_of
from onceforall.training.engine import checkpoint
from onceforall.training.engine.checkpoint import Position
from onceforall.training.engine.distributed import follow_first, gathered, summed, told, wait
from onceforall.training.engine.guard import Guard, Setback
from onceforall.training.engine.journal import UNTRAINED, Journal, tag
from onceforall.training.engine.lock import locked
from onceforall.training.engine.output import (
    check_alike,
    check_files,
    check_output,
    check_pictures,
    check_there,
    files_of,
    finished,
    identity,
    lasting,
)
from onceforall.training.engine.places import write_config, write_paths
from onceforall.training.engine.stop import Stopped
from onceforall.training.engine.threads import keep_threads
from onceforall.training.engine.trace import PROFILE, STEPS, WARM_UP, profiled
from onceforall.training.evaluate import Evaluator, Score
from onceforall.training.loop import StepReport, run_epoch
from onceforall.training.setup import Options, check_classes, check_trainable, data_of, learner_of
from onceforall.training.stage import Training
from onceforall.weights.forms import form_to_write
from onceforall.weights.nets import NNABLA_WEIGHTS, WEIGHTS, Trained, classes_of, save

_log = logging.getLogger(__name__)
_LOOK = 10  # steps on a GPU from one look at loss, clock and signals to the next: a look waits for the GPU


def train(training: Training, output: Path, options: Options | None = None) -> None:
    """Train in a folder. A stopped run goes on, and a finished one is left as it is.

    It leaves config.json, paths.json, weights.safetensors, weights.h5 (of NNablaNAS's families), a checkpoint,
    metrics.jsonl, TensorBoard events and log.txt. Several processes call it inside `joined`. A run that goes on
    computes with as many threads as it began with.

    Args:
        training: what is trained.
        output: the folder.
        options: how to run. `profile` also leaves the folder profile, with a trace and a table of a few steps.
            `threads` changes the number of threads of a run that goes on.

    Raises:
        UserError: it cannot be run. This is found before anything is trained.
        Stopped: `options.stop` was asked to stop.
    """
    options = options or Options()
    check_output(training, output, options)
    if options.threads is None and checkpoint.exists(output):
        keep_threads(checkpoint.read_extra(output), options.processes)
    if finished(output):
        _log.info("%s is finished: nothing to %s", output, "profile" if options.profile else "do")
        return
    check_there(training)
    course = course_of(training)
    data = _load(training, output, options)
    check_trainable(data)
    check_classes(data, training.network.num_classes)
    check_alike(training, data, options)
    run = _Run(training, output, options, data=data, course=course)
    wait(options.processes)  # every process has read the folder before the first one writes to it
    with locked(output) if options.processes.first else nullcontext():
        if options.processes.first:
            write_paths(training, output)
            write_config(training, output)
        wait(options.processes)
        with Journal(output, writes=options.processes.first, listener=options.listener) as journal:
            run.go(journal)


def _load(training: Training, output: Path, options: Options) -> DataSet:
    """The pictures, with the labels that the network's weights know their classes by, and as deep as a stopped run has
    them.

    Where the pictures are to be downloaded the first process does it alone.
    """
    spec, network, depth = training.data, training.network, None
    classes = classes_of(Path(network.weights)) if network.weights and not network.new_classifier else None
    if checkpoint.exists(output):
        depth = Depth(**checkpoint.read_extra(output).get("depth", asdict(BEFORE)))
    if spec.download and not options.processes.first:
        wait(options.processes)
    data = data_of(spec, Known(classes, depth))
    if spec.download and options.processes.first:
        wait(options.processes)
    return data


@dataclass
class _Totals:
    """What the steps of an epoch add up to. A stop within the epoch keeps it. `loss`: one for each process."""

    loss: list[float] = field(default_factory=list)
    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    lr: float = 0.0


class _Run:
    """One training run with everything it needs at hand."""

    def __init__(self, training: Training, output: Path, options: Options, *, data: DataSet, course: Course) -> None:
        self.training, self.output, self.options, self.data, self.course = training, output, options, data, course
        self.stage, batches = training.stage, training.stage.batches
        self.evaluator = Evaluator(
            data, options.compute, batch=batches.valid, workers=training.data.workers, strict=training.data.strict,
            calibration_images=batches.calibration, processes=options.processes)
        self.learner = learner_of(training, options, self.evaluator)
        self.pictures = data.held_out if training.searches and len(data.held_out) else data.test
        self.batches = self._batches()
        self.totals, self.guard, self.files, self.identity = _Totals(), Guard(), files_of(training), identity(data)
        self.profiles = options.profile and options.processes.first
        self.threads = gathered(torch.get_num_threads(), options.processes)

    def _batches(self) -> TrainBatches:
        options, data, batches = self.options, self.training.data, self.stage.batches
        pin = options.compute.device.type == "cuda" if batches.pin_memory is None else batches.pin_memory
        loader = Loader(batches.size, workers=data.workers, strict=data.strict, prefetch=batches.prefetch,
                        pin=pin, rank=options.processes.rank, world=options.processes.world,
                        local_world=options.processes.local_world, cache=data.cache)
        pictures = self.data.taught if self.course.unlabelled else self.data.train
        return TrainBatches(pictures, self.course.space.resolutions, loader=loader, seed=self.stage.seed,
                            augment=data.augment, balanced=batches.balanced)

    def go(self, journal: Journal) -> None:
        """Train every epoch that is left, validate, save."""
        self.journal = journal
        if self.data.found is not None:
            _log.info("%s", self.data.found.text())
        if self.training.searches and not len(self.data.held_out):
            _log.warning("no training pictures are held out: the test pictures validate, and choose in a search")
        for line in self.options.notes:
            _log.warning("%s", line)
        if self.data.depth != Depth():
            _log.info("levels that are white in files of more than 8 bits: %s", asdict(self.data.depth))
        there = told(checkpoint.exists(self.output), self.options.processes)
        position = self._resume() if there else self._begin()
        self._announce(position)
        while position.epoch < self.stage.epochs:
            try:
                good = self._epoch(position)
            except Setback as setback:
                position = self._set_back(setback, position.epoch)
            else:
                position = Position(position.epoch + 1)
                self._save(position, good=good)
        self._finish()

    def _announce(self, position: Position) -> None:
        self.journal.start(UNTRAINED if position == Position() else position.epoch)
        self.journal.hear({"kind": "stage", "output": str(self.output), "epoch": position.epoch, "step": position.step,
                           "epochs": self.stage.epochs, "steps": self.batches.steps_per_epoch})

    def _epoch(self, position: Position) -> bool:
        """Train what is left of an epoch, and validate where it is due. Returns whether it validated and found nothing
        wrong."""
        epoch, stage = position.epoch, self.stage
        if stage.validate_start and position == Position():
            self._scores(UNTRAINED, kind="start")
        if position.step < self.batches.steps_per_epoch:
            self._train(position)
        validate = ((epoch + 1) % stage.validate_every == 0 or epoch + 1 == stage.epochs
                    or (stage.validate_start and epoch == 0))
        if validate and position.step < self.batches.steps_per_epoch:  # a stop while validating loses nothing
            self._save(Position(epoch, self.batches.steps_per_epoch))
            self.options.stop.check()
        totals, world = self.totals, self.options.processes.world
        loss = math.fsum(totals.loss) / (world * totals.steps)
        self.journal.write({"kind": "train", "epoch": epoch, "loss": loss, "lr": totals.lr, "images": totals.images,
                            "seconds": totals.seconds, "images_per_second": totals.images / totals.seconds})
        if validate:
            self._validate(epoch)
        self.totals = _Totals()
        return validate

    def _train(self, position: Position) -> None:
        totals, processes = self.totals, self.options.processes
        before = totals.loss[processes.rank] if totals.loss else 0.0
        loss = torch.tensor(before, dtype=torch.float64, device=self.options.compute.device)
        saved = time.perf_counter()
        with self.options.stop.deferred(), closing(self._steps(position)) as reports:
            for report in reports:
                loss += report.loss
                totals.steps, totals.images = totals.steps + 1, totals.images + report.images
                totals.seconds, totals.lr = totals.seconds + report.seconds, report.lr
                self.journal.hear({"kind": "step", "epoch": report.epoch, "step": report.step, "steps": report.steps,
                                   "images": report.images, "seconds": report.seconds, "waited": report.waited})
                if (report.step + 1) % self.stage.safety.print_every == 0:
                    self._log_step(report)
                stop, save = self._asked(report, loss, time.perf_counter() - saved)
                if stop or save:
                    totals.loss = gathered(loss.item(), processes)
                    self._save(Position(report.epoch, report.step + 1))
                    saved = time.perf_counter()
                if stop:
                    raise Stopped(f"stopped in epoch {report.epoch + 1} after step {report.step + 1} of {report.steps}")
        totals.loss = gathered(loss.item(), processes)

    def _asked(self, report: StepReport, loss: Tensor, seconds: float) -> tuple[bool, bool]:
        """Whether any process was asked to stop, and whether a checkpoint is due: the same answer in all of them.

        Raises Setback, in all of them, where the `loss` of the epoch so far is not finite in one.
        """
        safety, every, processes = self.stage.safety, self.options.every, self.options.processes
        minutes, steps = every or (safety.checkpoint_minutes, safety.checkpoint_steps)
        done, device = report.step + 1, self.options.compute.device
        by_steps = steps is not None and done % steps == 0
        if device.type == "cuda" and done % _LOOK and done < report.steps and not by_steps:
            return False, False
        by_time = processes.first and minutes is not None and seconds > 60 * minutes
        asks = torch.tensor([self.options.stop.asked is not None, by_time, not math.isfinite(loss.item())],
                            dtype=torch.float32, device=device)
        stop, late, broken = (bool(value) for value in summed(asks, processes).tolist())
        if broken:
            raise Setback("the training loss is not finite")
        return stop, (late or by_steps) and done < report.steps

    def _steps(self, position: Position) -> Generator[StepReport]:
        """Train the epoch. A few steps are profiled once, but not in a short rest if a whole epoch follows."""
        epoch, start = position.epoch, position.step
        reports = run_epoch(self.learner, self.course, self.batches, data=self.data, epoch=epoch, start=start)
        left = self.batches.steps_per_epoch - start
        if not self.profiles or (start and left < WARM_UP + STEPS and epoch + 1 < self.stage.epochs):
            return reports
        self.profiles = False
        return profiled(reports, self.learner, self.output / PROFILE, left=left, journal=self.journal)

    def _log_step(self, report: StepReport) -> None:
        _log.info("epoch %d/%d step %d/%d %dpx loss %.4f lr %.5f %.0f images/s data wait %.0f %%", report.epoch + 1,
                  self.stage.epochs, report.step + 1, report.steps, report.resolution, float(report.loss), report.lr,
                  report.images / report.seconds, 100 * report.waited / report.seconds)

    def _validate(self, epoch: int) -> None:
        """Score the sub-networks that are validated; raises Setback where the largest has collapsed."""
        follow_first(self.learner.net.buffers(), self.options.processes)  # running statistics are each rank's own
        space, scores = self.training.network.space, self._scores(epoch, kind="valid")
        chance = self.pictures.labels.bincount().max().item() / len(self.pictures)
        largest = scores[max(scores, key=lambda arch: macs(space, arch))]
        self.guard = self.guard.check(largest.top1, largest.loss, chance=chance)

    def _scores(self, epoch: int, *, kind: str) -> dict[Arch, Score]:
        """Score the sub-networks that are validated, and write a record of this kind for each."""
        archs, net = self.training.validated, self._settled()
        return {arch: self._scored(epoch, arch, net, kind=kind, of=len(archs)) for arch in archs}

    def _settled(self) -> nn.Module:
        """The net as its weights file holds it."""
        net = self.learner.net
        fixed = self.stage.bn != "batch"
        return self.evaluator.settled(net, self.course.space) if isinstance(net, Supernet) and fixed else net

    def _scored(self, epoch: int, arch: Arch, net: nn.Module, *, kind: str, of: int) -> Score:
        began = time.perf_counter()
        score = (self.evaluator.score(net, arch, self.pictures, kept=self.training.keeps(arch))
                 if isinstance(net, Supernet) else self.evaluator.score_net(net, arch.resolution, self.pictures))
        _log.info("epoch %d/%d %s top-1 %.2f %% top-5 %.2f %% loss %.4f", epoch + 1, self.stage.epochs, tag(arch),
                  100 * score.top1, 100 * score.top5, score.loss)
        self.journal.write({"kind": kind, "epoch": epoch, "arch": str(arch), "tag": tag(arch), "of": of,
                            **asdict(score), "seconds": time.perf_counter() - began})
        return score

    def _finish(self) -> None:
        if self.options.processes.first:
            net = self._settled()
            if isinstance(net, Supernet):
                trained = Trained(net, net.space, None, self.data.facts)
            else:
                assert isinstance(net, Subnet)
                network = self.training.network
                trained = Trained(net, network.space, network.subnet, self.data.facts)
            for name in self._weights:
                save(trained, self.output / name)
            if NNABLA_WEIGHTS not in self._weights:
                _log.info("%s is not written: NNablaNAS has no names for this family of networks", NNABLA_WEIGHTS)
        self._save(Position(self.stage.epochs), finished=True)
        _log.info("finished: %s", self.output / WEIGHTS)

    def _save(self, position: Position, *, good: bool = False, finished: bool = False) -> None:
        """The first process writes a checkpoint; the others wait, and hear of it if it cannot."""
        if self.options.processes.first:
            extra = {"finished": finished, "scaler": self.learner.scaler.state_dict(),
                     "options": lasting(self.options), "totals": asdict(self.totals), "guard": asdict(self.guard),
                     "pictures_a_step": self._pictures_a_step, "made_by": self._made_by(), "files": self.files,
                     "pictures": self.identity, "depth": asdict(self.data.depth), "weights": self._weights}
            checkpoint.save(self.output, self.learner.net, self.learner.optimizer, position=position, extra=extra,
                            good=good)
            if finished:
                checkpoint.settle(self.output)
        wait(self.options.processes)

    @cached_property
    def _weights(self) -> list[str]:
        """The weights files that the run leaves."""
        net = self.learner.net
        assert isinstance(net, Supernet | Subnet)
        return [name for name in (WEIGHTS, NNABLA_WEIGHTS) if form_to_write(Path(name)).has(net)]

    @property
    def _pictures_a_step(self) -> int:
        return self.stage.batches.size * self.options.processes.world

    def _made_by(self) -> dict[str, Any]:
        """What the bits of a result depend on beside the settings."""
        threads = self.threads[0] if len(set(self.threads)) == 1 else self.threads  # of each process
        return {"torch": torch.__version__, "threads": threads, "gradients": convolution.decided()}

    def _begin(self) -> Position:
        """Save the start, which is the first good checkpoint."""
        if self.training.network.new_classifier:
            _log.warning("the classifier starts anew: %d classes, random from seed %d",
                         self.training.network.num_classes, self.stage.seed)
        convolution.decide(told(convolution.decided(), self.options.processes))
        self._save(Position(), good=True)
        return Position()

    def _resume(self) -> Position:
        position, extra = self._load(good=False)
        check_files(self.files, extra.get("files", {}))
        check_pictures(self.output, self.identity, extra.get("pictures", {}))
        self.guard = Guard(**extra.get("guard", {}))
        self._slow_down()
        before = extra.get("made_by", {})
        if "gradients" in before:
            convolution.decide(before["gradients"])
        for name, value in self._made_by().items():
            if before.get(name, value) != value:
                _log.warning("%s began with %s %s and goes on with %s: the last bits will differ", self.output, name,
                             before[name], value)
        world = extra["options"]["processes"]
        if world != self.options.processes.world and self.options.processes.first:
            _log.warning("%s goes on with %d processes instead of %d: the same pictures in the same order, other bits",
                         self.output, self.options.processes.world, world)
        _log.info("resuming %s at epoch %d step %d", self.output, position.epoch + 1, position.step + 1)
        return position

    def _load(self, *, good: bool) -> tuple[Position, dict[str, Any]]:
        """Model, optimiser and totals as the checkpoint has them; the position counts steps of this many processes."""
        position, extra = checkpoint.load(self.output, self.learner.net, self.learner.optimizer, good=good)
        self.learner.scaler.load_state_dict(extra["scaler"])
        totals, world = dict(extra["totals"]), self.options.processes.world
        losses = totals["loss"] if isinstance(totals["loss"], list) else [totals["loss"]]
        if losses and len(losses) != world:
            losses = [math.fsum(losses) / len(losses)] * world
        self.totals = _Totals(**{**totals, "loss": losses})
        pictures = position.step * extra.get("pictures_a_step", self._pictures_a_step)
        wait(self.options.processes)
        return replace(position, step=pictures // self._pictures_a_step), extra

    def _slow_down(self) -> None:
        """Train with the learning rate and the clipping that setbacks have led to."""
        self.learner.rate = self.guard.rate
        self.learner.clip = self.stage.safety.setback_clip if self.guard.rate < 1 or self.guard.row else None

    def _set_back(self, setback: Setback, epoch: int) -> Position:
        """Go back to the last good checkpoint, slower; raises UserError after too many times in a row."""
        safety, place = self.stage.safety, f"{self.output} epoch {epoch + 1}"
        if not safety.setbacks:
            raise UserError(place, str(setback), "lower stage.optimizer.lr; the checkpoint is of the epoch before")
        if self.guard.row >= safety.setbacks:
            raise UserError(place, f"{setback}, after going back {self.guard.row} times in a row, last to "
                            f"{self.guard.rate:.3g} of the learning rate", "lower stage.optimizer.lr, or give "
                            "stage.safety.setback_clip")
        position, _ = self._load(good=True)
        self.guard = replace(self.guard, row=self.guard.row + 1, rate=self.guard.rate * safety.setback_rate)
        self._slow_down()
        _log.warning("%s: %s; going back to epoch %d at %.3g of the learning rate", place, setback, position.epoch + 1,
                     self.guard.rate)
        self._save(position)
        self.journal.hear({"kind": "setback", "epoch": epoch, "reason": str(setback), "back_to": position.epoch,
                           "rate": self.guard.rate})
        self._announce(position)
        return position
