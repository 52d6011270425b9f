"""Kills a small `ofa fit` at random moments, starts it again, and compares its end with that of one left alone.

    python benchmarks/kills.py [--kills 25] [--processes 1|2] [--signal KILL|TERM|INT] [--seed 0] [--json]

One kill a run. The moments are drawn over the length of the undisturbed run; every fifth kill waits from there for a
file that is just being written. With two processes a random one of them is hit, and the other has to end by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import load_file

FIT = """
import os, signal, sys, torch, typer
from pathlib import Path
from onceforall.cli.running import running
from onceforall.recipes.fit import Request, fit
from onceforall.training.engine.distributed import detect
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.evaluate import Compute
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)
keep_large_blocks()
me, request = detect(os.environ), Request("digits", epochs_scale=0.1, collect=20, budgets=1, elastic=2)
try:
    with running(Compute(), me, every="3steps") as options:
        fit(request, Path(sys.argv[1]), options)
except typer.Exit as end:
    sys.exit(end.exit_code)
except ValueError as error:
    sys.exit(f"ofa: {error}")
"""
MOVING = re.compile("second|created|date|time|wall")  # keys of figures that no two runs share
DATE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.+]+")
LIMIT = 600  # seconds that a run may take


@dataclass(frozen=True)
class Kill:
    """One disturbed run: when it was hit, in which phase, in which process; seconds until all had ended, and with what
    last lines; in what its end differs from the undisturbed run's (empty: in nothing)."""

    moment: float
    phase: str
    rank: int
    ended_after: float
    messages: list[str]
    differences: list[str]


def start(folder: Path, processes: int) -> list[subprocess.Popen[str]]:
    """The run in `folder`, a process each."""
    def environment(rank: int) -> dict[str, str]:
        alone = {**os.environ, "OMP_NUM_THREADS": "1"}
        return alone if processes == 1 else {
            **alone, "RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(processes), "TORCHELASTIC_RUN_ID": str(folder)}
    return [subprocess.Popen([sys.executable, "-c", FIT, str(folder)], env=environment(rank), text=True,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for rank in range(processes)]


def undisturbed(folder: Path, processes: int) -> float:
    """Run to the end; returns how many seconds it took."""
    began = time.monotonic()
    for process in start(folder, processes):
        errors = process.communicate(timeout=LIMIT)[1]
        assert process.returncode == 0, errors
    return time.monotonic() - began


def disturbed(folder: Path, length: float, *, rng: random.Random, processes: int, number: signal.Signals,
              writing: bool, whole: Path) -> Kill | None:
    """A run that is hit once and then started again, compared with `whole`; None where it had ended before."""
    running, began = start(folder, processes), time.monotonic()
    rank, moment = rng.randrange(processes), rng.uniform(0.1 * length, 0.95 * length)
    time.sleep(moment)
    while writing and running[rank].poll() is None and not any(
            path.suffix == ".partial" for path in files(folder)):
        pass  # as fast as it can: a file is written within milliseconds
    where, moment, late = phase(folder), time.monotonic() - began, running[rank].poll() is not None
    running[rank].send_signal(number)
    hit = time.monotonic()
    messages = [process.communicate(timeout=LIMIT)[1].strip().rpartition("\n")[2] for process in running]
    seconds = time.monotonic() - hit
    if late:
        return None
    undisturbed(folder, processes)
    return Kill(round(moment, 2), where, rank, round(seconds, 2), messages, list(differences(whole, folder)))


def files(folder: Path) -> Iterator[Path]:
    """The files below a folder in which a run goes on: any may be gone by now."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def phase(folder: Path) -> str:
    """What the run is at, by what it touched last."""
    newest = max(files(folder), key=touched, default=None)
    return "start" if newest is None else str(newest.relative_to(folder))


def touched(path: Path) -> float:
    """When a file was written last; before all others where it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def differences(a: Path, b: Path) -> Iterator[str]:
    """What two finished runs differ in, apart from times, logs and curves."""
    names = [{str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()
              and path.name != "log.txt" and "tensorboard" not in path.parts} for run in (a, b)]
    for name in sorted(names[0] ^ names[1]):
        yield f"{name} is in one only"
    for name in sorted(names[0] & names[1]):
        one, two = (content(run / name, run) for run in (a, b))
        yield from (f"{name}: {key} differs" for key in one.keys() | two.keys() if not same(one.get(key), two.get(key)))


def same(a: Any, b: Any) -> bool:
    """Whether two values, or two arrays of the same type, are the same bits."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(np.all(a == b))


def content(path: Path, run: Path) -> dict[str, Any]:
    """What a file holds, by key, without times and without the run's own folder."""
    if path.suffix == ".h5":
        found: dict[str, Any] = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
            return {**{name: item[()] for name, item in found.items()},
                    **{f"@{key}": value for key, value in file.attrs.items()}}
    if path.suffix == ".safetensors":
        return load_file(path)
    text = path.read_text(encoding="utf-8").replace(str(run), "RUN")
    if path.suffix in (".json", ".jsonl"):
        rows = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        return {"rows": still(rows)}
    return {"text": DATE.sub("DATE", text)}


def still(value: Any) -> Any:
    """A JSON value without figures of time."""
    if isinstance(value, dict):
        return {key: still(item) for key, item in value.items() if not MOVING.search(key) and key != "sha256"}
    return [still(item) for item in value] if isinstance(value, list) else value


def kills(folder: Path, count: int, *, processes: int = 1, number: signal.Signals = signal.SIGKILL,
          seed: int = 0) -> Iterator[Kill]:
    """So many disturbed runs in `folder`, beside an undisturbed one."""
    length = undisturbed(folder / "whole", processes)
    rng = random.Random(seed)
    done = 0
    for i in range(5 * count):  # a run may end before it is hit, above all where other programs end meanwhile
        kill = disturbed(folder / f"run{i}", length, rng=rng, processes=processes, number=number, writing=done % 5 == 0,
                         whole=folder / "whole")
        if kill is not None:
            yield kill
            done += 1
        if done == count:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--signal", choices=("KILL", "TERM", "INT"), default="KILL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for kill in kills(Path(folder), arguments.kills, processes=arguments.processes,
                          number=signal.Signals[f"SIG{arguments.signal}"], seed=arguments.seed):
            found.append(kill)
            if not arguments.json:
                print(f"{len(found)}: process {kill.rank} at {kill.moment} s ({kill.phase}), all ended after "
                      f"{kill.ended_after} s: {'; '.join(kill.differences) or 'identical end'}", flush=True)
    same_end = sum(not kill.differences for kill in found)
    print(json.dumps([asdict(kill) for kill in found]) if arguments.json else
          f"{len(found)} kills by SIG{arguments.signal} on {arguments.processes} processes: {same_end} identical ends")
    sys.exit(same_end < len(found))


if __name__ == "__main__":
    main()
