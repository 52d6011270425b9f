"""`ofa extract`: one sub-network as a folder with weights and description."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from onceforall.deploy.folder import Extracted


def extract(
    source: Annotated[str, typer.Argument(help="a run, a weights file, or an extracted sub-network; of an "
                                           "elastic.safetensors the statistics are kept, unless --data is given")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write")],
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
) -> None:
    """Write one sub-network as plain torch layers, BN recalibrated; `onceforall.load_subnet(DIR)` gives it back."""
    from onceforall.cli.pictures import Asked, scored
    from onceforall.deploy.elastic_file import is_elastic
    from onceforall.deploy.folder import save_subnet
    from onceforall.weights.nets import weights_file

    which = Which(arch, genotype, resolution, front, row)
    if is_elastic(Path(source)) and data is None:
        about = save_subnet(_stored(Path(source), which), output, source=Path(source))
    else:
        found = scored(Asked(source, space, data, root, device, workers, threads), which)
        about = save_subnet(found.extracted, output, source=weights_file(Path(source)))
    score = about.accuracy
    words = "" if score is None else f", top-1 {100 * score.top1:.2f} % on {score.images:,} {score.split} pictures"
    typer.echo(f"{output}: {about.arch}{words}\n"
               f"load it with: onceforall.load_subnet({str(output)!r})\n"
               f"ship it with: ofa export {shlex.quote(str(output))} --to onnx")


def _stored(path: Path, which: Which) -> Extracted:
    """A sub-network with the statistics that the file stores of it; nothing is measured."""
    from onceforall.deploy.elastic import Elastic
    from onceforall.deploy.folder import Extracted

    net = Elastic.load(path)
    space = net.supernet.space
    arch = which.of(space) if which.any or which.resolution else net.arch
    return Extracted(net.extracted(arch), space, arch, net.channels, net.classes)
