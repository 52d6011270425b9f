"""`ofa fit`: the whole pipeline in one command."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.cli.running import Every, Profile, Threads, compute_of, log_to_stderr, running
from onceforall.cli.shipped import MaxLoss, Ship
from onceforall.cli.source import Cache, Workers, bytes_of
from onceforall.cli.start import (
    KERNELS,
    RATIOS,
    Depth,
    Kernels,
    Ratios,
    Sizes,
    Start,
    Unlabelled,
    choices_of,
    sizes_or_own,
)
from onceforall.errors import UserError

if TYPE_CHECKING:
    from onceforall.recipes.fit import Request
    from onceforall.training.recipe import Recipe


def fit(
    data: Annotated[str | None, typer.Option(help="digits (the default), fashion-mnist, cifar10, imagenet, or a folder "
                                             "with train/<class>/* and val/<class>/*, or <class>/*")] = None,
    root: Annotated[str | None, typer.Option(help="where a named data set's files are")] = None,
    start: Start = None,
    sizes: Sizes = None,
    kernels: Kernels = KERNELS,
    ratios: Ratios = RATIOS,
    depth: Depth = None,
    unlabelled: Unlabelled = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="run folder; runs/DATA by default")] = None,
    recipe: Annotated[str | None, typer.Option(help="recipe by name, or a file of --dump-recipe; the data set's by "
                                               "default")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="setting of the recipe to change, as "
                                                      "stages.K7_E6_D4.epochs=3")] = None,
    epochs_scale: Annotated[float, typer.Option(help="factor of all epochs")] = 1.0,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="mirror training pictures at random; as the "
                                              "recipe says by default")] = None,
    seed: Annotated[int | None, typer.Option(help="what all random draws derive from; the recipe's by default")] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="draw every class equally often, however many pictures "
                                           "it has")] = False,
    polish: Annotated[int, typer.Option(help="epochs that each saved sub-network is trained alone in the end")] = 0,
    ship: Ship = None,
    max_loss: MaxLoss = 1.0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    type_config: Annotated[str, typer.Option("-t", "--type-config", help="float, half or bfloat16")] = "float",
    workers: Workers = None,
    cache: Cache = None,
    threads: Threads = None,
    strict_data: Annotated[bool, typer.Option(help="stop at a broken picture instead of skipping it")] = False,
    download: Annotated[bool, typer.Option(help="fetch missing data where the data set offers it")] = False,
    profile: Profile = False,
    checkpoint_every: Every = None,
    dump_recipe: Annotated[Path | None, typer.Option(help="only write the recipe there, as YAML")] = None,
    dump_configs: Annotated[Path | None, typer.Option(help="only write the stages there, as NNablaNAS's JSON")] = None,
) -> None:
    """Train the recipe's stages in one run folder and pick the best sub-networks for a few budgets.

    Run again, it goes on where it stopped.
    """
    from onceforall.cli.progress import Progress, closing_table
    from onceforall.recipes import fit as pipeline
    from onceforall.training.engine.distributed import detect

    processes = detect(os.environ)
    request = pipeline.Request(
        data, root, recipe, epochs_scale, download=download, workers=workers, strict=strict_data, flip=flip, seed=seed,
        cache=None if cache is None else bytes_of("--cache", cache), balanced=balanced, polish=polish, start=start,
        ship=tuple(ship or ()), max_loss=max_loss,
        changes=tuple(changes or ()), sizes=sizes_or_own(sizes),
        unlabelled=unlabelled, choices=choices_of(kernels, ratios, depth))
    folder = output or Path("runs") / _name(request)
    log_to_stderr(processes, quiet=True)
    compute = compute_of(device, 0, type_config, processes, threads=threads)
    if dump_recipe is not None or dump_configs is not None:
        found = pipeline.plan(request, gpu=compute.device.type != "cpu", processes=processes.world)
        _dump(found, folder, recipe_file=dump_recipe, configs=dump_configs)
        return
    with (running(compute, processes, every=checkpoint_every, profile=profile, threads=threads) as options,
          Progress(shown=processes.first) as progress):
        summary = pipeline.fit(request, folder, replace(options, listener=progress.hear))
    if processes.first:
        closing_table(summary, folder)


def _name(request: Request) -> str:
    """What the run's folder is called by default: as the recipe's file, or as the pictures."""
    from onceforall.data import NAMED

    named = request.file.stem if request.data is None and request.file is not None else request.named
    return named if named in NAMED else Path(named).resolve().name.replace(":", ".")


def _dump(recipe: Recipe, run: Path, *, recipe_file: Path | None, configs: Path | None) -> None:
    """Write the recipe, and each stage as a configuration of NNablaNAS, and print the commands that train them."""
    if configs is not None and recipe.start is not None:
        raise UserError("--dump-configs", "stands beside a pretrained start, which NNablaNAS's form has not",
                        "give --dump-recipe")
    if recipe_file is not None:
        recipe.write(recipe_file)
        typer.echo(shlex.join(["ofa", "fit", "--recipe", str(recipe_file), "-o", str(run)]))
    if configs is not None:
        from onceforall.interop.nnabla.settings import config_of

        for name, training in recipe.trainings(run).items():
            config_of(training).write(configs / f"{name}.json")
            typer.echo(shlex.join(["ofa", "train", "--search", "-f", f"{configs / name}.json", "-o", str(run / name)]))
