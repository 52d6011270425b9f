"""Expected: how long a run will train, from a few timed steps."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from statistics import mean

import torch

from onceforall.cost import macs
from onceforall.data import DataSet
from onceforall.nn import Supernet
from onceforall.space import Arch
from onceforall.training.course import Course, course_of
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.stage import Training
from onceforall.training.strategy import Moment

_SAMPLES = 20  # steps whose sub-networks are drawn, for the mean of their MACs
_FORWARD = 1 / 3  # of a step's time, which the teacher takes at the same MACs


def expected_minutes(stages: Mapping[str, Training], data: DataSet, compute: Compute, processes: Processes) -> float:
    """About how many minutes the stages will train.

    Steps of the largest sub-network are timed at the smallest and the largest size; the time of other ones is taken to
    be linear in MACs. Reading pictures, validation and the search are not counted.

    Args:
        stages: of a run, all in the space of the last one.
        data: the pictures.
        compute: where they train.
        processes: that share each batch.
    """
    last = list(stages.values())[-1]
    space = last.network.space
    net = Supernet(space, last.network.num_classes, generator=torch.Generator().manual_seed(0)).train()
    compute.place(net)
    ends = [space.largest.at(size) for size in (space.resolutions[0], space.resolutions[-1])]
    times = [_seconds(net, arch, last.stage.batches.each, compute) for arch in ends]
    costs = [macs(space, arch) for arch in ends]
    slope = times[1] / costs[1] if costs[0] == costs[1] else (times[1] - times[0]) / (costs[1] - costs[0])
    at_rest = max(0.0, times[1] - slope * costs[1])
    total = 0.0
    for training in stages.values():
        stage = training.stage
        pictures = len(data.train if stage.teacher is None else data.taught)
        passes = stage.epochs * max(1, pictures // (stage.batches.each * processes.world))
        learnt, taught = step_macs(course_of(training), samples=_SAMPLES)
        total += passes * (stage.subnets_per_step * at_rest + slope * (learnt + _FORWARD * taught))
    return total / 60


def step_macs(course: Course, *, num_classes: int = 1000, samples: int = 200) -> tuple[float, float]:
    """Multiply-accumulates of the forward passes of a step on one picture, over the sizes and the course of a stage.

    Args:
        course: the stage.
        num_classes: of the classifier.
        samples: steps whose sub-networks are drawn.

    Returns:
        Those of the sub-networks that learn, whose backward passes have twice as many, and those of the teacher, which
        is taken to be as large as the largest sub-network.
    """
    space, sizes = course.space, course.space.resolutions

    def of(arch: Arch) -> float:
        return mean(macs(space, arch.at(size), num_classes=num_classes) for size in sizes)

    learnt = sum(of(term.arch) for i in range(samples)
                 for term in course.strategy(space, random.Random(i), Moment(i, samples)))
    return learnt / samples, 0.0 if course.stage.teacher is None else of(space.largest)


def _seconds(net: Supernet, arch: Arch, batch: int, compute: Compute) -> float:
    """Of a forward and a backward pass, the shorter of two."""
    images = torch.zeros(batch, net.space.in_channels, arch.resolution, arch.resolution, device=compute.device)
    images = images.to(memory_format=torch.channels_last)
    times = []
    with torch.random.fork_rng(devices=[compute.device] if compute.device.type == "cuda" else []):
        for _ in range(2):
            net.zero_grad(set_to_none=True)
            began = time.perf_counter()
            compute.run(net, images, arch).mean().backward()  # type: ignore[no-untyped-call]
            if compute.device.type == "cuda":
                torch.cuda.synchronize(compute.device)
            times.append(time.perf_counter() - began)
    return min(times)
