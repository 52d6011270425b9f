"""What training by each recipe costs: multiply-accumulates, forward and backward and the teacher's, in epochs of the
largest sub-network. Sub-networks of 200 steps are drawn.

    python benchmarks/recipe_macs.py [RECIPE ..]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

from onceforall.cost import macs
from onceforall.data import DataSpec
from onceforall.recipes import RECIPES, Preset, recipe_named
from onceforall.recipes.expected import step_macs
from onceforall.space import search_space
from onceforall.training.course import course_of


def epochs(preset: Preset, *, num_classes: int = 10) -> float:
    """All stages of a recipe, in epochs of the largest sub-network."""
    space, total = search_space(preset.space, width_mult=preset.width_mult), 0.0
    recipe = preset.recipe(DataSpec(preset.data), num_classes=num_classes)
    for training in recipe.trainings(Path("run")).values():
        course = course_of(training)
        sizes = course.space.resolutions
        largest = mean(macs(space, space.largest.at(size), num_classes=num_classes) for size in sizes)
        learnt, taught = step_macs(course, num_classes=num_classes)
        total += course.stage.epochs * (3 * learnt + taught) / (3 * largest)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE",
                        default=[name for name in RECIPES if name.endswith(("-cpu", "-shrinking"))])
    for name in parser.parse_args().recipes:
        print(f"{name}: {epochs(recipe_named(name)):.1f} epochs of the largest sub-network")


if __name__ == "__main__":
    main()
