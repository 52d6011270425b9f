"""Measures one file with many sub-networks (`onceforall.Elastic`) against the extracted nets, in the same run: time to
switch, forward time, memory of tensors and of a fresh process, and whether every stored sub-network answers as the
extracted and recalibrated net, bit for bit.

    OMP_NUM_THREADS=1 python benchmarks/elastic_inference.py [--json] [--batch 1] [--rounds 30] [--run RUN]

Without --run: mobilenet_v3_large, random weights, eight sub-networks spread over MACs at 160 pixels, statistics of 100
random pictures. RUN: a trained run that holds elastic.safetensors and whose pictures are at hand; its answers are the
same to the bit at the thread count that the file was written with. Forward passes of
the nets alternate; with one thread times are the process's own on the processor. `supernet` is the design that was not
taken: the supernet's own forward pass with each sub-network's BN buffers put in its place.

With one thread of an x86-64 server (Python 3.11, torch 2.15), n = 8 sub-networks of 30 rounds: all answer the same to
the bit; a switch takes 0.005 ms, at most 0.05 (by limit 0.009, at most 0.12), n = 10,000; forward over extracted, one
picture: 1.00 (0.97 .. 1.05), and of `supernet` 1.42 (1.21 .. 1.63). Tensors: 33.2 MB for 30.8 of the largest net and
179 of the eight extracted ones; a fresh process grows by 64 MB, for 59 and 291, n = 5.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from onceforall.cli.pictures import evaluator_of
from onceforall.cost import macs
from onceforall.cost.population import macs_table
from onceforall.cost.spread import spread as spread_over_cost
from onceforall.data import ArrayPictures, DataSet
from onceforall.deploy.elastic import Elastic
from onceforall.deploy.elastic_file import ELASTIC
from onceforall.deploy.elastic_write import write_elastic
from onceforall.nn import Subnet, Supernet
from onceforall.searching.front import Row
from onceforall.space import Arch, search_space
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.weights.nets import Trained, open_weights, save

ARCHS, RESOLUTION, SWITCHES, PROCESSES = 8, 160, 10_000, 5
Case = dict[str, Any]
Nets = dict[Arch, Subnet]

GROWTH = """
import gc, resource, sys
from pathlib import Path
import torch
from onceforall.deploy.elastic import Elastic
from onceforall.weights.nets import open_weights
def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before = resident()
kept = [Elastic.load(path) if sys.argv[1] == "elastic" else open_weights(path).net.to(memory_format=torch.channels_last)
        for path in sys.argv[2:]]
print(resident() - before)
"""


def random_file(path: Path) -> Nets:
    """The file of a supernet with random weights; returns the extracted and recalibrated nets."""
    space = search_space("mobilenet_v3_large").restrict(resolutions=[RESOLUTION])
    net = Supernet(space, generator=torch.Generator().manual_seed(0)).eval().to(memory_format=torch.channels_last)
    codes = spread_over_cost(macs_table(space), ARCHS, np.random.default_rng(0))
    archs = [space.decode(code) for code in codes.tolist()]
    pixels = torch.randint(0, 256, (100, 3, 192, 192), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pictures = ArrayPictures(pixels, torch.arange(100))
    data = DataSet(pictures, pictures, pictures.subset(range(8)), tuple(map(str, range(1000))), (0.5,) * 3, (0.25,) * 3)
    evaluator = Evaluator(data, calibration_images=100)
    rows = [Row(arch, {"macs": macs(space, arch)}, predicted=i / 10) for i, arch in enumerate(archs)]
    write_elastic(net, rows, evaluator, path)
    return {arch: evaluator.subnet(net, arch) for arch in archs}


def run_nets(run: Path) -> Nets:
    """The sub-networks that a run's file stores, extracted from the run's own weights and recalibrated."""
    trained = open_weights(run)
    assert isinstance(trained.net, Supernet)
    compute = Compute()
    compute.place(trained.net)
    evaluator = evaluator_of(run, trained, data=None, root=None, compute=compute)
    return {row.arch: evaluator.subnet(trained.net, row.arch) for row in Elastic.load(run / ELASTIC).rows}


def same_bits(net: Elastic, extracted: Nets) -> list[Case]:
    """1 for each stored sub-network that answers as the extracted one, for one picture and for four; also its copy."""
    out = []
    for arch, plain in extracted.items():
        batches = [pictures(arch, count) for count in (1, 4)]
        out.append(float(all(torch.equal(found(x), plain(x)) for x in batches
                             for found in (net.use(arch), net.extracted(arch)))))
    return [{"case": "same bits", **spread(out)}]


def switching(net: Elastic) -> list[Case]:
    """Milliseconds of a switch, by name and by limit."""
    rng, clock, out = random.Random(0), clock_of(), {"use": [], "within": []}
    for _ in range(SWITCHES):
        row = rng.choice(net.rows)
        began = clock()
        net.use(row.arch)
        middle = clock()
        net.within(macs=row.costs["macs"])
        out["use"].append(1e3 * (middle - began))
        out["within"].append(1e3 * (clock() - middle))
    return [{"case": f"ms to switch, {name}", **spread(values)} for name, values in out.items()]


def forward(net: Elastic, extracted: Nets, batch: int, rounds: int) -> list[Case]:
    """Of each sub-network the median time, and the median of the rounds' ratios to the extracted net's."""
    times: dict[str, list[list[float]]] = {"extracted": [], "elastic": [], "supernet": []}
    for arch, plain in extracted.items():
        images, shared, buffers = pictures(arch, batch), net.use(arch), whole(net.supernet, plain)
        supernet = Swapped(net.supernet, buffers, arch)
        found = alternating([plain, shared, supernet], images, rounds)
        for name, values in zip(times, found, strict=True):
            times[name].append(values)
    cases = [{"case": f"forward ms, {name}", **spread([float(np.median(values)) for values in of])}
             for name, of in times.items()]
    for name in ("elastic", "supernet"):
        ratios = [float(np.median(np.divide(a, b))) for a, b in zip(times[name], times["extracted"], strict=True)]
        cases.append({"case": f"forward, {name} over extracted", "rounds": rounds, "batch": batch, **spread(ratios)})
    return cases


class Swapped:
    """The design that was not taken: the supernet's forward pass with a sub-network's BN buffers."""

    def __init__(self, supernet: Supernet, buffers: dict[str, Tensor], arch: Arch) -> None:
        self.supernet, self.buffers, self.arch = supernet, buffers, arch

    def __call__(self, images: Tensor) -> Tensor:
        return functional_call(self.supernet, self.buffers, (images, self.arch))


def whole(supernet: Supernet, plain: Subnet) -> dict[str, Tensor]:
    """A sub-network's BN statistics in buffers as long as the supernet's."""
    out = {}
    for name, tensor in plain.named_buffers():
        if "running" in name:
            out[name] = supernet.get_buffer(name).clone()
            out[name][:len(tensor)] = tensor
    return out


@torch.inference_mode()
def alternating(nets: list[Callable[[Tensor], Tensor]], images: Tensor, rounds: int) -> list[list[float]]:
    clock = clock_of()
    out: list[list[float]] = [[] for _ in nets]
    for done in range(rounds + 2):
        for net, values in zip(nets, out, strict=True):
            began = clock()
            net(images)
            if done >= 2:
                values.append(1e3 * (clock() - began))
    return out


def clock_of() -> Callable[[], float]:
    """Seconds; with one thread those of this process on the processor, which other programs do not disturb."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def memory(net: Elastic, file: Path, extracted: Nets) -> list[Case]:
    """Bytes of the tensors that are held, each storage once, and how much a fresh process grows by loading."""
    nets, count = [net.use(row.arch) for row in net.rows], len(net.rows)
    space = net.supernet.space
    supernet, everything = held([net.supernet]), held([net.supernet, *nets])
    statistics = sum(2 * 4 * m.num_features for n in nets for m in n.modules() if isinstance(m, nn.BatchNorm2d))
    largest = net.supernet.plan(space.largest.at(max(space.resolutions)))
    with torch.device("meta"):
        largest_bytes = sum(t.nbytes for t in Subnet(largest).state_dict().values())
    cases = [{"case": f"bytes, {name}", **spread([float(value)])} for name, value in (
        ("the largest net", largest_bytes), ("the supernet", supernet), ("elastic", everything),
        ("the extracted nets", held(extracted.values())), ("statistics, a sub-network", statistics / count),
        ("transformed kernels, a sub-network", (everything - supernet - statistics) / count))]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.safetensors" for i in range(count + 1)]
        archs = [max(extracted, key=lambda arch: macs(space, arch)), *extracted]
        for arch, path in zip(archs, paths, strict=True):
            save(Trained(net.extracted(arch), space, arch), path)
        return [*cases, growth("the largest stored net", "plain", paths[:1]), growth("elastic", "elastic", [file]),
                growth("the extracted nets", "plain", paths[1:])]


def held(nets: Iterable[nn.Module]) -> int:
    storages = [tensor.untyped_storage() for net in nets for tensor in net.state_dict().values()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def growth(case: str, kind: str, paths: list[Path]) -> Case:
    values = [float(subprocess.run([sys.executable, "-c", GROWTH, kind, *map(str, paths)], check=True,
                                   capture_output=True, text=True).stdout) for _ in range(PROCESSES)]
    return {"case": f"process grows by, {case}", **spread(values)}


def pictures(arch: Arch, batch: int) -> Tensor:
    return torch.randn(batch, 3, arch.resolution, arch.resolution, generator=torch.Generator().manual_seed(batch))


def spread(values: list[float]) -> Case:
    return {"n": len(values), "median": float(np.median(values)), "min": float(min(values)), "max": float(max(values))}


def measured(file: Path, extracted: Nets, batch: int, rounds: int) -> list[Case]:
    began = time.perf_counter()
    net = Elastic.load(file)
    loading = {"case": f"seconds to load {len(net.rows)} sub-networks", **spread([time.perf_counter() - began])}
    return [loading, *same_bits(net, extracted), *switching(net), *forward(net, extracted, batch, rounds),
            *memory(net, file, extracted)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--run", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.run is None:
            file = Path(folder) / ELASTIC
            extracted = random_file(file)
        else:
            file, extracted = arguments.run / ELASTIC, run_nets(arguments.run)
        cases = measured(file, extracted, arguments.batch, arguments.rounds)
    if arguments.json:
        print(json.dumps(cases))
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python "
          f"{platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")
    for case in cases:
        more = "".join(f", {name} {case[name]}" for name in ("rounds", "batch") if name in case)
        print(f"{case['case']}: median {case['median']:,.6g} ({case['min']:,.6g} .. {case['max']:,.6g}), "
              f"n = {case['n']}{more}")


if __name__ == "__main__":
    main()
