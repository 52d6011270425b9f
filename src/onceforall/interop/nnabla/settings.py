"""What a configuration of NNablaNAS says, in our own settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from onceforall.data import Augment, DataSpec
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import (
    Config,
    Network,
    checked,
    network_space,
    no_decay_patterns,
    stage_space,
    subnet_arch,
    supernet_space,
    valid_archs,
)
from onceforall.interop.nnabla.genotype import has_operators, operators_of
from onceforall.interop.nnabla.names import decay_names
from onceforall.nn import Subnet, Supernet
from onceforall.space import lower
from onceforall.space.catalog import named_settings
from onceforall.training import network as nets
from onceforall.training import stage as ours
from onceforall.training.engine.places import without_paths
from onceforall.training.optimizer import spared
from onceforall.training.settings import Loss, Optimizer, Schedule
from onceforall.training.strategy import STRATEGIES
from onceforall.weights.nets import NNABLA_WEIGHTS


def training_of(config: Config, algorithm: str = "OFASearcher", *, search: bool = False) -> ours.Training:
    """What the configuration trains.

    Args:
        algorithm: OFASearcher, the supernet; or OFATrainer, the sub-network of its genotype.
        search: whether the training pictures that `train_portion` leaves validate.

    Raises:
        UserError: the configuration asks for what cannot be. Its place is NNablaNAS's key.
    """
    checked(config, algorithm, search=search)
    return _translated(config, algorithm, search=search)


def _translated(config: Config, algorithm: str, *, search: bool) -> ours.Training:
    return ours.Training(data=pictures_of(config, search=search), network=_network(config, algorithm),
                         stage=_stage(config, algorithm))


def pictures_of(config: Config, *, search: bool) -> DataSpec:
    """Where the configuration's pictures are and how they are augmented."""
    d = config.data
    colour = (d.brightness, d.saturation) if d.colortwist else (0.0, 0.0)
    return DataSpec(
        "list" if d.listed else d.name, root=d.root, train_path=d.train_path, train_file=d.train_file,
        valid_path=d.valid_path, valid_file=d.valid_file, train_portion=d.train_portion if search else 1.0,
        augment=Augment(d.crop_scale, flip=d.flip, brightness=colour[0], saturation=colour[1]),
        strict=d.strict_data, workers=d.workers, cache=d.cache, download=d.download)


def _network(config: Config, algorithm: str) -> nets.Network:
    network = config.network
    if algorithm == "OFASearcher":
        return nets.Network(space=supernet_space(network), **_common(network))
    arch = subnet_arch(config)
    return nets.Network(space=network_space(network), arch=str(arch), new_classifier=network.new_classifier,
                        **_common(network))


def _common(network: Network) -> dict[str, Any]:
    """The settings of our network that its space does not hold."""
    decay, eps = network.bn_param
    return {"num_classes": network.num_classes, "dropout": network.drop_rate, "bn_momentum": 1 - decay, "bn_eps": eps,
            "weights": network.weights}


def _stage(config: Config, algorithm: str) -> ours.Stage:
    hparams, data, supernet = config.hparams, config.data, algorithm == "OFASearcher"
    teacher = config.teacher
    if supernet and hparams.strategy not in STRATEGIES:
        raise UserError("hparams.strategy", f"{hparams.strategy!r} is not one of {', '.join(STRATEGIES)}")
    of_supernets: dict[str, Any] = {} if not supernet else {
        "choices": {"resolution": stage_space(config).resolutions}, "strategy": hparams.strategy,
        "subnets_per_step": hparams.subnets_per_step, "sampling": hparams.sampling, "predictor": hparams.predictor,
        "candidates": hparams.candidates, "delay": hparams.delay, "rise": hparams.rise, "sort": _sort(config),
        "validate_archs": [str(arch) for arch in valid_archs(config)]}
    return ours.Stage(
        epochs=hparams.epoch, optimizer=_optimizer(config, algorithm), schedule=_schedule(config),
        loss=Loss(smoothing=hparams.label_smoothing, kd=hparams.kd_loss, kd_weight=hparams.lambda_kd),
        teacher=None if teacher is None else nets.Teacher(
            network=nets.Network(space=network_space(teacher), **_common(teacher)),
            batch_statistics=hparams.teacher_mode == "train"),
        update_unused=hparams.update_unused, validate_every=hparams.validation_frequency, seed=hparams.seed,
        batches=ours.Batches(size=hparams.batch_size_train, micro=hparams.mini_batch_train,
                             valid=hparams.mini_batch_valid, calibration=hparams.calibration_images,
                             balanced=data.balanced, prefetch=data.prefetch, pin_memory=data.pin_memory),
        safety=ours.Safety(
            checkpoint_minutes=hparams.checkpoint_every, checkpoint_steps=hparams.checkpoint_every_steps,
            setbacks=hparams.setbacks, setback_rate=hparams.setback_rate, setback_clip=hparams.setback_clip,
            print_every=hparams.print_frequency),
        **of_supernets)


def _sort(config: Config) -> str:
    hparams = config.hparams
    if hparams.channel_sorting == "always":
        return "all"
    if hparams.task != "expand":
        return "none"
    return "bands" if hparams.channel_sorting == "bands" else "squeeze"


def _optimizer(config: Config, algorithm: str) -> Optimizer:
    """The optimiser of the configuration's two groups. It says which parameters do not decay by our names."""
    group, free = config.optimizer.train, config.optimizer.train_no_decay
    arch = subnet_arch(config) if algorithm == "OFATrainer" else None
    with torch.device("meta"):
        net = Supernet(stage_space(config)) if arch is None else Subnet(lower(network_space(config.network), arch))
    names, patterns = decay_names(net), no_decay_patterns(config)
    exempt = {name for name, theirs in names.items() if any(p.search(theirs) for p in patterns)}
    usual = Optimizer.model_fields["no_decay"].default
    return Optimizer(
        lr=group.lr, weight_decay=group.weight_decay, no_decay_rate=free.weight_decay, momentum=group.momentum,
        nesterov=group.name == "Nesterov",
        no_decay=usual if exempt == spared(names, usual) else tuple(f"^{re.escape(name)}$" for name in sorted(exempt)))


def _schedule(config: Config) -> Schedule:
    hparams, shape = config.hparams, config.optimizer.train.lr_scheduler
    factor, every = hparams.step_decay_rate, hparams.epoch_steps
    if shape == "StepScheduler" and factor is not None and every is not None:
        return Schedule(shape="stairs", factor=factor, every=every)
    warmup = hparams.cosine_warmup_epoch if shape == "CosineSchedulerWarmup" else 0
    return Schedule(warmup_epochs=warmup, warmup_lr=hparams.warmup_lr)


@contextmanager
def their_places(config: Config) -> Iterator[None]:
    """Errors inside name the keys of the configuration instead of ours."""
    sections = {"stage.teacher.network": config.teacher_place, "network": config.network_place,
                "data": config.data_place, "stage": "hparams"}
    try:
        yield
    except UserError as error:
        ours = next((place for place in sections if error.place.startswith(f"{place}.")), None)
        if ours is None:
            raise
        raise UserError(sections[ours] + error.place.removeprefix(ours), error.problem, error.remedy) from None


def read(values: Mapping[str, Any], options: Mapping[str, Any]) -> ours.Training:
    """What a run of an older version trained, whose config.json is in NNablaNAS's form.

    Args:
        values: what config.json holds.
        options: what the run's checkpoint says of how it was started.
    """
    config = Config.from_dict(values)
    subnet = options.get("subnet", config.hparams.task is None and config.network.genotype is not None)
    return _translated(config, "OFATrainer" if subnet else "OFASearcher",
                       search=options.get("search", config.data.train_portion < 1))


def own_key(key: str) -> str:
    """Our key for a configuration's dotted key: `data.root` for `dataloader.imagenet.root`."""
    for pattern, own in _OWN_KEYS:
        if pattern.match(key):
            return pattern.sub(own, key)
    return key


_OWN_KEYS = ((re.compile(r"dataloader\.[^.]+\."), "data."), (re.compile(r"network\.[^.]+\."), "network."),
             (re.compile(r"hparams\.teacher_network\.[^.]+\."), "stage.teacher.network."),
             (re.compile(r"hparams\."), "stage."))


def config_of(training: ours.Training) -> Config:
    """A configuration of NNablaNAS that trains the same. `training_of` reads it back.

    Raises:
        UserError: NNablaNAS's form has no words for it.
    """
    data, network, stage = training.data, training.network, training.stage
    if data.source is not None:
        raise UserError("--dump-configs", "NNablaNAS's form has no words for pictures from Python",
                        "--dump-recipe writes them")
    sizes, loss, batches = training.part.resolutions, stage.loss, stage.batches
    continuous = len(sizes) > 1 and sizes == tuple(range(sizes[0], sizes[-1] + 1, 4))
    hparams: dict[str, Any] = {
        "task": _task(training), "epoch": stage.epochs, "cosine_warmup_epoch": stage.schedule.warmup_epochs,
        "warmup_lr": stage.schedule.warmup_lr, "batch_size_train": batches.size, "mini_batch_train": batches.each,
        "batch_size_valid": batches.valid,
        "train_image_size_list": [sizes[0], sizes[-1]] if continuous else list(sizes),
        "image_size_continuous": continuous,
        "valid_image_size_list": list(dict.fromkeys(arch.resolution for arch in training.validated)),
        "subnets_per_step": stage.subnets_per_step, "strategy": stage.strategy, "seed": stage.seed,
        "lambda_kd": loss.kd_weight, "kd_loss": loss.kd, "label_smoothing": loss.smoothing,
        "calibration_images": batches.calibration, "validation_frequency": stage.validate_every}
    if training.teacher is not None and training.teacher.network is not None:
        hparams["teacher_network"] = {"ofa": _section(training.teacher.network)}
    group = {"name": "Nesterov", "lr": stage.optimizer.lr, "momentum": stage.optimizer.arguments.get("momentum")}
    config = Config.from_dict({
        "dataloader": {data.name: _loader(training)}, "network": {"ofa": _section(network)},
        "optimizer": {"train": {**group, "weight_decay": stage.optimizer.weight_decay}}, "hparams": hparams})
    if without_paths(training_of(config, search=training.searches)) != without_paths(training):
        raise UserError("--dump-configs", "NNablaNAS's form has no words for all settings of this recipe",
                        "--dump-recipe writes them all")
    return config


def _task(training: ours.Training) -> str:
    """The stage of progressive shrinking that a training is."""
    if training.stage.sort != "none":
        return "expand"
    stages = training.part.stages
    if any(len(row.depth) > 1 for row in stages):
        return "depth"
    return "kernel" if any(len(row.choices.get("kernel", ())) > 1 for row in stages) else "fullnet"


def _section(network: nets.Network) -> dict[str, Any]:
    base, settings = named_settings(network.space.name)
    weights = None if network.weights is None else str(Path(network.weights).with_name(NNABLA_WEIGHTS))
    lists = {} if not has_operators(network.space) else {
        "op_candidates": operators_of(network.space), "depth_candidates": list(network.space.stages[0].depth)}
    values = {"space": base, **settings, "num_classes": network.num_classes, "drop_rate": network.dropout,
              "weights": weights, **lists}
    return {key: value for key, value in values.items() if value is not None}


def _loader(training: ours.Training) -> dict[str, Any]:
    data, augment = training.data, training.data.augment
    colours = augment.brightness > 0 or augment.saturation > 0
    values = {"root": data.root, "train_portion": data.train_portion, "crop_scale": list(augment.crop_scale),
              "flip": augment.flip, "colortwist": colours, "strict_data": data.strict, "workers": data.workers,
              "cache": data.cache or None, "download": data.download, "balanced": training.stage.batches.balanced}
    if colours:
        values |= {"brightness": augment.brightness, "saturation": augment.saturation}
    return {key: value for key, value in values.items() if value is not None}
