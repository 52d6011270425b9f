"""`ofa extract`: one sub-network as a folder with weights and description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onceforall.cli.source import ArchText, DataName, Device, Genotype, Resolution, Root, chosen_arch, compute_of


def extract(
    source: Annotated[str, typer.Argument(help="a run folder or a weights file")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write")],
    arch: ArchText = None,
    genotype: Genotype = None,
    resolution: Resolution = None,
    data: DataName = None,
    root: Root = None,
    device: Device = "auto",
) -> None:
    """Write one sub-network as plain torch layers, BN recalibrated; `onceforall.load_subnet(DIR)` gives it back."""
    from onceforall.cli.pictures import evaluator_for
    from onceforall.export.folder import describe, save_subnet
    from onceforall.interop.weights import load
    from onceforall.train.distributed import Processes

    net = load(Path(source))
    chosen = chosen_arch(net.space, arch, genotype, resolution)
    compute = compute_of(device, 0, "float", Processes())
    evaluator = evaluator_for(Path(source), net, data=data, root=root, compute=compute)
    compute.place(net)
    subnet = evaluator.subnet(net, chosen)
    score = evaluator.score_net(subnet, chosen.resolution, evaluator.data.test)
    save_subnet(subnet, output, space=net.space, arch=chosen,
                about=describe(evaluator.data, chosen, top1=score.top1, images=score.images))
    typer.echo(f"{output}: {chosen}, top-1 {100 * score.top1:.2f} % on {score.images:,} test pictures\n"
               f"load it with: onceforall.load_subnet({str(output)!r})")
