"""Fine-tuning: an extracted sub-network trained on, into another folder of its kind."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from onceforall.data import NAMED, DataSet, DataSpec, Known
from onceforall.data.labels import same_classes, warn_of_positions
from onceforall.data.spec import PATHS
from onceforall.deploy.description import ABOUT, WEIGHTS, Description, read_description, sha256
from onceforall.deploy.folder import Scored, open_subnet, save_subnet
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.genotype import has_operators, operators_of
from onceforall.interop.nnabla.settings import training_of
from onceforall.nn import Subnet
from onceforall.recipes.augmentation import say_augmentation
from onceforall.recipes.catalog import SMALL, recipe_of
from onceforall.recipes.fit import root_of
from onceforall.recipes.recipe import Recipe, check_seed, optimizer
from onceforall.space import SearchSpace, search_space
from onceforall.space.catalog import named_settings
from onceforall.training.engine.distributed import wait
from onceforall.training.engine.output import check_output, finished
from onceforall.training.engine.places import CONFIG
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.training.setup import Options, announce, check_trainable, data_of
from onceforall.training.stage import Training
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
    training = training_of(_config(request, start, data, processes=options.processes.world), "OFATrainer")
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


def _config(request: Request, start: _Start, data: DataSet, *, processes: int) -> Config:
    """What is trained on `data`: where it has other classes than the sub-network, the classifier starts anew."""
    known = _knows(start.about, data)
    classes = start.about.num_classes if known else len(data.classes)
    space, arch, _ = start.about.network(request.subnet / ABOUT)
    recipe = recipe_of(data, small=arch.resolution <= SMALL)
    space = space if has_operators(space) else search_space(space.name)  # a part of which no configuration can name
    network = {
        **_network(space, classes), "drop_rate": start.dropout, "genotype": list(arch.to_genotype(space)),
        "bn_param": [round(1 - (start.norm.momentum or 0.0), 12), start.norm.eps],
        "weights": str(request.subnet / WEIGHTS), "new_classifier": not known}
    batch = request.batch or min(recipe.batch, 2 ** int(math.log2(max(16, len(data.train)) / 8)))
    hparams = {**_hparams(request, recipe, batch, pictures=len(data.train), processes=processes),
               "img_size": arch.resolution}
    if request.teacher is not None:
        hparams |= {"lambda_kd": 1.0, "teacher_network": {"ofa": _teacher(request, data, arch.resolution, classes)}}
    lr = request.lr or _rate(recipe, batch, hparams["epoch"])
    return Config.from_dict({"dataloader": _dataloader(request, recipe, data), "network": {"ofa": network},
                             "optimizer": optimizer(lr, recipe.weight_decay), "hparams": hparams})


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
    """The pictures that are asked for, else those of the description; none held out."""
    if request.data is not None:
        name = request.data if request.data in (*NAMED, "imagenet") else "folder"
        return DataSpec(name, root=root_of(request.data, request.root), train_portion=1.0)
    if request.root is not None:
        raise UserError("--root", "is given without --data", f"say which data it holds: {', '.join(NAMED)}")
    spec = about.data_spec()
    if spec is None:
        raise UserError("--data", f"is missing, and {request.subnet / ABOUT} names none",
                        f"give {', '.join(NAMED)} or a folder")
    return replace(spec, train_portion=1.0, score_only=False)


def _dataloader(request: Request, recipe: Recipe, data: DataSet) -> dict[str, Any]:
    spec = data.spec
    assert spec is not None  # it was loaded by one
    given = {key: getattr(spec, key) for key in PATHS}
    loader = {**recipe.loader, **given, "strict_data": spec.strict, "workers": request.workers}
    if request.flip is not None:
        loader["flip"] = request.flip
    return {"folder" if spec.name == "list" else spec.name: {k: v for k, v in loader.items() if v is not None}}


def _network(space: SearchSpace, classes: int) -> dict[str, Any]:
    base, settings = named_settings(space.name)
    lists: dict[str, Any] = {} if not has_operators(space) else {"op_candidates": operators_of(space)}
    if lists and len(search_space(base).stages[0].depth) > 1:
        lists["depth_candidates"] = list(space.stages[0].depth)
    return {"space": base, **settings, "num_classes": classes, **lists}


def _hparams(request: Request, recipe: Recipe, batch: int, *, pictures: int, processes: int) -> dict[str, Any]:
    if batch % processes:
        raise UserError("--batch", f"{batch} is not a multiple of {processes}, the number of processes",
                        f"{math.ceil(batch / processes) * processes} is")
    share = batch // processes
    largest = min(share, recipe.micro_batch or share)
    steps = max(1, pictures // batch)
    epochs = request.epochs or max(EPOCHS, math.ceil(STEPS / steps))
    return {"epoch": epochs, "batch_size_train": share, "batch_size_valid": 200, "seed": request.seed,
            "mini_batch_train": next(size for size in range(largest, 0, -1) if share % size == 0),
            "validation_frequency": max(1, epochs // 4), "lambda_kd": 0.0}


def _rate(recipe: Recipe, batch: int, epochs: int) -> float:
    """The last stage's rate in proportion to the batch; for fewer epochs than that stage's less, by their square root:
    2 epochs on ImageNet, whose stage has 125, must not undo what those settled."""
    return float(f"{recipe.lr[-1] * batch / recipe.batch * math.sqrt(min(1, epochs / recipe.epochs[-1])):.3g}")


def _teacher(request: Request, data: DataSet, resolution: int, classes: int) -> dict[str, Any]:
    """The network section of the teacher; raises UserError for one that cannot teach these classes at that size."""
    source = str(request.teacher)
    trained = open_weights(source)
    space, told = trained.space, trained.pictures.get("classes")
    if trained.arch is not None and trained.arch.at(max(space.resolutions)) != space.largest:
        raise UserError(f"--teacher {source}", "holds an extracted sub-network, not a supernet",
                        "give a run folder or the supernet's weights")
    if trained.num_classes != classes or (told is not None and tuple(told) != data.classes):
        raise UserError(f"--teacher {source}", f"tells {trained.num_classes} other classes apart than the pictures' "
                        f"{len(data.classes)}", "teacher and student need the same")
    if resolution not in search_space(space.name).resolutions:
        raise UserError(f"--teacher {source}", f"is of {space.name}, which has no resolution {resolution}",
                        "the student is trained at it")
    return {**_network(space, classes), "drop_rate": 0.0, "weights": str(weights_file(Path(source)))}


def _describe(request: Request, training: Training, output: Path, *, start: _Start, data: DataSet,
              compute: Compute) -> None:
    """Score the net before and after as `ofa evaluate` does, and write its description beside it."""
    space, arch, _ = start.about.network(request.subnet / ABOUT)
    trained = open_weights(output).net
    assert isinstance(trained, Subnet)  # OFATrainer wrote it

    def evaluator(subnet: Subnet, pictures: DataSet) -> Evaluator:
        compute.place(subnet)
        return Evaluator(pictures, compute, workers=training.data.workers, strict=training.data.strict)

    seen, before = start.about.preprocessing, None
    if not training.network.new_classifier:
        as_before = data_of(_spec(request, start.about), Known(data.classes, seen.depth))
        before = evaluator(start.net, replace(as_before, mean=seen.mean, std=seen.std)).score_net(
            start.net, arch.resolution, as_before.test)
    finetuned = {"epochs": training.stage.epochs, "lr": training.stage.optimizer.lr, "teacher": request.teacher,
                 "top1_before": None if before is None else before.top1}
    found = Scored.of(evaluator(trained, data), trained, space, arch)
    save_subnet(found.extracted, output, source=request.subnet / WEIGHTS, finetuned=finetuned)
