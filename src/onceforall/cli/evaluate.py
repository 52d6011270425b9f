"""`ofa evaluate`: extract, recalibrate, score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onceforall.cli.source import ArchText, DataName, Device, Genotype, Resolution, Root, chosen_arch, compute_of


def evaluate(
    source: Annotated[str, typer.Argument(help="a run folder or a weights file")],
    arch: ArchText = None,
    genotype: Genotype = None,
    resolution: Resolution = None,
    data: DataName = None,
    root: Root = None,
    device: Device = "auto",
    json_only: Annotated[bool, typer.Option("--json", help="print JSON only")] = False,
) -> None:
    """Accuracy of one sub-network on the test pictures, its BN statistics recalibrated on training pictures."""
    from onceforall.cli.pictures import evaluator_for
    from onceforall.interop.weights import load
    from onceforall.train.distributed import Processes

    net = load(Path(source))
    chosen = chosen_arch(net.space, arch, genotype, resolution)
    compute = compute_of(device, 0, "float", Processes())
    evaluator = evaluator_for(Path(source), net, data=data, root=root, compute=compute)
    compute.place(net)
    score = evaluator.score(net, chosen, evaluator.data.test)
    if json_only:
        typer.echo(json.dumps({"arch": str(chosen), "resolution": chosen.resolution, "top1": score.top1,
                               "top5": score.top5, "loss": score.loss, "images": score.images}))
    else:
        typer.echo(f"{chosen}\ntop-1 {100 * score.top1:.2f} %  top-5 {100 * score.top5:.2f} %  loss {score.loss:.4f}  "
                   f"on {score.images:,} test pictures at {chosen.resolution} pixels")
