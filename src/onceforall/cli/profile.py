"""`ofa profile`: a latency table of this machine, or a folder that makes one on a phone or a board."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceforall.cli.source import Device, Json, is_space, sizes_of
from onceforall.errors import UserError
from onceforall.space import SearchSpace, search_space

if TYPE_CHECKING:
    from onceforall.latency.job import Job
    from onceforall.latency.table import LatencyTable

_CSV = "timings alone are in the CSV: correction and description are lost, -o TABLE.json keeps them"


def profile(
    source: Annotated[str, typer.Argument(help="a search space's name, a run, or a weights file; for --import the "
                                          "folder of --runner")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="table to write, .json or .csv")] = None,
    backend: Annotated[str, typer.Option(help="onnxruntime, openvino or torch")] = "onnxruntime",
    device: Device = "auto",
    threads: Annotated[int, typer.Option(help="threads of one forward pass")] = 1,
    batch: Annotated[int, typer.Option(help="pictures of one forward pass")] = 1,
    resolutions: Annotated[str | None, typer.Option(help="as 160,192; all of the space's by default")] = None,
    classes: Annotated[int | None, typer.Option(help="of a space's name; 1000 by default")] = None,
    subnets: Annotated[int, typer.Option(help="whole sub-networks the table is held to, 30 or more")] = 40,
    rounds: Annotated[int, typer.Option(help="visits to each part; more where the machine is shared")] = 5,
    seed: Annotated[int, typer.Option(help="what order and sub-networks derive from")] = 0,
    runner: Annotated[Path | None, typer.Option(help="write a folder to run elsewhere, and time nothing here")] = None,
    printed: Annotated[Path | None, typer.Option("--import", help="make a table of what a benchmark tool printed: a "
                                                 "folder with KEY.txt for each graph, called as the device")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="serve a page that a phone's browser times it by")] = False,
    host: Annotated[str, typer.Option(help="address of --serve; 0.0.0.0 for other devices")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="of --serve; 0: a free one")] = 0,
    runtime: Annotated[Path | None, typer.Option(help="dist of the npm package onnxruntime-web, for --serve")] = None,
    json_only: Json = False,
) -> None:
    """Time every part of a search space, and say how well the sums agree with whole sub-networks."""
    from onceforall.latency.job import Job, Settings

    if printed is not None:
        if output is None:
            raise UserError("--output", "is missing", "give -o TABLE.json")
        _imported(Path(source), printed, output, threads=threads, json_only=json_only)
        return
    settings = Settings(backend, device, threads, batch, subnets, seed, rounds)
    settings.check()
    if (output is None) == (runner is None):
        raise UserError("--output", "is missing" if runner is None else "stands beside --runner",
                        "give -o TABLE.json, or --runner DIR")
    space, num_classes = _space(source, classes)
    if resolutions is not None:
        space = space.restrict(resolutions=sizes_of(resolutions))
    job = Job(space, num_classes, settings)
    if runner is not None:
        _for_elsewhere(job, runner, json_only)
    elif output is not None and serve:
        if runtime is None:
            raise UserError("--runtime", "is missing", "npm pack onnxruntime-web, unpack it, and give its folder dist")
        _by_browser(job, output, runtime, host=host, port=port, json_only=json_only)
    elif output is not None:
        _here(job, output, json_only)


def _for_elsewhere(job: Job, folder: Path, json_only: bool) -> None:
    from onceforall.latency.measure import make_runner

    make_runner(job, folder)
    parts, subnets = len(job.parts), len(job.archs)
    typer.echo(json.dumps({"runner": str(folder), "parts": parts, "subnets": subnets}) if json_only else
               f"{folder}: {parts} parts, {subnets} sub-networks; copy it to the device, and there, with numpy and "
               f"onnxruntime:\n  python {shlex.quote(folder.resolve().name + '/run.py')} -o table.json")


def _imported(folder: Path, printed: Path, output: Path, *, threads: int, json_only: bool) -> None:
    from onceforall.latency.measure import imported

    _told(imported(folder, printed, output, threads=threads), output, json_only)


def _by_browser(job: Job, output: Path, runtime: Path, *, host: str, port: int, json_only: bool) -> None:
    from onceforall.latency.measure import serve

    def say(address: str) -> None:
        typer.echo(f"open {address} on the device; Ctrl-C ends, and the same command goes on", err=True)

    with _Progress(shown=not json_only) as progress:
        table = serve(job, output, runtime, host=host, port=port, say=say, hear=progress.hear)
    _told(table, output, json_only)


def _here(job: Job, output: Path, json_only: bool) -> None:
    from onceforall.latency.measure import profile as measured

    with _Progress(shown=not json_only) as progress:
        table = measured(job, output, progress.hear)
    _told(table, output, json_only)


def _told(table: LatencyTable, output: Path, json_only: bool) -> None:
    from onceforall.latency.runner import report
    from onceforall.latency.serve import slowed

    values = {"about": table.about, "scale": table.scale, "offset_ms": table.offset_ms}
    if json_only:
        typer.echo(json.dumps({"output": str(output), **values, "timings": len(table.timings)}))
        return
    typer.echo("\n".join([*report({**values, "timings": table.timings}), *slowed(dict(table.about))]))
    typer.echo(f"{output}: {_CSV if output.suffix == '.csv' else 'written'}")


def _space(source: str, classes: int | None) -> tuple[SearchSpace, int]:
    """The space that SOURCE names or was trained in, and the number of its classes."""
    if classes is not None and classes < 1:
        raise UserError("--classes", f"{classes} is below 1")
    if is_space(source):
        return search_space(source), classes or 1000
    from onceforall.weights.nets import open_weights
    trained = open_weights(source)
    if classes not in (None, trained.num_classes):
        raise UserError("--classes", f"{classes} stands beside {source}, which has {trained.num_classes}",
                        "leave it out")
    return trained.space, trained.num_classes


class _Progress:
    """Shows on stderr what is timed: a moving bar on a terminal, elsewhere a line now and then."""

    def __init__(self, *, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from onceforall.latency.runner import Lines
        self._shown, self._live = shown, shown and sys.stderr.isatty()
        self._bar = Progress(TextColumn("timing"), BarColumn(bar_width=30), MofNCompleteColumn(),
                             TimeRemainingColumn(), console=Console(stderr=True, highlight=False))
        self._lines = Lines()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._bar.stop()

    def hear(self, record: Mapping[str, Any]) -> None:
        """Take one record of the profile."""
        from onceforall.latency.runner import begin_line
        if record["kind"] == "note":
            self._bar.console.print(record["text"])
        elif not self._live:
            if self._shown:
                self._lines.hear(record)
        elif record["kind"] == "begin":
            self._bar.console.print(begin_line(record))
            self._bar.add_task("timing", total=record["of"], completed=record["done"])
            self._bar.start()
        else:
            self._bar.update(self._bar.task_ids[0], completed=record["done"])
