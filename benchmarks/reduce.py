"""Measures the averaging of gradients over 1, 2 and 4 processes of this machine, one thread each, against the training
step it belongs to (teacher and four random sub-networks of mobilenet_v3_large, batch 8 at 128 pixels a process).

    python benchmarks/reduce.py [--json] [--rounds N]

The reference is what torch.nn.parallel does without buckets: one all-reduce a parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from side_by_side import machine

from onceforall.nn import Supernet, extract
from onceforall.space import search_space
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes, average_gradients
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.optimizer import sgd
from onceforall.training.settings import Loss, Optimizer
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Term

SPACE, BATCH, SIZE, SUBNETS = search_space("mobilenet_v3_large"), 8, 128, 4


def one_by_one(parameters: list[torch.nn.Parameter], processes: Processes) -> int:
    """An all-reduce a parameter; returns how many."""
    grads = [p.grad for p in parameters if p.grad is not None]
    for grad in grads:
        dist.all_reduce(grad)
        grad.div_(processes.world)
    return len(grads)


def work(rank: int, world: int, rounds: int, out: Any) -> None:
    torch.set_num_threads(1)
    keep_large_blocks()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    net = Supernet(SPACE, dropout=0.0, generator=torch.Generator().manual_seed(1)).train()
    compute, teacher = Compute(), extract(net, SPACE.largest).requires_grad_(False)
    compute.place(net)
    compute.place(teacher)
    optimizer = sgd([{"params": list(net.parameters())}], lr=0.01, momentum=0.9, nesterov=True)
    processes = Processes(rank, world, rank, world)
    learner = Learner(net, net, optimizer, teacher, compute, torch.amp.GradScaler("cpu", enabled=False), processes)
    course = Course(space=SPACE, strategy=lambda *_: [], stage=Stage(
        epochs=1, batches=Batches(size=BATCH), optimizer=Optimizer(lr=0.01), loss=Loss(kd_weight=1)))
    images = torch.randn(BATCH, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {"step": [], "flat": [], "single": []}
    for number in range(rounds + 1):
        rng = random.Random(number)
        terms = [Term(SPACE.sample(rng), "teacher") for _ in range(SUBNETS)]
        dist.barrier()
        began = time.perf_counter()
        train_step(learner, course, images, torch.zeros(BATCH, dtype=torch.int64), terms=terms, lr=0.01)
        times["step"].append(time.perf_counter() - began)
        for name, reduce in (("flat", average_gradients), ("single", one_by_one)):
            dist.barrier()
            began = time.perf_counter()
            reduce(list(net.parameters()), processes)
            times[name].append(time.perf_counter() - began)
    if rank == 0:
        grads = [p.grad for p in net.parameters() if p.grad is not None]
        out.put({"processes": world, "mib": sum(g.nbytes for g in grads) / 2**20, "single_calls": len(grads),
                 **{f"{name}_s": statistics.median(values[1:]) for name, values in times.items()},
                 "step_least_s": min(times["step"][1:]), "step_most_s": max(times["step"][1:])})
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cases = []
    for world in (1, 2, 4):
        queue = mp.get_context("spawn").SimpleQueue()
        mp.spawn(work, (world, arguments.rounds, queue), nprocs=world)
        found = queue.get()
        cases.append({"case": f"reduce_{world}", "ours_s": found["flat_s"], "reference_s": found["single_s"],
                      "ratio": found["single_s"] / found["flat_s"], "n": arguments.rounds, **found})
    if arguments.json:
        print(json.dumps(cases))
        return
    print(f"{machine(1)} a process, batch {BATCH}")
    for c in cases:
        print(f"{c['processes']} processes: step {c['step_s']:.2f} s ({c['step_least_s']:.2f} to "
              f"{c['step_most_s']:.2f}), of it one all-reduce of {c['mib']:.1f} MiB {c['ours_s'] * 1e3:.1f} ms; "
              f"{c['single_calls']} all-reduces would take {c['reference_s'] * 1e3:.1f} ms (n = {c['n']}, medians)")


if __name__ == "__main__":
    main()
