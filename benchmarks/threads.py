"""Measures what a second thread brings to a training step, small and large, alone and beside one busy process.

    python benchmarks/threads.py [--json] [--rounds N] [--threads 1,2] [--only small]

The small step is of `mobilenet_v3_large_32px` at width 0.5 on 64 pictures of 16 pixels, the large one of
`mobilenet_v3_large` on 32 pictures of 128 pixels: forward, backward and update of the largest sub-network. Each number
of threads, alone and beside, has a process of its own; they take turns, and the busy process stands still meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from functools import partial
from typing import Any

import torch
from side_by_side import Work, in_turn, machine, progress

from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.optimizer import sgd
from onceforall.training.settings import Loss, Optimizer
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Term

STEPS = {  # name: space, pictures, their size, and steps a round
    "small": (search_space("mobilenet_v3_large_32px", width_mult=0.5), 64, 16, 5),
    "large": (search_space("mobilenet_v3_large"), 32, 128, 1)}


def steps(name: str, *, threads: int, beside: int | None) -> Work:
    """Some training steps with so many threads, beside the process of that number, which is let go meanwhile."""
    torch.set_num_threads(threads)
    keep_large_blocks()
    space, batch, size, count = STEPS[name]
    net = Supernet(space, dropout=0.0, generator=torch.Generator().manual_seed(1)).train()
    compute = Compute()
    compute.place(net)
    optimizer = sgd([{"params": list(net.parameters())}], lr=0.01, momentum=0.9, nesterov=True)
    learner = Learner(net, net, optimizer, None, compute, torch.amp.GradScaler("cpu", enabled=False), Processes())
    course = Course(space=space, strategy=lambda *_: [], stage=Stage(
        epochs=1, batches=Batches(size=batch), optimizer=Optimizer(lr=0.01), loss=Loss(kd_weight=0)))
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(2))
    images = images.contiguous(memory_format=torch.channels_last)
    labels, terms = torch.zeros(batch, dtype=torch.int64), [Term(space.largest, "labels")]

    def work(_: int) -> None:
        if beside is not None:
            os.kill(beside, signal.SIGCONT)
        for _step in range(count):
            train_step(learner, course, images, labels, terms=terms, lr=0.01)
        if beside is not None:
            os.kill(beside, signal.SIGSTOP)

    return work


def measured(name: str, threads: list[int], rounds: int) -> list[dict[str, Any]]:
    """Seconds of one step, a row a number of threads, alone and beside a busy process."""
    neighbour = subprocess.Popen([sys.executable, "-c", f"import os\nwhile os.getppid() == {os.getpid()}: pass"])
    neighbour.send_signal(signal.SIGSTOP)
    sides = {f"{count} {'beside' if beside else 'alone'}": partial(steps, name, threads=count, beside=beside)
             for count in threads for beside in (None, neighbour.pid)}
    try:
        found = in_turn(sides, rounds=rounds)
    finally:
        neighbour.kill()
        neighbour.wait()
    rows = []
    for side, result in found.items():
        count, place = side.split()
        seconds = [value / STEPS[name][3] for value in result.seconds]
        rows.append({"step": name, "threads": int(count), "busy_process": place == "beside", "n": rounds,
                     "seconds": statistics.median(seconds), "least": min(seconds), "most": max(seconds)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows alone")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds, default 20")
    parser.add_argument("--threads", default="1,2", help="numbers of threads, default 1,2")
    parser.add_argument("--only", choices=tuple(STEPS), help="one of the steps")
    given = parser.parse_args()
    rows = []
    for name in [given.only] if given.only else STEPS:
        progress(f"{name} step, {given.rounds} rounds")
        rows += measured(name, [int(count) for count in given.threads.split(",")], given.rounds)
    if given.json:
        print(json.dumps(rows))
        return
    print(f"{machine(0)}, {os.cpu_count()} cores; n = {given.rounds}\n")
    print("| step | threads | alone | beside a busy process |\n|---|---|---|---|")
    for alone, beside in zip(rows[::2], rows[1::2], strict=True):
        times = (f"{1000 * row['seconds']:.0f} ms ({1000 * row['least']:.0f} to {1000 * row['most']:.0f})"
                 for row in (alone, beside))
        print(f"| {alone['step']} | {alone['threads']} | {' | '.join(times)} |")


if __name__ == "__main__":
    main()
