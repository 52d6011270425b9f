"""`ofa evaluate`: extract, recalibrate, score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
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
    Json,
    Resolution,
    Root,
    SpaceName,
    Which,
    Workers,
)
from onceforall.errors import printable

if TYPE_CHECKING:
    from onceforall.deploy.confusion import ClassRow

_SHOWN, _OTHERS = 20, 3  # classes, and others that one is taken for


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
    json_only: Json = False,
) -> None:
    """Accuracy of one sub-network on the test pictures; of a supernet's, BN is recalibrated on training pictures."""
    from onceforall.cli.pictures import Asked, scored
    from onceforall.deploy.confusion import by_class

    which = Which(arch, genotype, resolution, front, row)
    found = scored(Asked(source, space, data, root, device, workers, threads), which)
    chosen, score = found.arch, found.score
    classes = by_class(found.confusion, found.data.classes)
    if json_only:
        typer.echo(json.dumps({"arch": str(chosen), "resolution": chosen.resolution, "top1": score.top1,
                               "top5": score.top5, "loss": score.loss, "images": score.images,
                               "classes": [asdict(row) for row in classes]}))
        return
    typer.echo(f"{chosen}\ntop-1 {100 * score.top1:.2f} %  top-5 {100 * score.top5:.2f} %  loss {score.loss:.4f}  "
               f"on {score.images:,} test pictures at {chosen.resolution} pixels")
    _show(classes)


def _show(rows: Sequence[ClassRow]) -> None:
    """Print a row for each class; where there are many, only the least accurate ones."""
    from onceforall.cli.tables import show, table

    shown = rows if len(rows) <= _SHOWN else sorted(rows, key=lambda row: row.top1)[:_SHOWN]
    show("" if len(shown) == len(rows) else f"\nthe {_SHOWN} of {len(rows):,} classes that are told worst",
         table(("class", "pictures", "top-1", "taken for"), map(_row, shown)))


def _row(row: ClassRow) -> list[str]:
    others = [f"{printable(name)} ({images:,})" for name, images in list(row.taken_for.items())[:_OTHERS]]
    return [printable(row.name), f"{row.images:,}", f"{100 * row.top1:.1f} %", ", ".join(others)]
