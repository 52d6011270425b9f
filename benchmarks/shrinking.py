"""Compares ways to shrink a tuned network: trains stage `shrunk` of a run of `ofa fit --from` with other settings.

    ofa fit --data flowers --from efficientnet_lite0 --sizes 64,96 --set stages.tuned.epochs=12 -o runs/base
    python benchmarks/shrinking.py runs/base epochs=10 sort=none [--every 5] [--stages 1,3,5]

The settings are those of the stage, as `ofa fit --set stages.shrunk.NAME=VALUE` takes them. With --stages the space
grows as in the paper: so many epochs with elastic kernels alone, then with elastic depth too, then with all. Nothing is
written into the run's folder. It prints top-1 on the test pictures, or every fifth of them, in per cent as JSON: of the
smallest sub-network at the smallest and the largest size that the stage trains, of the middle and the largest one, and
the mean of eight random ones at the largest size.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from onceforall.recipes.transfer import SHRUNK, TUNED
from onceforall.space import Arch
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Evaluator
from onceforall.training.recipe import RECIPE, Recipe
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Stage
from onceforall.weights.nets import load_supernet

RANDOM = 8


def shrunk(run: Path, settings: list[str], every: int = 1, epochs: Sequence[int] = ()) -> dict[str, float]:
    """Top-1 in per cent after the stage, trained with these settings from the run's tuned network."""
    options = Options()
    recipe = Recipe.read(run / RECIPE, [f"stages.{SHRUNK}.validate_start=false",
                                        *(f"stages.{SHRUNK}.{text}" for text in settings)])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / TUNED).symlink_to((run / TUNED).resolve())
        whole = recipe.model_copy(update={"stages": growing(recipe, epochs)}) if epochs else recipe
        _, *trainings = whole.trainings(Path(folder)).items()
        for name, training in trainings:
            train(training, Path(folder) / name, options)
        net = load_supernet(Path(folder) / name)
    options.compute.place(net)
    data, space, rng = data_of(training.data), net.space, random.Random(1)
    evaluator = Evaluator(data, options.compute, calibration_images=training.stage.batches.calibration)
    test = data.test.subset(range(0, len(data.test), every))

    def top1(arch: Arch) -> float:
        return 100 * evaluator.score(net, arch, test).top1

    small, large = min(training.part.resolutions), max(training.part.resolutions)
    found = {f"smallest, {small} px": top1(space.smallest.at(small)), "smallest": top1(space.smallest.at(large)),
             "middle": top1(space.middle.at(large)), "largest": top1(space.largest.at(large)),
             "random": mean(top1(space.sample(rng).at(large)) for _ in range(RANDOM))}
    return {name: round(value, 1) for name, value in found.items()}


def growing(recipe: Recipe, epochs: Sequence[int]) -> dict[str, Stage]:
    """The tuned network's stage, and one each that makes kernels, depth and everything else elastic."""
    last, space = recipe.stages[SHRUNK], recipe.network.space
    others = tuple(name for name in space.dimensions if name != "kernel")
    fixed = {"kernel": (*others, "depth"), "depth": others, SHRUNK: ()}
    grown = {name: last.model_copy(update={"at_largest": at, "epochs": count, "validate_every": count,
                                           "sort": last.sort if name == "kernel" else "none"})
             for (name, at), count in zip(fixed.items(), epochs, strict=True)}
    return {TUNED: recipe.stages[TUNED], **grown}


def main() -> None:
    """Train the stage and print what it reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--stages", metavar="N,N,N", default="")
    options = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    keep_large_blocks()
    epochs = [int(count) for count in options.stages.split(",") if count]
    print(json.dumps(shrunk(options.run, options.settings, options.every, epochs)))


if __name__ == "__main__":
    main()
