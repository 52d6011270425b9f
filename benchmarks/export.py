"""Exports sub-networks and shows how each file was verified: of trained runs the smallest, the middle and the largest
of the front, through every target that is installed; and of the ImageNet space, with random weights, three at 224
pixels, for their latency in torch, onnxruntime and OpenVINO.

    OMP_NUM_THREADS=1 python benchmarks/export.py FOLDER [--run RUN [--front FRONT]]... [--imagenet] [--json]
    OMP_NUM_THREADS=1 python benchmarks/export.py FOLDER --int8 [--run RUN [--front FRONT]]... [--json]

FOLDER: where the sub-networks are written. RUN: the folder of an `ofa fit`; FRONT: of a search in it, RUN/search
otherwise. --int8: instead of all that, of the same three the portable form and the full range side by side, beside
float32 in the same runtime. Latency: one picture, one thread, torch and the export (and float32) in turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from onceforall.cli.pictures import Asked, scored
from onceforall.cli.source import Which
from onceforall.data import ArrayPictures, DataSet
from onceforall.deploy.description import Description, Export
from onceforall.deploy.export import Request, export
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.deploy.targets import TARGETS
from onceforall.deploy.verify import instructions
from onceforall.nn import Supernet
from onceforall.searching.record import read_record
from onceforall.space import search_space
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, save, weights_file

Case = dict[str, Any]
BETWEEN = ("smallest", "middle", "largest")


def of_front(run: Path, front: Path, folder: Path) -> Iterator[tuple[str, Path, Description, DataSet]]:
    """The ends and the middle of the front, extracted."""
    rows = len(read_record(front)["front"])
    for name, row in zip(BETWEEN, (0, rows // 2, rows - 1), strict=True):
        found = scored(Asked(str(run), device="cpu"), Which(None, None, None, front, row))
        place = folder / run.name / name
        yield name, place, save_subnet(found.extracted, place, source=weights_file(run)), found.data


def installed(*targets: str) -> list[str]:
    """Those targets whose packages are there; says which are left out."""
    missing = [name for name in targets if any(find_spec(package) is None for package in TARGETS[name].packages)]
    for name in missing:
        print(f"left out: {name}, which is not installed", file=sys.stderr)
    return [name for name in targets if name not in missing]


def of_run(run: Path, front: Path, folder: Path) -> list[Case]:
    """The ends and the middle of the front, through each target in each precision."""
    cases = []
    for name, place, about, data in of_front(run, front, folder):
        for target in installed(*TARGETS):
            for precision in TARGETS[target].precisions:
                ((file, made),) = export(place, Request(target, precision, max_loss=100), data).items()
                cases.append(case(f"{run.name} {name} {target} {precision}", file, made, about.macs))
                print(line(cases[-1]), file=sys.stderr)
    return cases


def int8_of_run(run: Path, front: Path, folder: Path) -> list[Case]:
    """The ends and the middle of the front in both forms of int8, in the runtimes that have both."""
    cases = []
    for name, place, about, data in of_front(run, front, folder):
        for target in installed(*(name for name, form in TARGETS.items() if form.full_range)):
            row: Case = {"case": f"{run.name} {name} {target}", "macs": about.macs}
            for form, full_range in (("portable", False), ("full", True)):
                request = Request(target, "int8", max_loss=100, full_range=full_range)
                ((file, made),) = export(place, request, data).items()
                row[form] = case(form, file, made, about.macs)
            cases.append(row)
            print(int8_line(row), file=sys.stderr)
    return cases


def int8_line(found: Case) -> str:
    portable, full = found["portable"], found["full"]
    texts = (f"{100 * form['top1']:.2f} % | {form['ms']:.2f} ({form['fp32_ms']:.2f})" for form in (portable, full))
    return (f"| {found['case']} | {found['macs'] / 1e6:.2f} M | {100 * portable['torch_top1']:.2f} % | "
            f"{' | '.join(texts)} |")


def imagenet(folder: Path) -> list[Case]:
    """Smallest, middle and largest sub-network at 224 pixels, in random weights."""
    space = search_space("mobilenet_v3_large")
    net = Supernet(space, generator=torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("project.norm.weight"):
                parameter.fill_(0.25)  # without it a random net of this depth multiplies float32's rounding by 100
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 224, 224), dtype=torch.uint8, generator=source)
    pictures = ArrayPictures(images, torch.zeros(20, dtype=torch.int64))
    data = DataSet(pictures, pictures, pictures, tuple(map(str, range(1000))), (0.5,) * 3, (0.29,) * 3)
    evaluator = Evaluator(data)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "random.h5"
    save(Trained(net, space), weights)
    cases = []
    for name, arch in zip(BETWEEN, (space.smallest, space.middle, space.largest), strict=True):
        chosen = arch.at(224)
        subnet = evaluator.subnet(net.to(memory_format=torch.channels_last), chosen)
        about = save_subnet(Scored.of(evaluator, subnet, space, chosen).extracted, folder / "imagenet" / name,
                            source=weights)
        for target in ("onnx", "openvino"):
            ((file, made),) = export(folder / "imagenet" / name, Request(target), data).items()
            cases.append(case(f"ImageNet 224 {name} {target}", file, made, about.macs))
            print(line(cases[-1]), file=sys.stderr)
    return cases


def case(name: str, file: str, made: Export, macs: int) -> Case:
    seen = made.verification
    best = seen.pictures or seen.random
    return {"case": name, "file": file, "bytes": made.size, "macs": macs, "relative_error": best.relative_error,
            "same_top1": best.same_top1, "images": best.images, "top1": seen.top1, "torch_top1": seen.torch_top1,
            "ms": seen.latency.ms, "fp32_ms": seen.latency.fp32_ms, "torch_ms": seen.latency.torch_ms,
            "ratio": seen.latency.torch_ms / seen.latency.ms, "n": seen.latency.rounds, "device": seen.latency.device}


def line(found: Case) -> str:
    return (f"| {found['case']} | {found['macs'] / 1e6:.2f} M | {found['bytes'] / 1e6:.2f} MB | "
            f"{found['relative_error']:.1e} | {found['same_top1']:,} of {found['images']:,} | "
            f"{100 * found['top1']:.2f} ({100 * found['torch_top1']:.2f}) % | {found['ms']:.2f} "
            f"({found['torch_ms']:.2f}) | {found['ratio']:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", type=Path, action="append", default=[])
    parser.add_argument("--front", type=Path, action="append", default=[])
    parser.add_argument("--imagenet", action="store_true")
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fronts = arguments.front or [run / "search" for run in arguments.run]
    measure = int8_of_run if arguments.int8 else of_run
    cases = [found for run, front in zip(arguments.run, fronts, strict=True)
             for found in measure(run, front, arguments.folder)]
    cases += imagenet(arguments.folder) if arguments.imagenet else []
    if arguments.json:
        print(json.dumps(cases))
        return
    versions = [f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "nncf", "executorch")
                if find_spec(name) is not None]
    measured = cases[0]["portable"] if arguments.int8 else cases[0]
    print(f"{measured['device']} ({', '.join(instructions())}), one thread, Python {platform.python_version()}, "
          f"torch {torch.__version__}, {', '.join(versions)}; n = {measured['n']} rounds\n")
    if arguments.int8:
        print("| sub-network | MACs | top-1 in float32 | portable | ms (float32) | full range | ms (float32) |")
        print("|---|---|---|---|---|---|---|")
        print("\n".join(map(int8_line, cases)))
        return
    print("| sub-network | MACs | size | logits differ by | same top-1 | top-1 (torch) | ms (torch) | torch over it |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(map(line, cases)))


if __name__ == "__main__":
    main()
