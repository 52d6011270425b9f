"""Run: one configuration, trained in one output folder, from its start or from where it stopped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from onceforall.data import DataSet, Loader, TrainBatches
from onceforall.interop.config import Config, checked, network_space, subnet_arch, valid_archs
from onceforall.interop.weights import Trained, save
from onceforall.nn import Subnet, Supernet
from onceforall.space import Arch, UserError
from onceforall.train import checkpoint
from onceforall.train.checkpoint import Position
from onceforall.train.distributed import follow_first, summed, wait
from onceforall.train.evaluate import Evaluator
from onceforall.train.journal import Journal, tag
from onceforall.train.loop import StepReport, run_epoch
from onceforall.train.profile import PROFILE, STEPS, WARM_UP, profiled
from onceforall.train.setup import Options, check_classes, data_of, data_spec, learner_of
from onceforall.train.stage import stage_of

_log = logging.getLogger(__name__)
_MAY_CHANGE = {"workers", "print_frequency", "checkpoint_every", "download"}  # between a run's start and its resuming
CHECKPOINT, CONFIG, WEIGHTS = "checkpoint.safetensors", "config.json", "weights.h5"


def train(config: Config, output: Path, options: Options | None = None) -> None:
    """Train the configuration in folder `output`; a stopped run goes on, a finished one is left as it is.

    Leaves config.json, weights.h5, a checkpoint, metrics.jsonl, TensorBoard events and log.txt, and under
    `options.profile` a trace and a table of a few of the steps it trains, in the folder profile. Several processes
    call it inside `joined`. Raises UserError for a configuration that cannot be run, before anything is trained.
    """
    options = options or Options()
    _check_folder(config, output)
    if finished(output):
        _log.info("%s is finished: nothing to do", output)
        return
    checked(config, "OFATrainer" if options.subnet else "OFASearcher", search=options.search)
    _check_options(options, output)
    data = _load(config, options)
    check_classes(data, config.network.num_classes, place=f"{config.network_place}.num_classes")
    run = _Run(config, output, options, data)
    wait(options.processes.world)  # every process has read the folder before the first one writes to it
    if options.processes.first:
        _make(output)
        config.write(output / CONFIG)
    wait(options.processes.world)
    with Journal(output, writes=options.processes.first, listener=options.listener) as journal:
        run.go(journal)


def _load(config: Config, options: Options) -> DataSet:
    """The pictures; where they are to be downloaded the first process does it alone."""
    spec = data_spec(config, search=options.search)
    if spec.download and not options.processes.first:
        wait(options.processes.world)
    data = data_of(spec)
    if spec.download and options.processes.first:
        wait(options.processes.world)
    return data


def finished(output: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    path = output / CHECKPOINT
    return path.exists() and (output / WEIGHTS).exists() and bool(checkpoint.read_extra(path).get("finished"))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(str(folder), f"cannot be made: {error.strerror}", "give another -o") from None


def _check_folder(config: Config, output: Path) -> None:
    """Refuse a folder that holds a run of another configuration."""
    path = output / CONFIG
    if not path.exists():
        if output.exists() and not output.is_dir():
            raise UserError(str(output), "is a file, not a folder", "give another -o")
        return
    place = _difference(Config.read(path).to_dict(), config.to_dict())
    if place:
        raise UserError(str(output), f"holds a run of another configuration ({place} differs)",
                        "take another output folder, or remove this one")


def _difference(a: Any, b: Any, place: str = "") -> str:
    """Where two configurations first mean another training; empty where nowhere."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return "" if a == b else place
    keys = [key for key in {**a, **b} if key not in _MAY_CHANGE]
    found = (_difference(a.get(key), b.get(key), f"{place}.{key}" if place else key) for key in keys)
    return next(filter(None, found), "")


def _check_options(options: Options, output: Path) -> None:
    """Refuse to go on otherwise than the run began."""
    path = output / CHECKPOINT
    before = checkpoint.read_extra(path)["options"] if path.exists() else {}
    for name, value in _lasting(options).items():
        if before.get(name, value) != value:
            raise UserError(str(output), f"holds a run with {name} {before[name]}, not {value}",
                            "go on as it began, or take another output folder")


def _lasting(options: Options) -> dict[str, Any]:
    """What has to stay the same when a stopped run is resumed."""
    return {"search": options.search, "subnet": options.subnet, "type": str(options.compute.dtype),
            "processes": options.processes.world}


@dataclass
class _Totals:
    """What the steps of an epoch add up to, kept over a stop within it."""

    loss: float = 0.0
    steps: int = 0
    images: int = 0
    seconds: float = 0.0


class _Run:
    """One training run with everything it needs at hand."""

    def __init__(self, config: Config, output: Path, options: Options, data: DataSet) -> None:
        self.config, self.output, self.options, self.data = config, output, options, data
        self.stage = stage_of(config, subnet=options.subnet)
        self.evaluator = Evaluator(
            data, options.compute, batch=config.hparams.mini_batch_valid, workers=config.data.workers,
            strict=config.data.strict_data, calibration_images=config.hparams.calibration_images,
            processes=options.processes)
        self.learner = learner_of(config, options, self.evaluator)
        self.pictures = data.held_out if options.search and len(data.held_out) else data.test
        self.totals = _Totals()
        self.profiles = options.profile and options.processes.first
        if options.search and not len(data.held_out):
            _log.warning("no training pictures are held out: validation uses the validation pictures")

    def go(self, journal: Journal) -> None:
        """Train every epoch that is left, validate, save."""
        self.journal = journal
        options, hparams, data = self.options, self.config.hparams, self.config.data
        for line in self.config.ignored("OFATrainer" if options.subnet else "OFASearcher"):
            _log.warning(line)
        pin = options.compute.device.type == "cuda" if data.pin_memory is None else data.pin_memory
        loader = Loader(self.stage.batch, workers=data.workers, strict=data.strict_data, prefetch=data.prefetch,
                        pin=pin, rank=options.processes.rank, world=options.processes.world,
                        local_world=options.processes.local_world)
        batches = TrainBatches(self.data.train, self.stage.space.resolutions, loader=loader, seed=self.stage.seed,
                               augment=data_spec(self.config, search=options.search).augment)
        position = self._resume()
        if self.config.network.new_classifier and options.subnet and position == Position():
            _log.warning("the classifier starts anew: %d classes, random from seed %d",
                         self.config.network.num_classes, hparams.seed)
        journal.start(position.epoch)
        journal.hear({"kind": "stage", "output": str(self.output), "epoch": position.epoch, "step": position.step,
                      "epochs": self.stage.epochs, "steps": batches.steps_per_epoch})
        for epoch in range(position.epoch, self.stage.epochs):
            self._epoch(batches, epoch, position.step if epoch == position.epoch else 0)
            if (epoch + 1) % hparams.validation_frequency == 0 or epoch + 1 == self.stage.epochs:
                self._validate(epoch)
            self._save(Position(epoch + 1, 0))
        self._finish()

    def _epoch(self, batches: TrainBatches, epoch: int, start: int) -> None:
        hparams, totals = self.config.hparams, self.totals
        loss = torch.tensor(totals.loss, dtype=torch.float64, device=self.options.compute.device)
        saved = time.perf_counter()
        for report in self._steps(batches, epoch, start):
            loss += report.loss
            totals.steps, totals.images = totals.steps + 1, totals.images + report.images
            totals.seconds += report.seconds
            self.journal.hear({"kind": "step", "epoch": epoch, "step": report.step, "steps": report.steps,
                               "images": report.images, "seconds": report.seconds, "waited": report.waited})
            if (report.step + 1) % hparams.print_frequency == 0:
                self._log_step(report)
            due = hparams.checkpoint_every is not None and time.perf_counter() - saved > 60 * hparams.checkpoint_every
            if due and report.step + 1 < report.steps:
                totals.loss = loss.item()
                self._save(Position(epoch, report.step + 1))
                saved = time.perf_counter()
        world = self.options.processes.world
        mean = summed(loss, world).item() / (world * totals.steps)
        if not math.isfinite(mean):
            raise UserError(f"{self.output} epoch {epoch + 1}", f"the training loss is {mean}",
                            "lower optimizer.train.lr; the checkpoint is of the epoch before")
        self.journal.write({"kind": "train", "epoch": epoch, "loss": mean, "lr": report.lr, "images": totals.images,
                            "seconds": totals.seconds, "images_per_second": totals.images / totals.seconds})
        self.totals = _Totals()

    def _steps(self, batches: TrainBatches, epoch: int, start: int) -> Iterator[StepReport]:
        """Train the epoch, profiling a few steps once; not in the short rest of an epoch if a whole one follows."""
        reports = run_epoch(self.learner, self.stage, batches, data=self.data, epoch=epoch, start=start)
        left = batches.steps_per_epoch - start
        if not self.profiles or (start and left < WARM_UP + STEPS and epoch + 1 < self.stage.epochs):
            return reports
        self.profiles = False
        _make(self.output / PROFILE)
        return profiled(reports, self.learner, self.output / PROFILE, left=left, journal=self.journal)

    def _log_step(self, report: StepReport) -> None:
        _log.info("epoch %d/%d step %d/%d %dpx loss %.4f lr %.5f %.0f images/s data wait %.0f %%", report.epoch + 1,
                  self.stage.epochs, report.step + 1, report.steps, report.resolution, float(report.loss), report.lr,
                  report.images / report.seconds, 100 * report.waited / report.seconds)

    def _validate(self, epoch: int) -> None:
        archs = self._valid_archs()
        follow_first(self.learner.net.buffers(), self.options.processes.world)  # running statistics are each rank's own
        for arch in archs:
            began = time.perf_counter()
            net = self.learner.net
            score = (self.evaluator.score(net, arch, self.pictures) if isinstance(net, Supernet) else
                     self.evaluator.score_net(net, arch.resolution, self.pictures))
            _log.info("epoch %d/%d %s top-1 %.2f %% top-5 %.2f %% loss %.4f", epoch + 1, self.stage.epochs, tag(arch),
                      100 * score.top1, 100 * score.top5, score.loss)
            self.journal.write({"kind": "valid", "epoch": epoch, "arch": str(arch), "tag": tag(arch), "of": len(archs),
                                **asdict(score), "seconds": time.perf_counter() - began})

    def _valid_archs(self) -> list[Arch]:
        arch = subnet_arch(self.config) if self.options.subnet else None
        return valid_archs(self.config) if arch is None else [arch]

    def _finish(self) -> None:
        net = self.learner.net
        if self.options.processes.first:
            pictures = {"mean": self.data.mean, "std": self.data.std, "classes": self.data.classes}
            if isinstance(net, Supernet):
                trained = Trained(net, net.space, None, pictures)
            else:
                assert isinstance(net, Subnet)
                trained = Trained(net, network_space(self.config.network), subnet_arch(self.config), pictures)
            save(trained, self.output / WEIGHTS)
            self._save(Position(self.stage.epochs, 0), finished=True)
        wait(self.options.processes.world)
        _log.info("finished: %s", self.output / WEIGHTS)

    def _save(self, position: Position, *, finished: bool = False) -> None:
        if self.options.processes.first:
            checkpoint.save(self.output / CHECKPOINT, self.learner.net, self.learner.optimizer, position=position,
                            extra={"finished": finished, "scaler": self.learner.scaler.state_dict(),
                                   "options": _lasting(self.options), "totals": asdict(self.totals)})

    def _resume(self) -> Position:
        path = self.output / CHECKPOINT
        if not path.exists():
            return Position()
        position = checkpoint.load(path, self.learner.net, self.learner.optimizer)
        extra = checkpoint.read_extra(path)
        self.learner.scaler.load_state_dict(extra["scaler"])
        self.totals = _Totals(**extra["totals"])
        _log.info("resuming %s at epoch %d step %d", self.output, position.epoch + 1, position.step + 1)
        return position
