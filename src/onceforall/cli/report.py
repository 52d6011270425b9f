"""`ofa report`: a run to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="a run's folder, a stage's, a search's or a sub-network's")],
    subnets: Annotated[list[Path] | None, typer.Argument(help="further sub-networks' folders")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write")] = Path("report.html"),
    png: Annotated[Path | None, typer.Option(help="folder for the charts as pictures")] = None,
) -> None:
    """Write Pareto front, predictor, training curves and exports into one HTML file that needs no network."""
    from onceforall.report.gather import gather
    from onceforall.report.page import write, write_png

    found = gather(run, subnets or [])
    write(found, output)
    for path in [output, *(write_png(found, png) if png is not None else [])]:
        typer.echo(f"{path}")
