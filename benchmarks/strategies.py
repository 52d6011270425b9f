"""Compares ways to train a supernet on one budget, also with sub-networks that are trained alone on as much each.

    python benchmarks/strategies.py RUNS [--data fashion-mnist|cifar10|digits] [--root FOLDER] [--portion 0.1]
        [--budget 20] [--width 0.25] [--sizes 16 20] [--seeds 0 1 2] [--threads 1] [--only NAME ..] [--records FILE]

The budget counts multiply-accumulates of forward passes, three times those of passes with gradients; --budget is in
epochs of the largest sub-network over --portion of the training pictures, which is all that anything here trains on.
Every way to train is a row of WAYS; "alone NAME" is a sub-network by itself. Accuracies are of the test pictures, of
the population of every fourth, statistics recalibrated on training pictures. Each run is a line of the records,
`strategies.jsonl` beside this file or FILE, and what they hold is not made again; `strategies_table.py` prints them.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any
from unittest import mock

import numpy as np
import torch
from strategies_table import RECORDS, levels_of, read

from onceforall.cost.counts import macs
from onceforall.cost.measured import Measured
from onceforall.cost.population import macs_table
from onceforall.cost.predictor import fit_best
from onceforall.cost.predictor_file import save
from onceforall.cost.spread import spread as spread_over
from onceforall.data import NOTHING, DataSet, DataSpec, Known
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.genotype import operators_of
from onceforall.interop.nnabla.settings import pictures_of, training_of
from onceforall.nn import Subnet
from onceforall.recipes.expected import step_macs
from onceforall.recipes.preset import STAGES, WHOLE, StageRow
from onceforall.space import Arch, SearchSpace, search_space
from onceforall.training.course import course_of
from onceforall.training.engine import run as runs
from onceforall.training.engine.lock import locked
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.engine.output import WEIGHTS
from onceforall.training.evaluate import Evaluator
from onceforall.training.loop import Learner
from onceforall.training.setup import Options, data_of, learner_of
from onceforall.training.stage import Training
from onceforall.weights.nets import load, load_supernet

CLASSES = 10  # of all the data sets
LOOKED_AT = 1000  # held-out pictures
MEASURED, CALIBRATED = 32, 500  # sub-networks that a predictor learns from; pictures that recalibrate
POPULATION, OTHERS = 50, 4  # random sub-networks that are scored; those of them that are trained alone too


@dataclass(frozen=True)
class Leg:
    """One stage of a way to train: its choices, its share of the way's epochs before they are fitted to the budget, its
    learning rate, and what its configuration has beside that."""

    row: StageRow
    epochs: float
    lr: float
    subnets: int = 1
    teacher: bool = False
    network: Mapping[str, Any] = field(default_factory=dict)
    hparams: Mapping[str, Any] = field(default_factory=dict)


def task(row: StageRow) -> str:
    """What NNablaNAS calls a stage."""
    return "expand" if row.sorts else row.name if row.name in ("fullnet", "kernel") else "depth"


# epochs and sub-networks a step in the proportions of the authors' script (Cai et al. 2020)
SHRINKING = tuple(Leg(row, epochs, lr, subnets, teacher=row.name != "fullnet") for row, epochs, lr, subnets in zip(
    STAGES, (180, 120, 25, 120, 25, 120), (0.05, 0.02, 0.02, 0.02, 0.02, 0.02), (1, 1, 2, 2, 4, 4), strict=True))
COMPOUND = {"compound": True}


def _sandwich(lr: float = 0.05, **hparams: Any) -> tuple[Leg, ...]:
    return (Leg(WHOLE, 1, lr, 4, hparams={"strategy": "sandwich", **hparams}),)


WAYS: dict[str, tuple[Leg, ...]] = {
    "shrinking": SHRINKING,
    "shrinking, recipes' epochs": tuple(replace(leg, epochs=epochs, subnets=subnets) for leg, epochs, subnets in zip(
        SHRINKING, (4, 1, 1, 1, 1, 2), (1, 1, 1, 1, 2, 2), strict=True)),  # the recipes named -shrinking
    "shrinking, kernels cropped": SHRINKING,  # the matrices stay at identity
    "shrinking, not sorted": tuple(replace(leg, row=replace(leg.row, sorts=False))
                                   for leg in SHRINKING),
    "shrinking, no teacher": tuple(replace(leg, teacher=False) for leg in SHRINKING),
    "shrinking, one sub-network": tuple(replace(leg, teacher=False, subnets=1) for leg in SHRINKING),
    "compound": (SHRINKING[0], replace(SHRINKING[5], epochs=25, network=COMPOUND),
                 replace(SHRINKING[5], epochs=125, network=COMPOUND)),
    "sandwich": _sandwich(),
    "sandwich, quarter rate": _sandwich(0.05 / 4),  # the losses of a step's four sub-networks are summed
    "sandwich, batch 16": _sandwich(0.05 / 4, batch_size_train=16),  # four times the steps
    "sandwich, in halves": (*_sandwich(), *_sandwich(0.02)),  # as best up and worst up
    "sandwich, alpha": _sandwich(kd_loss="alpha"),
    "delayed": _sandwich(delay=0.5, rise=0.1),
    "random": (Leg(WHOLE, 1, 0.05),),
    "best up": (*_sandwich(), *_sandwich(0.02, sampling="best_up")),  # a predictor is learnt at half time
    "worst up": (*_sandwich(), *_sandwich(0.02, sampling="worst_up")),
}


@dataclass(frozen=True)
class Setting:
    """What all ways have in common."""

    data: str
    root: str | None
    portion: float
    budget: float
    width: float
    sizes: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """What a record says of it."""
        return {"data": self.data, "portion": self.portion, "budget": self.budget, "width": self.width,
                "sizes": list(self.sizes)}

    def names(self, seed: int) -> list[str]:
        """What is trained with one seed; random sub-networks alone with the first."""
        return [*WAYS, *(f"alone {key}" for key in self.alone() if seed == 0 or not key.startswith("random"))]

    @property
    def space(self) -> SearchSpace:
        """The supernet's space, at the training resolutions."""
        low, high = self.sizes
        return search_space("mobilenet_v3_large_32px", width_mult=self.width).restrict(
            resolutions=range(low, high + 1, 4))

    def levels(self) -> dict[str, Arch]:
        """The four sub-networks that every way is asked for, by name: two lie between the ends in MACs."""
        space, high = self.space, self.sizes[1]
        lower = space.restrict(kernel=(5,), expand=(4,), depth=(3,)).largest
        upper = space.restrict(kernel=(7,), expand=(6,), depth=(3,)).largest
        return {"smallest": space.smallest.at(high), "lower": lower.at(high), "upper": upper.at(high),
                "largest": space.largest.at(high)}

    def population(self, way: str = "") -> list[Arch]:
        """Random sub-networks, the same for all ways but compound, which has its own."""
        rng, space = random.Random(0), self.space.compound() if way == "compound" else self.space
        return [space.sample(rng).at(self.sizes[1]) for _ in range(POPULATION)]

    def alone(self) -> dict[str, Arch]:
        """Those that are trained alone."""
        return {**self.levels(), **{f"random {i}": arch for i, arch in enumerate(self.population()[:OTHERS])}}

    def config(self, leg: Leg, *, epochs: int, seed: int, before: Path | None = None, full: Path | None = None,
               arch: Arch | None = None) -> Config:
        """The configuration of one leg, that starts from `before` and learns from `full`."""
        def network(row: StageRow, **more: Any) -> dict[str, Any]:
            part = self.space.restrict(kernel=row.kernel, expand=row.expand)
            return {"space": "mobilenet_v3_large_32px", "width_mult": self.width, "num_classes": CLASSES,
                    "drop_rate": 0.0, "op_candidates": operators_of(part), "depth_candidates": list(row.depth), **more}

        net, smallest = network(leg.row, **leg.network), min(leg.row.depth)
        hparams = {"task": task(leg.row), "epoch": epochs, "batch_size_train": 64, "batch_size_valid": 200,
                   "train_image_size_list": list(self.sizes), "subnets_per_step": leg.subnets, "seed": seed,
                   "validation_frequency": epochs, "checkpoint_every": None, **leg.hparams}
        if arch is None:  # validation is not what is compared: one sub-network at the end
            hparams["valid_genotypes"] = [([0] * smallest + [len(net["op_candidates"])] * (4 - smallest)) * 5]
        if before is not None:
            net["weights"] = str(before)
        if leg.teacher and full is not None:
            hparams |= {"lambda_kd": 1.0, "teacher_network": {"ofa": network(STAGES[0], weights=str(full))}}
        if arch is not None:
            net["genotype"] = arch.to_genotype(self.space)
            hparams |= {"img_size": arch.resolution}
        loader = {"train_portion": self.portion, "crop_scale": [0.6, 1.0], "flip": self.data != "digits", "workers": 0,
                  **({} if self.root is None else {"root": self.root})}
        return Config.from_dict({"dataloader": {self.data: loader}, "network": {"ofa": net},
                                 "optimizer": {"train": {"lr": leg.lr, "weight_decay": 3e-5}}, "hparams": hparams})

    def macs(self, arch: Arch) -> int:
        """Multiply-accumulates of a forward pass for one picture."""
        return macs(self.space, arch, num_classes=CLASSES)

    def cost(self, leg: Leg, *, arch: Arch | None = None) -> float:
        """MACs of an epoch for one picture: three times those of each sub-network of a step, and the teacher's."""
        if arch is not None:
            return 3 * self.macs(arch)
        usual = replace(leg, hparams={key: value for key, value in leg.hparams.items() if key != "sampling"})
        course = course_of(training_of(self.config(usual, epochs=1, seed=0)))
        teacher = mean(self.macs(self.space.largest.at(size)) for size in course.space.resolutions)
        return 3 * step_macs(course, num_classes=CLASSES)[0] + (teacher if leg.teacher else 0.0)

    def learning(self, legs: Sequence[Leg]) -> float:
        """MACs, for one picture of an epoch, to measure what the predictors of some legs learn from."""
        learns = sum("sampling" in leg.hparams for leg in legs)
        if not learns:
            return 0.0
        forward = mean(self.macs(arch) for arch in self.population())
        pictures = len(data_of(pictures_of(self.config(legs[0], epochs=1, seed=0), search=True)).train)
        return learns * MEASURED * (LOOKED_AT + CALIBRATED) * forward / pictures

    def epochs(self, legs: Sequence[Leg], *, arch: Arch | None = None) -> tuple[list[int], float]:
        """Whole epochs of each leg that fit into the budget, and what they cost, in epochs of the largest."""
        unit = 3 * mean(self.macs(self.space.largest.at(size)) for size in self.space.resolutions)
        costs, learning = [self.cost(leg, arch=arch) / unit for leg in legs], self.learning(legs) / unit
        scale = (self.budget - learning) / sum(leg.epochs * cost for leg, cost in zip(legs, costs, strict=True))
        shares = [leg.epochs * scale for leg in legs]
        counts = [max(1, int(share)) for share in shares]

        def spent() -> float:
            return learning + sum(n * cost for n, cost in zip(counts, costs, strict=True))

        def short(i: int) -> float:
            return shares[i] - counts[i]

        while spent() > self.budget and max(counts) > 1:
            counts[min((i for i, n in enumerate(counts) if n > 1), key=short)] -= 1
        while fitting := [i for i, cost in enumerate(costs) if short(i) > 0 and spent() + cost <= self.budget]:
            counts[max(fitting, key=short)] += 1
        return counts, spent()


def cropped(training: Training, options: Options, evaluator: Evaluator) -> Learner:
    """The learner, with kernel matrices that are not trained: smaller kernels are the centre of the largest."""
    learner = learner_of(training, options, evaluator)
    for name, parameter in learner.net.named_parameters():
        if "kernel_" in name:
            parameter.requires_grad_(False)
    return learner


def trained(setting: Setting, runs_folder: Path, records: Path, name: str, seed: int) -> dict[str, Any]:
    """The record of one way with one seed, made now or read."""
    wanted = {**setting.to_dict(), "way": name, "seed": seed}
    folder = runs_folder / re.sub(r"[^a-z0-9.]+", "-", " ".join(map(str, wanted.values())))
    with locked(folder):
        for record in read(records):
            if wanted.items() <= record.items():
                return record
        make, begun = alone if name.startswith("alone ") else supernet, (folder / "0").exists()
        made = {**wanted, **make(setting, name, seed, folder), "torch": torch.__version__}
        if begun:  # by a process that was stopped, whose time is not known
            made["seconds"] = None
        with records.open("a", encoding="utf-8") as file:
            file.write(json.dumps(made) + "\n")
    return made


def supernet(setting: Setting, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train a supernet leg by leg, and score it."""
    legs, began = WAYS[name], time.process_time()
    epochs, spent = setting.epochs(legs)
    before = full = config = None
    with (mock.patch.object(runs, "learner_of", cropped if "cropped" in name else learner_of),
          mock.patch.object(runs, "data_of", few_held_out)):
        for i, (given, count) in enumerate(zip(legs, epochs, strict=True)):
            leg = given
            if "sampling" in leg.hparams and before is not None and config is not None:
                leg = replace(leg, hparams={**leg.hparams, "predictor": str(predictor(before, config, folder))})
            config = setting.config(leg, epochs=count, seed=seed, before=before, full=full)
            runs.train(training_of(config, search=True), folder / str(i), Options())
            before = folder / str(i) / WEIGHTS
            full = full or before
    assert config is not None
    assert before is not None
    seconds = time.process_time() - began
    net, evaluator = load_supernet(before), Evaluator(data_of(pictures_of(config, search=True)),
                                                      calibration_images=CALIBRATED)
    some = evaluator.data.test.subset(range(0, len(evaluator.data.test), 4))
    return {"epochs": epochs, "spent": spent, "seconds": seconds,
            "levels": {key: evaluator.score(net, arch, evaluator.data.test).top1
                       for key, arch in setting.alone().items()},
            "population": [evaluator.score(net, arch, some).top1 for arch in setting.population(name)]}


def few_held_out(spec: DataSpec, known: Known = NOTHING) -> DataSet:
    """The pictures, of which validation, which nothing depends on, looks at some."""
    data = data_of(spec, known)
    return replace(data, held_out=data.held_out.subset(range(min(LOOKED_AT, len(data.held_out)))))


def predictor(weights: Path, config: Config, folder: Path) -> Path:
    """A file that predicts accuracies of the supernet in `weights`, learnt from some of its sub-networks."""
    net = load_supernet(weights)
    space = net.space.restrict(resolutions=net.space.resolutions[-1:])
    evaluator = Evaluator(few_held_out(pictures_of(config, search=True)), calibration_images=CALIBRATED)
    codes = spread_over(macs_table(space), MEASURED, np.random.default_rng(0))
    top1 = [evaluator.score(net, space.decode(row), evaluator.data.held_out).top1 for row in codes.tolist()]
    save(fit_best(Measured(space, codes, np.array(top1))).predictor, folder / "predictor.safetensors", about={})
    return folder / "predictor.safetensors"


def alone(setting: Setting, name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train one sub-network by itself, and score it."""
    arch, began = setting.alone()[name.removeprefix("alone ")], time.process_time()
    leg = Leg(WHOLE, 1, 0.05)
    epochs, spent = setting.epochs([leg], arch=arch)
    config = setting.config(leg, epochs=epochs[0], seed=seed, arch=arch)
    with mock.patch.object(runs, "data_of", few_held_out):
        runs.train(training_of(config, "OFATrainer", search=True), folder / "0", Options())
    seconds, net = time.process_time() - began, load(folder / "0" / WEIGHTS)
    assert isinstance(net, Subnet)
    evaluator = Evaluator(data_of(pictures_of(config, search=True)), calibration_images=CALIBRATED)
    score = evaluator.score_net(evaluator.recalibrated(net, arch.resolution), arch.resolution, evaluator.data.test)
    return {"epochs": epochs, "spent": spent, "seconds": seconds, "top1": score.top1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--root")
    parser.add_argument("--portion", type=float, default=0.1)
    parser.add_argument("--budget", type=float, default=20)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--sizes", type=int, nargs=2, default=(16, 20))
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="these alone of what is to be trained")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FILE")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    keep_large_blocks()
    setting = Setting(a.data, a.root, a.portion, a.budget, a.width, tuple(a.sizes))
    for seed in a.seeds:
        for name in setting.names(seed):
            if a.only is None or name in a.only:
                began = time.time()
                made = trained(setting, a.runs, a.records, name, seed)
                accuracy = " ".join(f"{key} {100 * value:.1f}" for key, value in levels_of(made).items())
                print(f"{time.time() - began:5.0f} s  seed {seed}  {name}: {accuracy}", flush=True)


if __name__ == "__main__":
    main()
