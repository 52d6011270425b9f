"""What training by each recipe costs: multiply-accumulates, forward and backward and the teacher's, in epochs of the
largest sub-network. Sub-networks of 200 steps are drawn.

    python benchmarks/recipe_macs.py [RECIPE ..]
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from statistics import mean

from onceforall.cost import macs
from onceforall.recipes import RECIPES, Recipe, configs, recipe_named
from onceforall.space import Arch, search_space
from onceforall.train.stage import stage_of
from onceforall.train.strategy import Moment

STEPS = 200


def epochs(recipe: Recipe, *, num_classes: int = 10) -> float:
    """All stages of a recipe, in epochs of the largest sub-network."""
    space, total = search_space(recipe.space, width_mult=recipe.width_mult), 0.0
    for config in configs(recipe, num_classes=num_classes, run=Path("run"), root="pictures").values():
        stage = stage_of(config)

        def forward(arch: Arch, sizes: tuple[int, ...] = stage.space.resolutions) -> float:
            return mean(macs(space, arch.at(size), num_classes=num_classes) for size in sizes)

        step = mean(sum(3 * forward(term.arch) for term in stage.strategy(stage.space, random.Random(i),
                                                                          Moment(i, STEPS))) for i in range(STEPS))
        teacher = 0.0 if config.teacher is None else forward(space.largest)
        total += stage.epochs * (step + teacher) / (3 * forward(space.largest))
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE",
                        default=[name for name in RECIPES if name.endswith(("-cpu", "-shrinking"))])
    for name in parser.parse_args().recipes:
        print(f"{name}: {epochs(recipe_named(name)):.1f} epochs of the largest sub-network")


if __name__ == "__main__":
    main()
