"""Stage: one stage of progressive shrinking as a value: the part of the space it trains, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onceforall.cost.predictor_file import load
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config, full_space, network_space, stage_space, subnet_arch
from onceforall.space import SearchSpace
from onceforall.training.losses import Distillation, alpha_divergence, distillation
from onceforall.training.sampling import Sampler, attentive
from onceforall.training.schedule import CosineWarmup, Stairs
from onceforall.training.strategy import STRATEGIES, Strategy, authors_order, delayed, only


@dataclass(frozen=True)
class Stage:
    """What the loop runs. `batch` and `micro_batch` are pictures of one process; a step's loss is smoothed cross
    entropy plus `kd_weight` times `distil` of the teacher, or `distil` of the largest sub-network, added up over its
    sub-networks. `update_unused`: weight decay and momentum also move parameters that none of these used. `stairs`: the
    learning rate falls by this factor every so many epochs, instead of by the cosine."""

    space: SearchSpace
    strategy: Strategy
    epochs: int
    warmup_epochs: int
    lr: float
    warmup_lr: float
    batch: int
    micro_batch: int
    kd_weight: float
    label_smoothing: float
    seed: int
    update_unused: bool = False
    distil: Distillation = distillation
    stairs: tuple[float, int] | None = None

    def schedule(self, steps_per_epoch: int) -> CosineWarmup | Stairs:
        """The learning rate of each step."""
        if self.stairs is not None:
            return Stairs(self.lr, self.stairs[0], self.stairs[1] * steps_per_epoch)
        return CosineWarmup(self.lr, self.warmup_lr, warmup=self.warmup_epochs * steps_per_epoch,
                            total=self.epochs * steps_per_epoch)


def stage_of(config: Config, *, subnet: bool = False) -> Stage:
    """The stage that a configuration describes; `subnet`: the training of its genotype alone."""
    hparams, group = config.hparams, config.optimizer.train
    teacher = config.teacher is not None
    if subnet:
        arch = subnet_arch(config)
        assert arch is not None  # checked before
        space, strategy = network_space(config.network).at([arch.resolution]), only(arch, teacher=teacher)
    else:
        space = stage_space(config)
        strategy = _strategy(config, space, teacher=teacher)
    warmup = hparams.cosine_warmup_epoch if group.lr_scheduler == "CosineSchedulerWarmup" else 0
    return Stage(space, strategy, hparams.epoch, warmup, group.lr, hparams.warmup_lr, hparams.batch_size_train,
                 hparams.mini_batch_train, hparams.lambda_kd, hparams.label_smoothing, hparams.seed,
                 hparams.update_unused, alpha_divergence if hparams.kd_loss == "alpha" else distillation,
                 _stairs(config))


def _stairs(config: Config) -> tuple[float, int] | None:
    factor, every = config.hparams.step_decay_rate, config.hparams.epoch_steps
    if config.optimizer.train.lr_scheduler != "StepScheduler" or factor is None or every is None:
        return None
    return factor, every


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
