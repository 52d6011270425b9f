"""Profile: a trace of a few steps of a run, and where the time of a step goes."""

from __future__ import annotations

import io
import json
import logging
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from onceforall.training.engine.journal import Journal
from onceforall.training.loop import PARTS, Learner, StepReport, unmarked

_log = logging.getLogger(__name__)
PROFILE, TRACE, TABLE, NUMBERS = "profile", "trace.json", "table.txt", "table.json"
WARM_UP, STEPS = 10, 5  # the first steps at a resolution are slow, hence left out


@dataclass(frozen=True)
class Shares:
    """Where the time of a step goes: means over a few steps.

    On a GPU a part lasts from the end of the one before it on the stream to its own end, so that waiting for the CPU
    counts.

    Args:
        device: what the steps ran on.
        epoch: their epoch, from 0.
        first_step: the first of them, from 0.
        steps: how many there are.
        images_per_second: over all processes.
        step_ms: milliseconds of a step.
        parts_ms: milliseconds of each part of it, by name.
    """

    device: str
    epoch: int
    first_step: int
    steps: int
    images_per_second: float
    step_ms: float
    parts_ms: dict[str, float]

    def text(self) -> str:
        """A table with a row for each part."""
        from rich.console import Console
        from rich.table import Table

        table = Table("part", box=None, pad_edge=False)
        for column in ("ms a step", "%"):
            table.add_column(column, justify="right")
        for name, ms in {**self.parts_ms, "step": self.step_ms}.items():
            table.add_row(name, f"{ms:.2f}", f"{100 * ms / self.step_ms:.1f}")
        console = Console(file=io.StringIO(), width=80, color_system=None)
        with console.capture() as capture:
            console.print(table)
        steps = f"{self.first_step + 1} to {self.first_step + self.steps}"
        lines = [line.rstrip() for line in capture.get().splitlines()]
        return "\n".join([f"profile of epoch {self.epoch + 1}, steps {steps}, on {self.device}: "
                          f"{self.images_per_second:.0f} images/s", *lines])


def profiled(reports: Generator[StepReport], learner: Learner, folder: Path, *, left: int,
             journal: Journal) -> Generator[StepReport]:
    """The `left` steps of an epoch as they come; STEPS of them, after WARM_UP, leave a trace (Chrome's JSON, which
    Perfetto reads too) and a table in `folder`, and the journal hears the table.

    Where there are fewer steps, the warm-up shrinks first.
    """
    if learner.compute.device.type != "cuda":
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # or it complains on stderr that there is no GPU
    skipped = max(min(WARM_UP, left - STEPS), min(1, left - 1))
    yield from islice(reports, skipped)
    stopwatch, seen = _Stopwatch(learner.compute.device), []
    learner.mark = stopwatch.mark
    try:
        with profile(activities=_activities(learner.compute.device)) as trace:
            for _ in range(min(STEPS, left - skipped)):
                with stopwatch.mark("step"):
                    report = next(reports)
                seen.append(report)
                yield report
            shares = _shares(seen, stopwatch.milliseconds(), learner.compute.device)
    finally:
        learner.mark = unmarked
    try:
        _write(folder, trace, shares)
    except OSError as error:  # a table is not worth a run
        _log.warning("%s cannot be written: %s", error.filename or folder, error.strerror)
    _log.info("%s\ntrace: %s", shares.text(), folder / TRACE)
    journal.hear({"kind": "profile", "table": shares.text(), "trace": str(folder / TRACE)})
    yield from reports


def _write(folder: Path, trace: profile, shares: Shares) -> None:
    folder.mkdir(exist_ok=True)
    (folder / TABLE).write_text(shares.text() + "\n", encoding="utf-8")
    (folder / NUMBERS).write_text(json.dumps(asdict(shares), indent=2) + "\n", encoding="utf-8")
    trace.export_chrome_trace(str(folder / TRACE))


class _Stopwatch:
    """How long what it marks takes, by name: passed time on a CPU, time on the current stream of a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: list[tuple[str, Any, Any]] = []

    @contextmanager
    def mark(self, name: str) -> Iterator[None]:
        """Time what is inside, under the name `ofa::NAME` in the trace too."""
        began = self._now()
        with record_function(f"ofa::{name}"):
            yield
        self._spans.append((name, began, self._now()))

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def milliseconds(self) -> dict[str, float]:
        """The sum under each name, in ms."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        sums = dict.fromkeys((*PARTS, "step"), 0.0)
        for name, began, ended in self._spans:
            sums[name] += began.elapsed_time(ended) if self._device.type == "cuda" else 1000 * (ended - began)
        return sums


def _activities(device: torch.device) -> list[ProfilerActivity]:
    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]


def _shares(seen: list[StepReport], sums: dict[str, float], device: torch.device) -> Shares:
    """How long the parts of a step took, from the sums in ms over the steps that were seen."""
    step = sums.pop("step") / len(seen)
    parts = {name: ms / len(seen) for name, ms in sums.items()}
    images = sum(report.images for report in seen) / len(seen)
    return Shares(str(device), seen[0].epoch, seen[0].step, len(seen), 1000 * images / step, step,
                  {**parts, "other": step - sum(parts.values())})
