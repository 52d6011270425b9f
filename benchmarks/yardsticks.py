"""Trains what a run of `ofa fit --from` competes with, at the same cost, and scores it on the test pictures.

    python benchmarks/yardsticks.py RUN --records FILE.jsonl [--only all-sizes|each-size|alone ..]
        [--sizes 64 ..] [--subnets smallest|budget-1|.. ..] [--threads 1]

- all-sizes: the full network tuned for all sizes at once, at the cost of both stages together.
- each-size: the full network tuned once for each size, or for those of --sizes. The networks of all sizes together
  cost as much as both stages.
- alone: each saved sub-network, or those that --subnets names, trained by itself from the tuned network under the run's
  teacher, with the optimiser and the steps of the stage `shrunk`. Each of them takes as many steps as all sub-networks
  of the run together.

The cost is that of training in multiply-accumulates: forward and backward passes, and the teacher's. Every network that
is trained is a line of the records: what it is, pixels, MACs in millions, top-1 in per cent, epochs, and seconds of the
processor. What they hold is not trained again. Nothing is written into the run's folder.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from onceforall.cost import macs
from onceforall.nn import Subnet
from onceforall.recipes.expected import step_macs
from onceforall.recipes.polish import polishing
from onceforall.recipes.summary import SUMMARY, read_summary
from onceforall.recipes.transfer import SHRUNK, TUNED
from onceforall.space import Arch
from onceforall.training.course import course_of
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Evaluator
from onceforall.training.recipe import RECIPE, Recipe
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Training
from onceforall.weights.nets import open_weights

KINDS = ("all-sizes", "each-size", "alone")


def cost(training: Training) -> float:
    """Multiply-accumulates of a stage for one picture of the data set."""
    learnt, taught = step_macs(course_of(training), num_classes=training.network.num_classes)
    return training.stage.epochs * (3 * learnt + taught)


def yardsticks(run: Path, kind: str, *, sizes: Sequence[int] | None = None,
               subnets: Sequence[str] | None = None) -> Iterator[tuple[Training, list[Arch]]]:
    """What is trained, and the sub-networks of it that are scored."""
    recipe = Recipe.read(run / RECIPE)
    stages, space = recipe.trainings(run), recipe.network.space
    budget = sum(map(cost, stages.values()))

    def tuned(some: tuple[int, ...], share: float) -> Training:
        one = with_stage(stages[TUNED], {"choices": {"resolution": some}, "validate_at": some[-1:], "epochs": 1})
        epochs = max(1, round(share * budget / cost(one)))
        return with_stage(one, {"epochs": epochs, "validate_every": epochs})

    if kind == "all-sizes":
        yield tuned(space.resolutions, 1.0), [space.largest.at(size) for size in space.resolutions]
    elif kind == "each-size":
        for size in sizes or space.resolutions:
            yield tuned((size,), 1 / len(space.resolutions)), [space.largest.at(size)]
    else:
        last = stages[SHRUNK]
        for row in read_summary(run / SUMMARY)["subnets"]:
            if subnets is not None and Path(row["path"]).name not in subnets:
                continue
            arch = Arch.parse(space, row["arch"])
            training = polishing(last, run / TUNED, arch, epochs=last.stage.epochs)
            yield with_stage(training, {"optimizer": last.stage.optimizer}), [arch]


def with_stage(training: Training, changes: Mapping[str, Any]) -> Training:
    """The same with other settings of its stage."""
    return training.model_copy(update={"stage": training.stage.model_copy(update=dict(changes))})


def trained(training: Training, archs: list[Arch], kind: str) -> list[dict[str, Any]]:
    """Train it in a folder that is deleted, and score it."""
    options = Options()
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        train(training, Path(folder) / "run", options)
        seconds = time.process_time() - began
        net = open_weights(Path(folder) / "run").net
    options.compute.place(net)
    data, space = data_of(training.data), training.network.space
    evaluator = Evaluator(data, options.compute, calibration_images=training.stage.batches.calibration)
    rows = []
    for arch in archs:
        if isinstance(net, Subnet):
            alone = evaluator.recalibrated(net, arch.resolution)
        else:
            alone = evaluator.subnet(net, arch, kept=training.keeps(arch))
        top1 = evaluator.score_net(alone, arch.resolution, data.test).top1
        rows.append({"kind": kind, "arch": str(arch), "pixels": arch.resolution,
                     "macs": round(macs(space, arch, num_classes=training.network.num_classes) / 1e6, 2),
                     "top1": round(100 * top1, 2), "epochs": training.stage.epochs, "seconds": round(seconds)})
    return rows


def main() -> None:
    """Train what the records do not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--records", type=Path, required=True, metavar="FILE.jsonl")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--sizes", nargs="+", type=int, metavar="PIXELS")
    parser.add_argument("--subnets", nargs="+", metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_large_blocks()
    lines = options.records.read_text().splitlines() if options.records.exists() else []
    known = {(row["kind"], row["arch"]) for row in map(json.loads, lines)}
    for kind in options.only:
        for training, archs in yardsticks(options.run, kind, sizes=options.sizes, subnets=options.subnets):
            if any((kind, str(arch)) not in known for arch in archs):
                with options.records.open("a") as file:
                    for row in trained(training, archs, kind):
                        print(json.dumps(row), flush=True)
                        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
