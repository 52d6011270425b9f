"""`ofa finetune`: train an extracted sub-network on."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onceforall.cli.running import Every, Threads, compute_of, log_to_stderr, running
from onceforall.cli.source import Device, Root, Workers


def finetune(
    subnet: Annotated[Path, typer.Argument(help="folder of an extracted sub-network")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write")],
    data: Annotated[str | None, typer.Option(help="digits, fashion-mnist, cifar10, imagenet or a folder; those of the "
                                             "sub-network by default")] = None,
    root: Root = None,
    teacher: Annotated[str | None, typer.Option(help="a run or a supernet's weights, whose largest sub-network also "
                                                "teaches")] = None,
    epochs: Annotated[int | None, typer.Option(help="at least 2, and 300 steps, by default")] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate at the start; the recipe's last by default")] = None,
    batch: Annotated[int | None, typer.Option(help="pictures a step, over all processes")] = None,
    seed: Annotated[int, typer.Option(help="what all random draws derive from")] = 0,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="mirror training pictures at random; as the "
                                              "recipe says by default")] = None,
    device: Device = "auto",
    type_config: Annotated[str, typer.Option("-t", "--type-config", help="float, half or bfloat16")] = "float",
    workers: Workers = None,
    threads: Threads = None,
    checkpoint_every: Every = None,
) -> None:
    """Train an extracted sub-network on, into a folder of the same kind; on other classes with a new classifier.

    What was exported from it is exported and verified anew. Run again, it goes on where it stopped.
    """
    from onceforall.cli.export import export_again, verified
    from onceforall.cli.progress import Progress
    from onceforall.recipes.finetune import Request
    from onceforall.recipes.finetune import finetune as run
    from onceforall.training.engine.distributed import detect

    processes = detect(os.environ)
    log_to_stderr(processes, quiet=True)
    request = Request(subnet, data, root, teacher, epochs=epochs, lr=lr, batch=batch, workers=workers, seed=seed,
                      flip=flip)
    compute = compute_of(device, 0, type_config, processes, threads=threads)
    with (running(compute, processes, every=checkpoint_every, threads=threads) as options,
          Progress(shown=processes.first) as progress):
        about = run(request, output, replace(options, listener=progress.hear))
        made = export_again(subnet, output, progress) if processes.first else {}
    if processes.first and about.accuracy is not None:
        before, after = about.provenance["finetuned"]["top1_before"], about.accuracy
        start = "" if before is None else f"{100 * before:.2f} % before, "
        typer.echo(f"{output}: {about.arch}, top-1 {start}{100 * after.top1:.2f} % after, on {after.images:,} test "
                   f"pictures\nload it with: onceforall.load_subnet({str(output)!r})")
        if made:
            verified(output, made)
