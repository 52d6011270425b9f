"""Recipes: how to train on a data set, as values: space, sizes, stages, and their epochs and rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.genotype import operators_of
from onceforall.space import search_space


@dataclass(frozen=True)
class StageRow:
    """One stage of training: its folder and task, and the choices it trains (Cai et al. 2020, fig. 3)."""

    name: str
    folder: str
    task: str
    kernel: tuple[int, ...]
    expand: tuple[int, ...]
    depth: tuple[int, ...]


STAGES = (
    StageRow("fullnet", "K7_E6_D4", "fullnet", (7,), (6,), (4,)),
    StageRow("kernel", "K357_E6_D4", "kernel", (3, 5, 7), (6,), (4,)),
    StageRow("depth_phase1", "K357_E6_D34", "depth", (3, 5, 7), (6,), (3, 4)),
    StageRow("depth_phase2", "K357_E6_D234", "depth", (3, 5, 7), (6,), (2, 3, 4)),
    StageRow("expand_phase1", "K357_E46_D234", "expand", (3, 5, 7), (4, 6), (2, 3, 4)),
    StageRow("expand_phase2", "K357_E346_D234", "expand", (3, 5, 7), (3, 4, 6), (2, 3, 4)),
)
WHOLE = StageRow("whole", "whole", "depth", (3, 5, 7), (3, 4, 6), (2, 3, 4))  # without stages; sorts no channels


@dataclass(frozen=True)
class Recipe:
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
    loader: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 3e-5
    dropout: float = 0.1
    micro_batch: int | None = None
    calibration_images: int = 2000
    seed: int = 0
    stages: tuple[StageRow, ...] = STAGES
    pictures: int | None = None
    validations: int = 4

    def at_random(self, name: str, epochs: float) -> Recipe:
        """The same without stages: from random weights on, a step trains one sub-network of the whole space."""
        return replace(self, name=name, stages=(WHOLE,), epochs=(epochs,), lr=self.lr[:1], warmup=self.warmup[:1],
                       subnets=(1,), strategy=("shrinking",))

    def for_pictures(self, count: int) -> Recipe:
        """The same for `count` training pictures: half as many get twice the epochs, up to eight times as many."""
        factor = 1 if self.pictures is None else 2 ** int(math.log2(max(1, self.pictures / count)))
        return self.scaled(min(8, factor))

    def scaled(self, factor: float) -> Recipe:
        """The same with `factor` times the epochs, at least one a stage."""
        if not (math.isfinite(factor) and 0 < factor <= 1000):
            raise UserError("--epochs-scale", f"{factor} is not a number above 0, at most 1000")
        epochs = tuple(max(1, round(e * factor)) for e in self.epochs)
        wanted = (max(1, round(w * factor)) if w else 0 for w in self.warmup)
        warmup = tuple(min(e - 1, w) for e, w in zip(epochs, wanted, strict=True))
        return replace(self, epochs=epochs, warmup=warmup)


def check_seed(seed: int | None) -> None:
    """Raise UserError for a --seed that no configuration takes; None stands for the recipe's."""
    if seed is not None and not 0 <= seed < 2**32:
        raise UserError("--seed", f"{seed} is not a number from 0 to 2^32 - 1")


def configs(recipe: Recipe, *, num_classes: int, run: Path, root: str | None = None,
            processes: int = 1) -> dict[str, Config]:
    """The stages' configurations by output folder, as `run` links them through their weights."""
    if recipe.batch % processes:
        raise UserError("processes", f"{processes} do not divide the recipe's batch of {recipe.batch}")
    full = f"{run / recipe.stages[0].folder}/weights.h5"
    out, before = {}, None
    for i, row in enumerate(recipe.stages):
        network = _network(recipe, row, num_classes, dropout=recipe.dropout)
        hparams = _hparams(recipe, i, processes)
        if before is not None:
            network["weights"] = before
        if before is not None and recipe.strategy[i] == "shrinking":  # by other strategies they teach themselves
            hparams["lambda_kd"] = 1.0
            teacher = _network(recipe, recipe.stages[0], num_classes, dropout=0.0)
            hparams["teacher_network"] = {"ofa": {**teacher, "weights": full}}
        loader = {**recipe.loader, **({} if root is None else {"root": root})}
        out[row.folder] = Config.from_dict({
            "dataloader": {recipe.data: loader}, "network": {"ofa": network},
            "optimizer": optimizer(recipe.lr[i], recipe.weight_decay),
            "hparams": hparams})
        before = f"{run / row.folder}/weights.h5"
    return out


def optimizer(lr: float, weight_decay: float) -> dict[str, Any]:
    """The optimizer section of a configuration."""
    group = {"name": "Nesterov", "lr": lr, "momentum": 0.9, "lr_scheduler": "CosineSchedulerWarmup"}
    return {"train": {**group, "weight_decay": weight_decay}, "train_no_decay": {**group, "weight_decay": 0.0}}


def _network(recipe: Recipe, row: StageRow, num_classes: int, *, dropout: float) -> dict[str, Any]:
    space = search_space(recipe.space).restrict(kernel=row.kernel, expand=row.expand)
    return {"space": recipe.space, "width_mult": recipe.width_mult, "num_classes": num_classes, "drop_rate": dropout,
            "op_candidates": operators_of(space), "depth_candidates": list(row.depth)}


def _hparams(recipe: Recipe, stage: int, processes: int) -> dict[str, Any]:
    share = recipe.batch // processes
    micro = share if recipe.micro_batch is None else min(share, recipe.micro_batch)
    return {"task": recipe.stages[stage].task, "epoch": int(recipe.epochs[stage]),
            "cosine_warmup_epoch": int(recipe.warmup[stage]),
            "warmup_lr": recipe.lr[stage] / 8 if recipe.warmup[stage] else 0.0,
            "batch_size_train": share, "mini_batch_train": micro, "batch_size_valid": 200,
            "train_image_size_list": list(recipe.sizes), "valid_image_size_list": [recipe.size],
            "subnets_per_step": recipe.subnets[stage], "strategy": recipe.strategy[stage], "seed": recipe.seed,
            "lambda_kd": 0.0, "calibration_images": recipe.calibration_images,
            "validation_frequency": int(max(1, recipe.epochs[stage] // recipe.validations))}
