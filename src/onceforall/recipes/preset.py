"""Presets: how to train on a data set: space, sizes, stages, their epochs and rates. Recipes are made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from onceforall.data import Augment, DataSpec
from onceforall.errors import UserError
from onceforall.space import search_space
from onceforall.training.network import Network
from onceforall.training.recipe import Recipe
from onceforall.training.settings import Loss, Optimizer, Schedule
from onceforall.training.stage import Batches, Stage


@dataclass(frozen=True)
class StageRow:
    """One stage of training: its folder, and the choices it trains (Cai et al. 2020, fig. 3).

    `sorts`: whether channels are sorted by importance first.
    """

    name: str
    folder: str
    kernel: tuple[int, ...]
    expand: tuple[int, ...]
    depth: tuple[int, ...]
    sorts: bool = False


STAGES = (
    StageRow("fullnet", "K7_E6_D4", (7,), (6,), (4,)),
    StageRow("kernel", "K357_E6_D4", (3, 5, 7), (6,), (4,)),
    StageRow("depth_phase1", "K357_E6_D34", (3, 5, 7), (6,), (3, 4)),
    StageRow("depth_phase2", "K357_E6_D234", (3, 5, 7), (6,), (2, 3, 4)),
    StageRow("expand_phase1", "K357_E46_D234", (3, 5, 7), (4, 6), (2, 3, 4), sorts=True),
    StageRow("expand_phase2", "K357_E346_D234", (3, 5, 7), (3, 4, 6), (2, 3, 4), sorts=True),
)
BN_MOMENTUM = 1 - 0.9  # a decay of 0.9, to the last bit
WHOLE = StageRow("whole", "whole", (3, 5, 7), (3, 4, 6), (2, 3, 4))  # without stages; sorts no channels


@dataclass(frozen=True)
class Preset:
    """How one supernet is trained: in `stages`, each with its place in `epochs`, which count `warmup` ones, `lr`,
    `subnets`, the sub-networks a step, and `strategy`, which ones these are. Stages after the first learn from the
    first, too; under `sandwich` they learn from their own largest sub-network instead.

    `sizes`: training resolutions, every multiple of 4 between them; `size`: the one to validate at; `batch`: pictures
    a step, over all processes; `pictures`: how many training pictures the epochs are for, where fewer need more;
    `validations`: how often a stage is validated, about.
    """

    name: str
    data: str
    space: str
    width_mult: float
    sizes: tuple[int, int]
    size: int
    batch: int
    epochs: tuple[float, ...]
    lr: tuple[float, ...]
    warmup: tuple[float, ...] = (1, 0, 0, 0, 0, 0)
    subnets: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    strategy: tuple[str, ...] = ("shrinking",) * 6
    augment: Augment = field(default_factory=Augment)
    weight_decay: float = 3e-5
    dropout: float = 0.1
    micro_batch: int | None = None
    calibration_images: int = 2000
    seed: int = 0
    stages: tuple[StageRow, ...] = STAGES
    pictures: int | None = None
    validations: int = 4

    def at_random(self, name: str, epochs: float) -> Preset:
        """The same without stages: from random weights on, a step trains one sub-network of the whole space."""
        return replace(self, name=name, stages=(WHOLE,), epochs=(epochs,), lr=self.lr[:1], warmup=self.warmup[:1],
                       subnets=(1,), strategy=("shrinking",))

    def for_pictures(self, count: int) -> Preset:
        """The same for `count` training pictures: half as many get twice the epochs, up to eight times as many."""
        factor = 1 if self.pictures is None else 2 ** int(math.log2(max(1, self.pictures / count)))
        return self.scaled(min(8, factor))

    def scaled(self, factor: float) -> Preset:
        """The same with `factor` times the epochs, at least one a stage."""
        check_scale(factor)
        epochs = tuple(max(1, round(e * factor)) for e in self.epochs)
        wanted = (max(1, round(w * factor)) if w else 0 for w in self.warmup)
        warmup = tuple(min(e - 1, w) for e, w in zip(epochs, wanted, strict=True))
        return replace(self, epochs=epochs, warmup=warmup)

    def recipe(self, data: DataSpec, *, num_classes: int, processes: int = 1, balanced: bool = False) -> Recipe:
        """The recipe for some pictures, with the batch shared by so many processes."""
        if self.batch % processes:
            raise UserError("processes", f"{processes} do not divide the recipe's batch of {self.batch}")
        space = search_space(self.space, width_mult=self.width_mult)
        network = Network(space=space, num_classes=num_classes, dropout=self.dropout, bn_momentum=BN_MOMENTUM,
                          bn_eps=space.bn_eps)
        share = self.batch // processes
        return Recipe(data=data, network=network, stages={
            row.folder: self._stage(i, share, balanced=balanced) for i, row in enumerate(self.stages)})

    def _stage(self, i: int, batch: int, *, balanced: bool) -> Stage:
        row, taught = self.stages[i], i > 0 and self.strategy[i] == "shrinking"  # by others they teach themselves
        return Stage(
            choices={"kernel": row.kernel, "expand": row.expand, "depth": row.depth,
                     "resolution": tuple(range(self.sizes[0], self.sizes[1] + 1, 4))},
            epochs=int(self.epochs[i]), optimizer=optimizer(self.lr[i], self.weight_decay),
            schedule=Schedule(warmup_epochs=int(self.warmup[i]), warmup_lr=self.lr[i] / 8 if self.warmup[i] else 0.0),
            loss=Loss(kd_weight=1.0 if taught else 0.0), teacher=self.stages[0].folder if taught else None,
            strategy=self.strategy[i], subnets_per_step=self.subnets[i], sort="bands" if row.sorts else "none",
            validate_archs=("smallest", "middle", "largest"), validate_at=(self.size,),
            validate_every=int(max(1, self.epochs[i] // self.validations)), seed=self.seed,
            batches=Batches(size=batch, micro=batch if self.micro_batch is None else min(batch, self.micro_batch),
                            valid=200, calibration=self.calibration_images, balanced=balanced))


def optimizer(lr: float, weight_decay: float) -> Optimizer:
    """SGD with Nesterov's momentum."""
    return Optimizer(lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)


def check_scale(factor: float) -> None:
    """Raise UserError for an --epochs-scale that is no factor."""
    if not (math.isfinite(factor) and 0 < factor <= 1000):
        raise UserError("--epochs-scale", f"{factor} is not a number above 0, at most 1000")


def check_seed(seed: int | None) -> None:
    """Raise UserError for a --seed that no configuration takes; None stands for the recipe's."""
    if seed is not None and not 0 <= seed < 2**32:
        raise UserError("--seed", f"{seed} is not a number from 0 to 2^32 - 1")
