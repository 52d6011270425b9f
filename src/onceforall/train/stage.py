"""Stage: one stage of progressive shrinking as a value: the part of the space it trains, and how."""

from __future__ import annotations

from dataclasses import dataclass

from onceforall.interop.config import Config, network_space, stage_space, subnet_arch
from onceforall.space import SearchSpace
from onceforall.train.schedule import CosineWarmup
from onceforall.train.strategy import Strategy, authors_order, only, progressive_shrinking


@dataclass(frozen=True)
class Stage:
    """What the loop runs. `batch` and `micro_batch` are pictures of one process; a step's loss is smoothed cross
    entropy plus `kd_weight` times distillation, added up over its sub-networks. `update_unused`: weight decay and
    momentum also move parameters that none of these used."""

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

    def schedule(self, steps_per_epoch: int) -> CosineWarmup:
        """The learning rate of each step."""
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
        draw = authors_order if hparams.sampling == "authors" else progressive_shrinking
        space, strategy = stage_space(config), draw(hparams.subnets_per_step, teacher=teacher)
    warmup = hparams.cosine_warmup_epoch if group.lr_scheduler == "CosineSchedulerWarmup" else 0
    return Stage(space, strategy, hparams.epoch, warmup, group.lr, hparams.warmup_lr, hparams.batch_size_train,
                 hparams.mini_batch_train, hparams.lambda_kd, hparams.label_smoothing, hparams.seed,
                 hparams.update_unused)
