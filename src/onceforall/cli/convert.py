"""`ofa convert`: weights from one form of file to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from onceforall.cli.source import Json, SpaceName


def convert(
    source: Annotated[Path, typer.Argument(help="a weights file of any form, or a run folder")],
    target: Annotated[Path, typer.Argument(help="file to write: .safetensors (native), .h5 (nnabla) or .pth (mit)")],
    to: Annotated[str | None, typer.Option(help="native, nnabla or mit, whatever the target's name")] = None,
    space: SpaceName = None,
    json_only: Json = False,
) -> None:
    """Write weights in another form: this project's, NNablaNAS's or the authors'; proved to answer the same."""
    from onceforall.interop.convert import convert as converted

    done = converted(source, target, to=to, space=space)
    net = done.net
    if json_only:
        typer.echo(json.dumps({"source": done.source, "target": done.target, "space": net.space.name,
                               "arch": None if net.arch is None else str(net.arch), "num_classes": net.num_classes,
                               "arrays": done.arrays, "proved": [str(arch) for arch in done.proved]}))
        return
    what = f"supernet of {net.space.name}" if net.arch is None else f"sub-network {net.arch} of {net.space.name}"
    answers = "the sub-network answers" if len(done.proved) == 1 else f"{len(done.proved)} sub-networks answer"
    typer.echo(f"{source} ({done.source}) -> {target} ({done.target}): {what}, {net.num_classes} classes, "
               f"{done.arrays} arrays\nread back, every array is the same, and {answers} the same to the bit")
