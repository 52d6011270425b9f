"""`ofa evaluate`: extract, recalibrate, score."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from onceforall.cli.running import Threads
from onceforall.cli.source import (
    ArchText,
    DataName,
    Device,
    Front,
    FrontRow,
    Genotype,
    Resolution,
    Root,
    SpaceName,
    Which,
    Workers,
)


def evaluate(
    source: Annotated[str, typer.Argument(help="a run, a weights file, or an extracted sub-network")],
    arch: ArchText = None,
    genotype: Genotype = None,
    front: Front = None,
    row: FrontRow = None,
    resolution: Resolution = None,
    space: SpaceName = None,
    data: DataName = None,
    root: Root = None,
    device: Device = "auto",
    workers: Workers = None,
    threads: Threads = None,
    json_only: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Accuracy of one sub-network on the test pictures; of a supernet's, BN is recalibrated on training pictures."""
    from onceforall.cli.pictures import Asked, scored

    which = Which(arch, genotype, resolution, front, row)
    found = scored(Asked(source, space, data, root, device, workers, threads), which)
    chosen, score = found.arch, found.score
    if json_only:
        typer.echo(json.dumps({"arch": str(chosen), "resolution": chosen.resolution, "top1": score.top1,
                               "top5": score.top5, "loss": score.loss, "images": score.images}))
    else:
        typer.echo(f"{chosen}\ntop-1 {100 * score.top1:.2f} %  top-5 {100 * score.top5:.2f} %  loss {score.loss:.4f}  "
                   f"on {score.images:,} test pictures at {chosen.resolution} pixels")
