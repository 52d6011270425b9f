"""`ofa data`: what is found of a data set, and what is left out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.cli.source import Root
from onceforall.errors import printable

if TYPE_CHECKING:
    from onceforall.data.check import Checked

_MAX_NAMED = 10


def data(
    name: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="a folder of pictures, or digits, fashion-mnist, "
                                        "cifar10, imagenet")],
    root: Root = None,
    json_only: Annotated[bool, typer.Option("--json", help="print JSON only, with every class")] = False,
) -> None:
    """Show a data set as training would find it: its splits and classes, what is left out, broken files, and pictures
    that are in two splits or of two classes.

    Every picture is decoded; nothing is written.
    """
    from onceforall.cli.progress import Progress
    from onceforall.data import load_data, spec_of
    from onceforall.data.check import checked

    spec = spec_of(name, root)
    pictures = load_data(spec, in_memory=False)
    assert pictures.found is not None
    with Progress(shown=not json_only) as progress:
        if not json_only:
            typer.echo(pictures.found.text())
        seen = checked(pictures, listener=progress.hear)
    if json_only:
        typer.echo(json.dumps({
            **pictures.found.to_dict(),
            "broken": [{"file": one.path, "reason": one.reason} for one in seen.broken],
            "shared": [{"splits": one.splits, "count": one.count, "example": one.example} for one in seen.twice],
            "two_classes": None if seen.disputed is None else asdict(seen.disputed)}))
    else:
        _print(seen, Path(spec.root or "."))


def _print(seen: Checked, root: Path) -> None:
    def short(path: str) -> str:
        return printable(str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path)

    for one in seen.broken[:_MAX_NAMED]:
        typer.echo(f"  broken    {short(one.path)}: {printable(one.reason)}")
    if len(seen.broken) > _MAX_NAMED:
        typer.echo(f"  broken    and {len(seen.broken) - _MAX_NAMED:,} more")
    for two in seen.twice:
        first, second = map(short, two.example)
        typer.echo(f"  twice     {two.count:,} of the {two.splits[1]} pictures are {two.splits[0]} pictures too, "
                   f"such as {second}, which is {first}")
    if seen.disputed is not None:
        first, second = map(short, seen.disputed.example)
        typer.echo(f"  disputed  {seen.disputed.count:,} pictures are of another class than an equal one, such as "
                   f"{second}, which is {first}")
    if not (seen.broken or seen.twice or seen.disputed):
        typer.echo("  all pictures can be read, and no picture is in two splits or of two classes")
