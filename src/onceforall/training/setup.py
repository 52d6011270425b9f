"""Setup: from a configuration to what the loop needs: data, supernet, teacher, optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from onceforall.data import NOTHING, Augment, DataSet, DataSpec, Known, load_data
from onceforall.data.labels import listed
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config, network_space
from onceforall.nn import Subnet, Supernet, extract, sort_channels
from onceforall.space import SearchSpace
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.journal import Listener
from onceforall.training.engine.stop import Stop
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.training.loop import Learner
from onceforall.training.optimizer import optimizer_of
from onceforall.training.stage import Stage
from onceforall.training.start import filled, subnet_of, supernet_of
from onceforall.weights.nets import classes_of, space_of


@dataclass(frozen=True)
class Options:
    """How to run, apart from what the configuration says. `subnet`: train its genotype alone (OFATrainer);
    `search`: validate on what train_portion leaves of the training pictures; `profile`: trace and time a few steps;
    `every`: minutes, and steps, from one checkpoint to the next, instead of the configuration's; `stop`: what may ask
    the run to save and end; `threads`: asked for, though a run that goes on began with others."""

    subnet: bool = False
    search: bool = False
    compute: Compute = field(default_factory=Compute)
    processes: Processes = field(default_factory=Processes)
    listener: Listener | None = None
    profile: bool = False
    every: tuple[float | None, int | None] | None = None
    stop: Stop = field(default_factory=Stop)
    threads: int | None = None


def data_spec(config: Config, *, search: bool) -> DataSpec:
    """Where the configuration's pictures are and how they are augmented."""
    d = config.data
    colour = (d.brightness, d.saturation) if d.colortwist else (0.0, 0.0)
    return DataSpec(
        "list" if d.listed else d.name, root=d.root, train_path=d.train_path, train_file=d.train_file,
        valid_path=d.valid_path, valid_file=d.valid_file, train_portion=d.train_portion if search else 1.0,
        augment=Augment(d.crop_scale, flip=d.flip, brightness=colour[0], saturation=colour[1]),
        strict=d.strict_data, workers=d.workers, download=d.download)


def data_of(spec: DataSpec, known: Known = NOTHING) -> DataSet:
    """`load_data`, which keeps the last data set asked for, so that one stage after another decodes it once."""
    spec = replace(spec, augment=Augment(), workers=None)  # neither matters before batches are made
    if spec not in _kept:
        _kept.clear()
    kept = _kept.setdefault(spec, {})
    if known not in kept:
        data = load_data(spec, known)
        kept |= {known: data, Known(known.classes, data.depth): data}
        if known.classes is None:
            kept |= {Known(data.classes, known.depth): data, Known(data.classes, data.depth): data}
    return kept[known]


_kept: dict[DataSpec, dict[Known, DataSet]] = {}  # of one specification


def check_classes(data: DataSet, num_classes: int, *, place: str) -> None:
    """Raise UserError where the data has more classes than the network tells apart."""
    if len(data.classes) > num_classes:
        raise UserError(place, f"{num_classes} is fewer than the {len(data.classes)} classes of the data",
                        f"give {len(data.classes)}, or other data")


def announce(data: DataSet, options: Options) -> None:
    """Let the run's listener hear what was found of the data set."""
    if options.listener is not None and data.found is not None:
        options.listener({"kind": "note", "text": data.found.text()})


def check_trainable(data: DataSet) -> None:
    """Raise UserError for pictures that nothing can be learned from, or tested on, before anything is trained."""
    spec = data.spec
    place = "the pictures" if spec is None else spec.root or spec.train_file or spec.name
    labels = sorted(set(data.train.labels.tolist()))
    if len(labels) < 2:
        named = data.classes[labels[0]] if labels else "none"
        raise UserError(place, f"has pictures of one class only, {named}", "give at least two: a folder for each class")
    if not len(data.test):
        raise UserError(place, "has no more than one picture of each class, so that none is left to test on",
                        "add pictures: at least three of each class, or a folder val/")


def learner_of(config: Config, stage: Stage, options: Options, evaluator: Evaluator) -> Learner:
    """The net at the start of the stage (supernet, or sub-network under `options.subnet`), and what trains it."""
    compute = options.compute
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    teacher = teacher_of(config, compute, evaluator.data.classes)
    if not options.subnet:
        supernet = supernet_of(config)
        _sort(config, supernet)
        compute.place(supernet)
        optimizer = optimizer_of(stage.optimizer, supernet)
        return Learner(supernet, supernet, optimizer, teacher, compute, scaler, options.processes)
    subnet = subnet_of(config, evaluator)
    optimizer = optimizer_of(stage.optimizer, subnet)
    return Learner(subnet, lambda images, _: subnet(images), optimizer, teacher, compute, scaler,
                   options.processes)


def teacher_of(config: Config, compute: Compute, classes: tuple[str, ...]) -> Subnet | None:
    """The largest sub-network of the teacher's supernet, without gradients; None where nothing is distilled.

    Raises UserError for a teacher whose weights name other `classes` than those of the pictures.
    """
    network = config.teacher
    if network is None:
        return None
    told = classes_of(Path(network.weights)) if network.weights else None
    if told is not None and told != classes:
        raise UserError(f"{config.teacher_place}.weights", f"is of a network for {listed(told)}, and the pictures are "
                        f"of {listed(classes)}", "teacher and student need the same classes in the same order")
    net = filled(network, network_space(network), place=config.teacher_place)
    teacher = extract(net, net.space.largest)
    compute.place(teacher)
    teacher.requires_grad_(False).train(config.hparams.teacher_mode == "train")
    return teacher


def _sort(config: Config, supernet: Supernet) -> None:
    """Sort channels where the stage and its settings ask for it."""
    weights, sorting = config.network.weights, config.hparams.channel_sorting
    space = supernet.space
    if weights and sorting == "always":
        sort_channels(supernet, space.top)
    elif weights and config.hparams.task == "expand":
        before = space_of(Path(weights))
        sort_channels(supernet, _phase_before(space) if before is None else space.common(before),
                      keep_squeeze=sorting == "bands")


def _phase_before(space: SearchSpace) -> SearchSpace:
    """What weights that do not say it are taken to be trained in: all expand ratios but the smallest."""
    ratios = [stage.choices.get("expand", ()) for stage in space.stages]
    return space.each("expand", [values[1:] or values for values in ratios])
