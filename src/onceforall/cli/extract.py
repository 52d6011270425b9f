"""`ofa extract`: one sub-network as a folder with weights and description."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

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
)


def extract(
    source: Annotated[str, typer.Argument(help="a run, a weights file, or an extracted sub-network")],
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
) -> None:
    """Write one sub-network as plain torch layers, BN recalibrated; `onceforall.load_subnet(DIR)` gives it back."""
    from onceforall.cli.pictures import scored
    from onceforall.export.folder import save_subnet
    from onceforall.interop.weights import weights_file

    which = Which(arch, genotype, resolution, front, row)
    found = scored(source, which, space=space, data=data, root=root, device=device)
    save_subnet(found, output, source=weights_file(Path(source)))
    typer.echo(f"{output}: {found.arch}, top-1 {100 * found.score.top1:.2f} % on {found.score.images:,} test pictures\n"
               f"load it with: onceforall.load_subnet({str(output)!r})\n"
               f"ship it with: ofa export {shlex.quote(str(output))} --to onnx")
