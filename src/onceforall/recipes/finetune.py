"""Fine-tuning: an extracted sub-network trained on, into another folder of its kind."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from onceforall.data import NAMED, DataSet, DataSpec, Known, spec_of
from onceforall.data.labels import same_classes, warn_of_positions
from onceforall.deploy.description import ABOUT, WEIGHTS, Description, read_description, sha256
from onceforall.deploy.folder import Scored, open_subnet, save_subnet
from onceforall.errors import UserError
from onceforall.nn import Subnet
from onceforall.recipes.augmentation import say_augmentation
from onceforall.recipes.catalog import SMALL, recipe_of
from onceforall.recipes.preset import BN_MOMENTUM, Preset, check_seed, optimizer
from onceforall.space import SearchSpace
from onceforall.space.catalog import of_catalogue
from onceforall.training.engine.distributed import wait
from onceforall.training.engine.output import check_output, finished
from onceforall.training.engine.places import CONFIG
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.training.network import Network, Teacher
from onceforall.training.settings import Loss
from onceforall.training.setup import Options, announce, check_trainable, data_of
from onceforall.training.stage import Batches, Stage, Training
from onceforall.weights.nets import open_weights, stages_in, weights_file

_log = logging.getLogger(__name__)
EPOCHS, STEPS = 2, 300  # by default as many epochs as give both, at least


@dataclass(frozen=True)
class Request:
    """What the user asked for: the folder of a sub-network, and what to change of the defaults, which follow from its
    data; `teacher`: the run or weights file of a supernet whose largest sub-network also teaches; `flip`: whether
    training pictures are mirrored."""

    subnet: Path
    data: str | None = None
    root: str | None = None
    teacher: str | None = None
    epochs: int | None = None
    lr: float | None = None
    batch: int | None = None
    workers: int | None = None
    seed: int = 0
    flip: bool | None = None

    def __post_init__(self) -> None:
        for name, value in (("--epochs", self.epochs), ("--batch", self.batch)):
            if value is not None and not 1 <= value <= 1_000_000:
                raise UserError(name, f"{value} is not a number from 1 to 1,000,000")
        if self.lr is not None and not 0 < self.lr <= 1000:
            raise UserError("--lr", f"{self.lr:g} is not a number above 0, at most 1000")
        check_seed(self.seed)
        if self.workers is not None and not 0 <= self.workers <= 512:
            raise UserError("--workers", f"{self.workers} is not a number from 0 to 512")


@dataclass(frozen=True, eq=False)
class _Start:
    """The sub-network that is trained on, and what its folder says of it."""

    net: Subnet
    about: Description

    @property
    def norm(self) -> nn.BatchNorm2d:
        """One of its batch normalisations, which all have the same settings."""
        return next(m for m in self.net.modules() if isinstance(m, nn.BatchNorm2d))

    @property
    def dropout(self) -> float:
        """Of the classifier's input."""
        return next(m.p for m in self.net.modules() if isinstance(m, nn.Dropout))


def finetune(request: Request, output: Path, options: Options) -> Description:
    """Train the sub-network on in folder `output`, resuming what is there, and describe the last epoch's net there.

    Its accuracy before, None under a new classifier, is `provenance["finetuned"]["top1_before"]`. Raises UserError
    for what does not fit, before anything is written.
    """
    _check_output(request.subnet, output)
    start = _Start(*open_subnet(request.subnet))
    data = _data(_spec(request, start.about), start.about)
    check_trainable(data)
    training = _training(request, start, data, processes=options.processes.world)
    done = finished(output) and (output / ABOUT).exists()
    check_output(training, output, options)
    if not done:
        announce(data, options)
        say_augmentation(training, options)
    train(training, output, options)
    if done:
        if read_description(output).provenance.get("sha256") != sha256(request.subnet / WEIGHTS):
            raise UserError(str(output), f"was fine-tuned from other weights than {request.subnet} holds now",
                            "give another -o")
        _log.warning("%s is finished: nothing to do", output)
    elif options.processes.first:
        _describe(request, training, output, start=start, data=data, compute=Compute(options.compute.device))
    wait(options.processes)
    return read_description(output)


def _training(request: Request, start: _Start, data: DataSet, *, processes: int) -> Training:
    """What is trained on `data`: where it has other classes than the sub-network, the classifier starts anew."""
    known = _knows(start.about, data)
    classes = start.about.num_classes if known else len(data.classes)
    space, arch, _ = start.about.network(request.subnet / ABOUT)
    preset = recipe_of(data, small=arch.resolution <= SMALL)
    network = Network(
        space=_whole(space), num_classes=classes, dropout=start.dropout, arch=str(arch),
        bn_momentum=1 - round(1 - (start.norm.momentum or 0.0), 12), bn_eps=start.norm.eps,
        weights=str(request.subnet / WEIGHTS), new_classifier=not known)
    batch = request.batch or min(preset.batch, 2 ** int(math.log2(max(16, len(data.train)) / 8)))
    teacher = None if request.teacher is None else _teacher(request, data, arch.resolution, classes)
    epochs = request.epochs or max(EPOCHS, math.ceil(STEPS / max(1, len(data.train) // batch)))
    stage = Stage(
        epochs=epochs, optimizer=optimizer(request.lr or _rate(preset, batch, epochs), preset.weight_decay),
        loss=Loss(kd_weight=0.0 if teacher is None else 1.0), teacher=teacher, validate_every=max(1, epochs // 4),
        batches=_batches(preset, batch, processes), seed=request.seed)
    return Training(data=_pictures(request, preset, data), network=network, stage=stage)


def _data(spec: DataSpec, about: Description) -> DataSet:
    """The pictures; where they are of all the sub-network's classes and no others, with the labels that it gives."""
    data = data_of(spec)
    return data_of(spec, Known(tuple(about.classes))) if same_classes(data.classes, about.classes) else data


def _knows(about: Description, data: DataSet) -> bool:
    """Whether the outputs of the sub-network are the classes of the pictures."""
    if not about.classes and len(data.classes) == about.num_classes:
        warn_of_positions("the sub-network", data.classes)
        return True
    return list(data.classes) == about.classes and len(data.classes) == about.num_classes


def _check_output(subnet: Path, output: Path) -> None:
    """Refuse a folder that holds what fine-tuning would write over."""
    if output.resolve() == subnet.resolve():
        raise UserError(str(output), "is the folder of the sub-network itself", "give another -o")
    if (output / CONFIG).exists():
        return  # `train` compares it
    if (output / ABOUT).exists() or stages_in(output):
        kind = "sub-network" if (output / ABOUT).exists() else "run"
        raise UserError(str(output), f"holds another {kind}", "give another -o")


def _spec(request: Request, about: Description) -> DataSpec:
    """The pictures that are asked for, else those of the description; none held out. They are normalised as the
    sub-network's were."""
    ready = about.preprocessing
    settings: dict[str, Any] = {"train_portion": 1.0, "mean": ready.mean, "std": ready.std, "framing": ready.framing}
    if request.data is not None:
        return spec_of(request.data, request.root, **settings)
    if request.root is not None:
        raise UserError("--root", "is given without --data", f"say which data it holds: {', '.join(NAMED)}")
    spec = about.data_spec()
    if spec is None:
        raise UserError("--data", f"is missing, and {request.subnet / ABOUT} names none",
                        f"give {', '.join(NAMED)} or a folder")
    return replace(spec, score_only=False, **settings)


def _pictures(request: Request, preset: Preset, data: DataSet) -> DataSpec:
    """The pictures as they are trained on: all training pictures, augmented as the preset says."""
    spec = data.spec
    assert spec is not None  # it was loaded by one
    augment = preset.augment if request.flip is None else replace(preset.augment, flip=request.flip)
    return replace(spec, augment=augment, workers=request.workers)


def _whole(space: SearchSpace) -> SearchSpace:
    """The space at all resolutions that its catalogue's one has."""
    whole = of_catalogue(space)
    return space if whole is None else space.at(whole.resolutions)


def _batches(preset: Preset, batch: int, processes: int) -> Batches:
    if batch % processes:
        raise UserError("--batch", f"{batch} is not a multiple of {processes}, the number of processes",
                        f"{math.ceil(batch / processes) * processes} is")
    share = batch // processes
    largest = min(share, preset.micro_batch or share)
    return Batches(size=share, micro=next(size for size in range(largest, 0, -1) if share % size == 0), valid=200)


def _rate(preset: Preset, batch: int, epochs: int) -> float:
    """The last stage's rate in proportion to the batch; for fewer epochs than that stage's less, by their square root:
    2 epochs on ImageNet, whose stage has 125, must not undo what those settled."""
    return float(f"{preset.lr[-1] * batch / preset.batch * math.sqrt(min(1, epochs / preset.epochs[-1])):.3g}")


def _teacher(request: Request, data: DataSet, resolution: int, classes: int) -> Teacher:
    """The teacher; raises UserError for one that cannot teach these classes at that size."""
    source = str(request.teacher)
    trained = open_weights(source)
    space, told = trained.space, trained.pictures.get("classes")
    if trained.arch is not None and trained.arch.at(max(space.resolutions)) != space.largest:
        raise UserError(f"--teacher {source}", "holds an extracted sub-network, not a supernet",
                        "give a run folder or the supernet's weights")
    if trained.num_classes != classes or (told is not None and tuple(told) != data.classes):
        raise UserError(f"--teacher {source}", f"tells {trained.num_classes} other classes apart than the pictures' "
                        f"{len(data.classes)}", "teacher and student need the same")
    if "mean" in trained.pictures and (tuple(trained.pictures["mean"]), tuple(trained.pictures["std"])) != (
            data.mean, data.std):
        raise UserError(f"--teacher {source}", "was trained on pictures that were normalised otherwise than the "
                        "sub-network's", "teacher and student see the same numbers")
    if resolution not in _whole(space).resolutions:
        raise UserError(f"--teacher {source}", f"is of {space.name}, which has no resolution {resolution}",
                        "the student is trained at it")
    return Teacher(network=Network(space=_whole(space), num_classes=classes, dropout=0.0, bn_momentum=BN_MOMENTUM,
                                   bn_eps=space.bn_eps, weights=str(weights_file(Path(source)))))


def _describe(request: Request, training: Training, output: Path, *, start: _Start, data: DataSet,
              compute: Compute) -> None:
    """Score the net before and after as `ofa evaluate` does, and write its description beside it."""
    space, arch, _ = start.about.network(request.subnet / ABOUT)
    trained = open_weights(output).net
    assert isinstance(trained, Subnet)  # a sub-network's training wrote it

    def evaluator(subnet: Subnet, pictures: DataSet) -> Evaluator:
        compute.place(subnet)
        return Evaluator(pictures, compute, workers=training.data.workers, strict=training.data.strict)

    seen, before = start.about.preprocessing, None
    if not training.network.new_classifier:
        as_before = data_of(_spec(request, start.about), Known(data.classes, seen.depth))
        before = evaluator(start.net, as_before).score_net(
            start.net, arch.resolution, as_before.test)
    finetuned = {"epochs": training.stage.epochs, "lr": training.stage.optimizer.lr, "teacher": request.teacher,
                 "top1_before": None if before is None else before.top1}
    found = Scored.of(evaluator(trained, data), trained, space, arch)
    save_subnet(found.extracted, output, source=request.subnet / WEIGHTS, finetuned=finetuned)
