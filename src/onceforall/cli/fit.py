"""`ofa fit`: the whole pipeline in one command."""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onceforall.cli.running import Every, Profile, Threads, compute_of, log_to_stderr, running
from onceforall.cli.source import Workers


def fit(
    data: Annotated[str, typer.Option(help="digits, fashion-mnist, cifar10, imagenet, or a folder with "
                                      "train/<class>/* and val/<class>/*, or <class>/*")] = "digits",
    root: Annotated[str | None, typer.Option(help="where a named data set's files are")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="run folder; runs/DATA by default")] = None,
    recipe: Annotated[str | None, typer.Option(help="recipe by name; the data set's by default")] = None,
    epochs_scale: Annotated[float, typer.Option(help="factor of all epochs")] = 1.0,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="mirror training pictures at random; as the "
                                              "recipe says by default")] = None,
    seed: Annotated[int | None, typer.Option(help="what all random draws derive from; the recipe's by default")] = None,
    balanced: Annotated[bool, typer.Option("--balanced", help="draw every class equally often, however many pictures "
                                           "it has")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    type_config: Annotated[str, typer.Option("-t", "--type-config", help="float, half or bfloat16")] = "float",
    workers: Workers = None,
    threads: Threads = None,
    strict_data: Annotated[bool, typer.Option(help="stop at a broken picture instead of skipping it")] = False,
    download: Annotated[bool, typer.Option(help="fetch missing data where the data set offers it")] = False,
    profile: Profile = False,
    checkpoint_every: Every = None,
    dump_configs: Annotated[Path | None, typer.Option(help="only write the stages' JSON files there")] = None,
) -> None:
    """Train the recipe's stages in one run folder and pick the best sub-networks for a few budgets.

    Run again, it goes on where it stopped.
    """
    from onceforall.cli.progress import Progress, closing_table
    from onceforall.data import NAMED
    from onceforall.recipes.fit import Request, plan
    from onceforall.recipes.fit import fit as run
    from onceforall.training.engine.distributed import detect

    processes = detect(os.environ)
    folder = output or Path("runs") / (data if data in NAMED else Path(data).resolve().name)
    request = Request(data, root, recipe, epochs_scale, download=download, workers=workers, strict=strict_data,
                      flip=flip, seed=seed, balanced=balanced)
    log_to_stderr(processes, quiet=True)
    compute = compute_of(device, 0, type_config, processes, threads=threads)
    if dump_configs is not None:
        gpu = compute.device.type != "cpu"
        for name, config in plan(request, folder, gpu=gpu, processes=processes.world).items():
            config.write(dump_configs / f"{name}.json")
            typer.echo(shlex.join(["ofa", "train", "--search", "-f", f"{dump_configs / name}.json",
                                   "-o", str(folder / name)]))
        return
    with (running(compute, processes, every=checkpoint_every, profile=profile, threads=threads) as options,
          Progress(shown=processes.first) as progress):
        summary = run(request, folder, replace(options, listener=progress.hear))
    if processes.first:
        closing_table(summary, folder)
