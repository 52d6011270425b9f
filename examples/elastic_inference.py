"""Answers requests under a deadline that changes: one file, of whose sub-networks each request takes the best that is
fast enough.

    python examples/elastic_inference.py runs/cifar10 cat.jpg dog.jpg [--requests 12] [--threads 1]

The deadline is for the network alone, in milliseconds. Here it is drawn between the times of the fastest and of the
slowest stored sub-network; in a real program it is what the rest of the system leaves.
"""

from __future__ import annotations

import argparse
import random
import time
from itertools import cycle
from pathlib import Path

import torch

import onceforall
from onceforall.data import FilePictures, eval_batches, normalize


def milliseconds(net: onceforall.Elastic, images: torch.Tensor) -> float:
    began = time.perf_counter()
    net(images)
    return 1000 * (time.perf_counter() - began)


def timed_here(net: onceforall.Elastic, path: Path, runs: int = 20) -> dict[onceforall.Arch, float]:
    """How long each stored sub-network takes on this machine, in ms, for one picture.

    They take turns, as they will, so that none finds its weights in the cache; the last but one of the times in order
    counts, since a deadline is not met by the median.
    """
    times: dict[onceforall.Arch, list[float]] = {row.arch: [] for row in net.rows}
    for _ in range(runs + 1):
        for arch, values in times.items():
            net.use(arch)
            values.append(milliseconds(net, picture(net, path)))
    return {arch: sorted(values[1:])[-2] for arch, values in times.items()}


def picture(net: onceforall.Elastic, path: Path) -> torch.Tensor:
    """The picture (1, 3, R, R) as the chosen sub-network wants it."""
    pictures = FilePictures((str(path),), torch.zeros(1, dtype=torch.int64))
    batch = next(eval_batches(pictures, net.arch.resolution, batch=1, strict=True))
    ready = net.preprocessing(net.arch)
    return normalize(batch.images, ready.mean, ready.std)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="elastic.safetensors, or the run that holds it")
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    net = onceforall.Elastic.load(arguments.source)
    times = timed_here(net, arguments.pictures[0])
    net = net.with_costs("ms_here", times)
    rng = random.Random(0)
    for _, path in zip(range(arguments.requests), cycle(arguments.pictures)):
        deadline = rng.uniform(min(times.values()), 1.2 * max(times.values()))
        net.within(ms_here=deadline)
        images = picture(net, path)
        began = time.perf_counter()
        number = int(net(images).argmax())
        taken = 1000 * (time.perf_counter() - began)
        name = net.classes[number] if net.classes else str(number)
        print(f"{path.name}: deadline {deadline:.1f} ms, took {taken:.1f} ms, {name}, by {net.arch}")


if __name__ == "__main__":
    main()
