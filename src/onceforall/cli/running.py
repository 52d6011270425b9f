"""How the verbs run: the compute device, all processes of a run together, signals, the log."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceforall.errors import UserError

if TYPE_CHECKING:
    from onceforall.training.engine.distributed import Processes
    from onceforall.training.evaluate import Compute
    from onceforall.training.setup import Options

Profile = Annotated[bool, typer.Option("--profile", help="trace a few steps and time their parts, into profile/ of the "
                                       "output folder (of each stage's)")]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="threads to compute with; by default, on a CPU, "
                                             "as many as there are cores that other programs leave free")]
Every = Annotated[str | None, typer.Option("--checkpoint-every", help="minutes from one checkpoint to the next, as 10, "
                                           "or steps, as 200steps; the configuration's by default")]


def compute_of(context: str, device_id: int, type_config: str, processes: Processes, *,
               option: str = "--device", threads: int | None = None) -> Compute:
    """The device and the precision that the user asks for. An error calls the device `option`."""
    from onceforall.training.setup import compute_of as found

    return found(context, device_id=device_id, precision=type_config, processes=processes, option=option,
                 threads=threads)


def every_of(text: str | None) -> tuple[float | None, int | None] | None:
    """Minutes and steps that --checkpoint-every gives; None where it is not given."""
    if text is None:
        return None
    number = text.removesuffix("steps")
    try:
        value = int(number) if number != text else float(number)
    except ValueError:
        value = 0
    if not 0 < value <= 1e6:
        raise UserError("--checkpoint-every", f"{text!r} is neither minutes nor steps above 0", "as 10, or 200steps")
    return (None, int(value)) if number != text else (value, None)


@contextmanager
def running(compute: Compute, processes: Processes, *, every: str | None, **options: Any) -> Iterator[Options]:
    """The options of a training run, with all its processes joined; `every`: --checkpoint-every.

    What runs inside saves when SIGTERM or Ctrl-C comes. The command then ends with a line that says how to go on. Its
    exit code is 128 and the signal's number, as in a shell.
    """
    from onceforall.training.engine.distributed import joined
    from onceforall.training.engine.stop import Stop, Stopped
    from onceforall.training.setup import Options

    due = every_of(every)
    with Stop() as stop:
        try:
            with joined(processes, compute.device) as together:
                yield Options(compute=compute, processes=together, every=due, stop=stop, **options)
        except Stopped as stopped:
            if processes.first:
                typer.echo(f"ofa: {stopped}; the same command goes on from there", err=True)
            raise typer.Exit(128 + (stop.asked or signal.SIGTERM)) from None


def log_to_stderr(processes: Processes, *, quiet: bool = False) -> None:
    """Show the library's log lines: all of the first process, warnings of the others."""
    from onceforall.training.engine.journal import Harmless

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Harmless("%(message)s"))
    logger = logging.getLogger("onceforall")
    handler.setLevel(logging.INFO if processes.first and not quiet else logging.WARNING)
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [handler]
