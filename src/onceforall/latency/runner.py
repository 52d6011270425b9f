"""Times parts and whole sub-networks on this machine, fits the correction of their sums, writes the latency table.

In a folder of `ofa profile --runner` this file is run.py: Python 3.8, numpy and onnxruntime are all it needs there.

    python run.py -o table.json [--threads N]
    python run.py --draw      (only the weights that the graphs share, for a benchmark tool)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import sys
import time
from collections import defaultdict
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Values = dict[str, Any]
    Run = Callable[[], object]  # one forward pass; it has ended when it returns
    Open = Callable[[str], Run]  # a case made ready, by its key
    Hear = Callable[[Mapping[str, Any]], None]
    Visit = tuple[float, float, int]  # median of the runs in milliseconds, their interquartile range, their number

JOB, GRAPHS = "job.json", "graphs"
_MAX_NUMBERS = 2**30  # 4 GB
_WARM_UP = 0.25  # of the time of a visit
_give_way = getattr(os, "sched_yield", lambda: None)
_STATISTICS = ("ms: median of a round's runs, median over rounds. spread_ms: interquartile range of a round's runs, "
               "median over rounds. n: runs. clock processor: time of this process on the processor, of one thread; "
               "wall: time that passed")


class RefusedError(ValueError):
    """A user's mistake: place, problem and remedy, which a message puts on one line."""

    def __str__(self) -> str:
        place, problem, remedy = self.args
        return f"{place}: {problem}; {remedy}"


def visit(run: Run, repeat: Values, clock: str) -> Visit:
    """Times forward passes after a warm-up: at least `runs` of them, and at least for `seconds`.

    By the clock "processor" what other programs take does not count: it is this process's time on the processor.
    """
    runs, seconds = repeat["runs"], repeat["seconds"]
    now = time.process_time if clock == "processor" else time.perf_counter
    end = time.perf_counter() + _WARM_UP * seconds
    run()
    while time.perf_counter() < end:
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < runs or time.perf_counter() < end:
        _give_way()  # programs that wait for the processor run now, and not within what is timed
        began = now()
        run()
        times.append(1e3 * (now() - began))
    low, high = np.percentile(times, [25, 75])
    return float(np.median(times)), float(high - low), len(times)


def measure(job: Values, open_case: Open, about: Values, partial: Path, hear: Hear) -> Values:
    """Visit every case of the job in every round, in an order of its own, and give the table as JSON values.

    `about`: what `machine` says. Each visit is a line of the file `partial`: measured again with the same settings,
    only what it lacks is visited. Raises RefusedError where it is of other settings.
    """
    visits = Visits(job, about, partial)
    repeat, left = visits.about["repetitions"], visits.left
    hear(dict(visits.begin(), seconds=_estimate(job, open_case, repeat, left)))
    for number, key in left:
        visits.note(number, key, visit(open_case(key), repeat, visits.about["clock"]))
        hear({"kind": "visit", "key": key, "of": visits.of, "done": len(visits.found)})
    return visits.table()


class Visits:
    """The visits of a job that are done and those that are left.

    Each is a line of the file `partial`, so that a later process with the same settings goes on. Raises RefusedError
    where the file is of other settings.

    Attributes:
        about: what is said of job and device.
        found: what was measured, by round and case.
        left: rounds and cases to visit, in order.
        of: how many there are in all.
    """

    def __init__(self, job: Values, about: Values, partial: Path) -> None:
        self.about = dict(job["about"], **about)
        self.about["versions"] = dict(job["about"]["versions"], **about["versions"])
        self._job, self._partial, rounds = job, partial, self.about["repetitions"]["rounds"]
        cases = json.dumps([job["parts"], job["subnets"]])
        self.found = _resume(partial, dict(self.about, subnets=len(job["subnets"]), cases=crc32(cases.encode())))
        keys = [case["key"] for case in job["parts"] + job["subnets"]]
        order = [(number, key) for number in range(rounds)
                 for key in random.Random(f"{self.about['seed']} {number}").sample(keys, len(keys))]
        self.of, self.left = len(order), [case for case in order if case not in self.found]

    def begin(self) -> Values:
        """What is heard at the beginning, without the seconds that it will take."""
        return {"kind": "begin", "parts": len(self._job["parts"]), "subnets": len(self._job["subnets"]),
                "rounds": self.about["repetitions"]["rounds"], "of": self.of, "done": self.of - len(self.left)}

    def note(self, number: int, key: str, visited: Visit) -> None:
        """Keep what a visit measured."""
        self.found[number, key] = visited
        with self._partial.open("a", encoding="utf-8") as file:
            file.write(json.dumps([number, key, *visited]) + "\n")

    def table(self) -> Values:
        """The table of all visits, as the JSON values of `onceforall.latency.table.read_table`."""
        return table_of(self._job, self.about, self.found)


def _estimate(job: Values, open_case: Open, repeat: Values, left: Sequence[tuple[int, str]]) -> float:
    """Seconds that the visits will take, judged by opening and running the largest sub-network once."""
    if not left:
        return 0.0
    largest, began = job["subnets"][-1], time.perf_counter()
    run = open_case(largest["key"])
    opening = time.perf_counter() - began
    run()
    once = time.perf_counter() - began - opening
    whole = {case["key"] for case in job["subnets"]}

    def seconds(share: float) -> float:
        return float(share * opening + (1 + _WARM_UP) * max(repeat["seconds"], repeat["runs"] * share * once))

    of_subnet, of_part = seconds(0.6), seconds(1 / len(largest["parts"]))  # 0.6: of the largest, on average
    return sum((of_subnet if key in whole else of_part for _, key in left), 0.0)


def _resume(partial: Path, settings: Values) -> dict[tuple[int, str], Visit]:
    """The visits that the file holds, which begins with its settings; it is made where it is not there."""
    header = json.dumps({"settings": settings}, sort_keys=True) + "\n"
    if not partial.exists() or not partial.read_bytes().partition(b"\n")[1]:
        partial.write_text(header, encoding="utf-8")
        return {}
    whole, _, torn = partial.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    first, *lines = whole.split("\n")
    try:
        theirs, found = json.loads(first)["settings"], {}
        for line in lines:
            number, key, ms, spread, n = json.loads(line)
            found[int(number), str(key)] = float(ms), float(spread), int(n)
            if not 0 <= ms < float("inf"):
                raise ValueError(f"{ms} ms is no time")
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(str(partial), f"is damaged ({error})", "delete it to start anew") from None
    if first + "\n" != header:
        names = [name for name in settings if theirs.get(name) != settings[name]]
        raise RefusedError(str(partial), f"holds timings of other settings: {', '.join(names)}",
                           "finish with those, or delete it to start anew")
    if torn:  # of a run that was killed while it wrote
        partial.write_text(whole + "\n", encoding="utf-8")
    return found


def correction(sums: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    """Scale and offset that bring sums of parts (N,) nearest to measured sub-networks (N,), in relative error.

    Where noise hides that more takes longer, the scale alone: a table is of no use with one below zero.
    """
    columns = np.stack([sums, np.ones_like(sums)], axis=1) / whole[:, None]
    scale, offset = np.linalg.lstsq(columns, np.ones_like(sums), rcond=None)[0]
    if scale <= 0:
        scale, offset = columns[:, 0].sum() / (columns[:, 0] ** 2).sum(), 0.0
    return float(scale), float(offset)


def agreement(predicted: np.ndarray, whole: np.ndarray) -> dict[str, float]:
    """Mean absolute percentage error, and Kendall's tau-b, of predictions (N,) against measured milliseconds (N,)."""
    i, j = np.triu_indices(len(whole), 1)
    a, b = np.sign(predicted[i] - predicted[j]), np.sign(whole[i] - whole[j])
    pairs = np.sqrt(np.count_nonzero(a) * np.count_nonzero(b))
    return {"mape": float(100 * np.mean(np.abs(predicted - whole) / whole)),
            "tau": float((a * b).sum() / pairs) if pairs else 0.0}


def table_of(job: Values, about: Values, found: Mapping[tuple[int, str], Visit]) -> Values:
    """The table of all visits, as the JSON values of `onceforall.latency.table.read_table`."""
    visits = defaultdict(list)
    for (_, key), row in found.items():
        visits[key].append(row)
    ms = {key: float(np.median([row[0] for row in rows])) for key, rows in visits.items()}
    timings = [{"resolution": None, "layer": part["name"], "ms": ms[part["key"]],
                "spread_ms": float(np.median([row[1] for row in visits[part["key"]]])),
                "n": sum(row[2] for row in visits[part["key"]])} for part in job["parts"]]
    sums = np.array([sum(ms[key] for key in subnet["parts"]) for subnet in job["subnets"]])
    whole = np.array([ms[subnet["key"]] for subnet in job["subnets"]])
    held = np.array([subnet["held_out"] for subnet in job["subnets"]])
    scale, offset = correction(sums[~held], whole[~held])
    check = {"fitted": int((~held).sum()), "held_out": int(held.sum()), "before": agreement(sums[held], whole[held]),
             "after": agreement(offset + scale * sums[held], whole[held])}
    rows = [{"arch": subnet["arch"], "ms": float(y), "sum_ms": float(x), "held_out": subnet["held_out"]}
            for subnet, x, y in zip(job["subnets"], sums, whole)]  # noqa: B905  (strict is of Python 3.10)
    about = dict(about, date=datetime.now(timezone.utc).isoformat(timespec="seconds"), statistics=_STATISTICS,
                 check=check, subnets=rows)
    return {"about": about, "scale": scale, "offset_ms": offset, "timings": timings}


def report(values: Values) -> list[str]:
    """The lines that say what was measured, and how far the sums are to be trusted."""
    about, check = values["about"], values["about"]["check"]
    whole = [row["ms"] for row in about["subnets"]]
    lines = [f"{about['backend']} {about['versions'][about['backend']]} on {about['device']}, {about['threads']} "
             f"thread{'s' * (about['threads'] > 1)}, batch {about['batch']}: {len(values['timings'])} parts, "
             f"{len(whole)} sub-networks of {min(whole):.2f} to {max(whole):.2f} ms",
             f"correction: {values['offset_ms']:+.3f} ms + {values['scale']:.3f} x sum of parts, fitted on "
             f"{check['fitted']} of them",
             f"on the other {check['held_out']}:  mean absolute error, Kendall's tau"]
    return lines + [f"  {name:6}  {check[name]['mape']:5.1f} %  {check[name]['tau']:.3f}" for name in
                    ("before", "after")]


def machine(threads: int, *packages: str) -> Values:
    """Name of the processor, number of its cores, threads of a forward pass, the clock for them, and versions."""
    name = platform.processor() or platform.machine()
    for path, key in (("/proc/cpuinfo", "model name"), ("/proc/cpuinfo", "Hardware"),
                      ("/sys/firmware/devicetree/base/model", "")):
        try:
            lines = Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n").split("\n")
        except OSError:
            continue
        values = [line.partition(":")[2].strip() if key else line for line in lines if line.startswith(key)]
        if values:
            name = values[0]
            break
    # a process's time is too coarse on some systems, and adds up over threads
    own = threads == 1 and time.get_clock_info("process_time").resolution < 1e-6
    return {"device": name, "cores": os.cpu_count() or 1, "threads": threads, "clock": "processor" if own else "wall",
            "versions": dict({"python": platform.python_version()},
                             **{package: import_module(package).__version__ for package in packages})}


def write_numbers(folder: Path, files: Mapping[str, tuple[float, int]]) -> None:
    """The random numbers that all graphs of a folder share as weights: for each file standard deviation and count."""
    for seed, (name, (std, count)) in enumerate(sorted(files.items())):
        if not re.fullmatch(r"numbers-?[0-9]{1,3}\.bin", name):  # it must not lead out of the folder
            raise RefusedError(JOB, repr(name) + " is no name of numbers", "make the folder anew")
        if type(count) is not int or not 0 <= count <= _MAX_NUMBERS:
            raise RefusedError(JOB, f"{count!r} is no number of numbers", "make the folder anew")
        path = folder / name
        if path.exists() and path.stat().st_size == 4 * count:
            continue
        numbers = np.random.default_rng(seed).standard_normal(count, dtype=np.float32) * np.float32(std)
        numbers.tofile(str(path) + ".partial")
        os.replace(str(path) + ".partial", str(path))


def pictures(shape: Sequence[int]) -> np.ndarray:
    """An input of that shape: random numbers, always the same."""
    return np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)


def opener(folder: Path, threads: int) -> Open:
    """Opens the graphs of a folder with onnxruntime on the CPU."""
    ort: Any = import_module("onnxruntime")

    def open_case(key: str) -> Run:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        session = ort.InferenceSession(str(folder / f"{key}.onnx"), options, providers=["CPUExecutionProvider"])
        source, binding = session.get_inputs()[0], session.io_binding()
        binding.bind_cpu_input(source.name, pictures(source.shape))
        binding.bind_output(session.get_outputs()[0].name)

        def run() -> object:
            return session.run_with_iobinding(binding)

        return run

    return open_case


class Lines:
    """Progress as a line on stderr every ten seconds."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def hear(self, record: Mapping[str, Any]) -> None:
        """Take one record of `measure`."""
        if record["kind"] == "begin":
            print(begin_line(record), file=sys.stderr, flush=True)
        elif time.monotonic() > self._last + 10 or record["done"] == record["of"]:
            self._last = time.monotonic()
            print(f"{record['done']}/{record['of']} timings", file=sys.stderr, flush=True)


def begin_line(record: Mapping[str, Any]) -> str:
    """What is about to be timed, and for how long."""
    done = f", {record['done']} of {record['of']} timings are there" if record["done"] else ""
    return (f"{record['parts']} parts and {record['subnets']} sub-networks, {record['rounds']} "
            f"round{'s' * (record['rounds'] > 1)}{done}: about {max(1, round(record['seconds'] / 60))} min")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(), help="table to write, a name in .json")
    parser.add_argument("--draw", action="store_true", help="draw the weights that the graphs share, and end")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    try:
        folder = Path(__file__).resolve().parent
        job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        if arguments.draw:
            write_numbers(folder / GRAPHS, job["numbers"])
            return
        if arguments.output.suffix != ".json":
            raise RefusedError("--output", f"{arguments.output} is no name in .json", "the table is JSON")
        if arguments.threads < 1:
            raise RefusedError("--threads", f"{arguments.threads} is below 1", "give 1 or more")
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_numbers(folder / GRAPHS, job["numbers"])
        about = machine(arguments.threads, "numpy", "onnxruntime")
        partial = arguments.output.with_name(arguments.output.name + ".partial.jsonl")
        values = measure(job, opener(folder / GRAPHS, arguments.threads), about, partial, Lines().hear)
        arguments.output.write_text(json.dumps(values, indent=1), encoding="utf-8")
        partial.unlink()
        print("\n".join(report(values)))
    except (RefusedError, OSError, ImportError) as error:
        sys.exit(f"run.py: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        sys.exit("run.py: stopped; the same command again goes on")


if __name__ == "__main__":
    main()
