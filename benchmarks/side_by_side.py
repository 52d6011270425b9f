"""Contestants in turn, each in a process of its own: how long they take, what they answer, how much memory hold."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch

Work = Callable[[int], Any]  # does the job of one round
Case = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """One contestant: seconds of each round, the answer of its very first one, and the most memory, in MiB, that its
    process held."""

    seconds: list[float]
    first: Any
    peak_mib: float


def in_turn(sides: Mapping[str, Callable[[], Work]], *, rounds: int, warmup: int = 1, threads: int = 0,
            answer: Callable[[Any], Any] | None = None,
            clock: Callable[[], float] = time.perf_counter) -> dict[str, Result]:
    """Run `rounds` rounds of every side, alternating, after `warmup` untimed ones.

    A side is a picklable maker of its work. Each lives in its own process, so that neither the allocator nor what is
    cached of one serves the other; the others wait meanwhile. `threads`: torch's in each, its default for 0. `answer`:
    what of a round's outcome is kept to compare, untimed; by default all of it. `clock`: such as
    `time.process_time`, where other programs hold the cores.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name, make in sides.items():
        pipes[name], end = context.Pipe()
        processes.append(context.Process(target=partial(_serve, clock), args=(make, end, threads, answer), daemon=True))
        processes[-1].start()
        end.close()
    timed: dict[str, list[tuple[float, Any]]] = {name: [] for name in sides}
    for number in range(warmup + rounds):
        for name in sides if number % 2 else reversed(sides):
            pipes[name].send(number)
            timed[name].append(pipes[name].recv())
    peaks = {}
    for name, pipe in pipes.items():
        pipe.send(None)
        peaks[name] = pipe.recv()
    for process in processes:
        process.join()
    return {name: Result([seconds for seconds, _ in rows[warmup:]], rows[0][1], peaks[name])
            for name, rows in timed.items()}


def _serve(clock: Callable[[], float], make: Callable[[], Work], pipe: Connection, threads: int,
           answer: Callable[[Any], Any] | None) -> None:
    if threads:
        torch.set_num_threads(threads)
    work = make()
    while (number := pipe.recv()) is not None:
        began = clock()
        outcome = work(number)
        seconds = clock() - began
        pipe.send((seconds, answer(outcome) if answer else outcome))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def case(name: str, ours: Result, reference: Result, **more: Any) -> Case:
    """What a comparison came to: medians in seconds, and the median of the rounds' ratios, reference over ours."""
    ratios = [b / a for a, b in zip(ours.seconds, reference.seconds, strict=True)]
    return {"case": name, "ours_s": statistics.median(ours.seconds),
            "reference_s": statistics.median(reference.seconds), "ratio": statistics.median(ratios), "n": len(ratios),
            "ratio_min": min(ratios), "ratio_max": max(ratios),
            "ours_s_range": [min(ours.seconds), max(ours.seconds)],
            "reference_s_range": [min(reference.seconds), max(reference.seconds)],
            "ours_peak_mib": ours.peak_mib, "reference_peak_mib": reference.peak_mib, **more}


def parser(description: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that all comparisons share."""
    out = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--json", action="store_true", help="print the list of cases alone")
    out.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds a case, default {rounds}")
    out.add_argument("--threads", type=int, default=0, help="torch's threads, by default all")
    return out


def report(cases: Sequence[Case], *, threads: int, as_json: bool) -> None:
    """Print the cases, for programs or for people."""
    if as_json:
        print(json.dumps(list(cases)))
        return
    print(machine(threads))
    for c in cases:
        print(f"{c['case']}: ours {_time(c['ours_s'], c['ours_s_range'])}, reference "
              f"{_time(c['reference_s'], c['reference_s_range'])}, ratio {c['ratio']:.2f} ({c['ratio_min']:.2f} to "
              f"{c['ratio_max']:.2f}, n = {c['n']}), peak memory {c['ours_peak_mib']:.0f} and "
              f"{c['reference_peak_mib']:.0f} MiB")
        known = case("", Result([1.0], None, 0), Result([1.0], None, 0)).keys()
        print(*(f"    {key}: {c[key]:.6g}\n" for key in c.keys() - known), sep="", end="")


def machine(threads: int) -> str:
    """What a figure was measured on; `threads` of torch, 0 for its default."""
    return (f"{_processor()}, {threads or torch.get_num_threads()} threads, {platform.platform()}, Python "
            f"{platform.python_version()}, torch {torch.__version__}")


def progress(text: str) -> None:
    """A line for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def _time(median: float, spread: Sequence[float]) -> str:
    unit, scale = ("s", 1) if median >= 0.1 else ("ms", 1000)
    return f"{median * scale:.3g} {unit} ({spread[0] * scale:.3g} to {spread[1] * scale:.3g})"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
