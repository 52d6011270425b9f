"""`ofa report`: a run to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="a run's folder, a stage's or a search's")],
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write")] = Path("report.html"),
    png: Annotated[Path | None, typer.Option(help="folder for the charts as pictures")] = None,
) -> None:
    """Write Pareto front, predictor and training curves into one HTML file that needs no network."""
    from onceforall.report.gather import gather
    from onceforall.report.page import write, write_png

    found = gather(run)
    write(found, output)
    for path in [output, *(write_png(found, png) if png is not None else [])]:
        typer.echo(f"{path}")
