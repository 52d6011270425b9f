"""Stage: one stage of progressive shrinking as a value: the part of the space it trains, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch

from onceforall.cost.predictor_file import load
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import (
    Config,
    full_space,
    network_space,
    no_decay_patterns,
    stage_space,
    subnet_arch,
)
from onceforall.interop.nnabla.names import decay_names
from onceforall.nn import Subnet, Supernet
from onceforall.space import SearchSpace, lower
from onceforall.training.optimizer import spared
from onceforall.training.sampling import Sampler, attentive
from onceforall.training.settings import Loss, Optimizer, Rate, Schedule
from onceforall.training.strategy import STRATEGIES, Strategy, authors_order, delayed, only


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the loop runs.

    Args:
        space: the part of the search space that is trained.
        strategy: which sub-networks a step runs, and what each learns from.
        epochs: how often every picture is seen.
        batch: pictures a step of one process.
        micro_batch: pictures a forward pass; divides `batch`.
        seed: what all random draws derive from.
        optimizer: how weights are updated.
        schedule: how the learning rate moves.
        loss: what the sub-networks are judged by. The losses of a step's sub-networks are added up.
        update_unused: whether weight decay and momentum also move parameters that no sub-network of a step used.
    """

    space: SearchSpace
    strategy: Strategy
    epochs: int
    batch: int
    micro_batch: int
    optimizer: Optimizer
    schedule: Schedule = field(default_factory=Schedule)
    loss: Loss = field(default_factory=Loss)
    seed: int = 0
    update_unused: bool = False

    def __post_init__(self) -> None:
        if self.batch % self.micro_batch:
            raise UserError("batch", f"{self.batch} is not a multiple of micro_batch, {self.micro_batch}")
        if self.schedule.warmup_epochs > self.epochs:
            raise UserError("warmup_epochs", f"{self.schedule.warmup_epochs} is above epochs, {self.epochs}")

    def rate(self, steps_per_epoch: int) -> Rate:
        """The learning rate of each step."""
        return self.schedule.rate(self.optimizer.lr, epochs=self.epochs, steps_per_epoch=steps_per_epoch)


def stage_of(config: Config, *, subnet: bool = False) -> Stage:
    """The stage that a configuration describes; `subnet`: the training of its genotype alone."""
    hparams, teacher = config.hparams, config.teacher is not None
    if subnet:
        arch = subnet_arch(config)
        assert arch is not None  # checked before
        whole = network_space(config.network)
        space, strategy = whole.at([arch.resolution]), only(arch, teacher=teacher)
        with torch.device("meta"):
            net: Supernet | Subnet = Subnet(lower(whole, arch))
    else:
        space = stage_space(config)
        strategy = _strategy(config, space, teacher=teacher)
        with torch.device("meta"):
            net = Supernet(space)
    return Stage(
        space=space, strategy=strategy, epochs=hparams.epoch, batch=hparams.batch_size_train,
        micro_batch=hparams.mini_batch_train, seed=hparams.seed, update_unused=hparams.update_unused,
        optimizer=_optimizer(config, net), schedule=_schedule(config),
        loss=Loss(smoothing=hparams.label_smoothing, kd=hparams.kd_loss, kd_weight=hparams.lambda_kd))


def _optimizer(config: Config, net: Supernet | Subnet) -> Optimizer:
    """The configuration's groups; the arrays that it exempts by NNablaNAS's names, by ours."""
    group, free, names = config.optimizer.train, config.optimizer.train_no_decay, decay_names(net)
    patterns = no_decay_patterns(config)
    exempt = {ours for ours, theirs in names.items() if any(p.search(theirs) for p in patterns)}
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


def _strategy(config: Config, space: SearchSpace, *, teacher: bool) -> Strategy:
    """What a step of a supernet's stage trains."""
    hparams = config.hparams
    if hparams.sampling == "authors":
        return authors_order(hparams.subnets_per_step, teacher=teacher)
    sampler: Sampler = SearchSpace.sample
    if hparams.sampling in ("best_up", "worst_up"):
        assert hparams.predictor is not None  # checked before
        predictor = load(Path(hparams.predictor), space=full_space(config.network))
        if not predictor.space.covers(space.at(predictor.space.resolutions)):
            raise UserError("hparams.predictor", f"{hparams.predictor} does not know all of {space.name} that "
                            "is trained", "fit it on this supernet")
        sampler = attentive(sampler, predictor, best=hparams.sampling == "best_up", candidates=hparams.candidates)
    if hparams.strategy not in STRATEGIES:
        raise UserError("hparams.strategy", f"{hparams.strategy!r} is not one of {', '.join(STRATEGIES)}")
    strategy = STRATEGIES[hparams.strategy](hparams.subnets_per_step, teacher=teacher, sampler=sampler)
    if not hparams.delay and not hparams.rise:
        return strategy
    return delayed(strategy, until=hparams.delay, rise=hparams.rise, teacher=teacher)
