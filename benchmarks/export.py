"""Exports sub-networks and shows how each file was verified: of trained runs the smallest, the middle and the largest
of the front, through every target that is installed; and of the ImageNet space, with random weights, three at 224
pixels, for their latency in torch, onnxruntime and OpenVINO.

    OMP_NUM_THREADS=1 python benchmarks/export.py FOLDER [--run RUN [--front FRONT]]... [--imagenet] [--json]

FOLDER: where the sub-networks are written. RUN: the folder of an `ofa fit`; FRONT: of a search in it, RUN/search
otherwise. Latency: one picture, one thread, torch and the export in turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from onceforall.cli.pictures import scored
from onceforall.cli.source import Which
from onceforall.data import ArrayPictures, DataSet
from onceforall.export.description import Export
from onceforall.export.export import Request, export
from onceforall.export.folder import Scored, save_subnet
from onceforall.export.targets import TARGETS
from onceforall.interop.weights import Trained, save, weights_file
from onceforall.nn import Supernet
from onceforall.search.record import read_record
from onceforall.space import search_space
from onceforall.train.evaluate import Evaluator

Case = dict[str, Any]
BETWEEN = ("smallest", "middle", "largest")


def of_run(run: Path, front: Path, folder: Path) -> list[Case]:
    """The ends and the middle of the front, through each target in each precision."""
    rows, cases = len(read_record(front)["front"]), []
    for name, row in zip(BETWEEN, (0, rows // 2, rows - 1), strict=True):
        found = scored(str(run), Which(None, None, None, front, row), data=None, root=None, device="cpu")
        place = folder / run.name / name
        about = save_subnet(found.extracted, place, source=weights_file(run))
        for target, form in TARGETS.items():
            if any(find_spec(package) is None for package in form.packages):
                print(f"left out: {target}, which is not installed", file=sys.stderr)
                continue
            for precision in form.precisions:
                ((file, made),) = export(place, Request(target, precision, max_loss=100), found.data).items()
                cases.append(case(f"{run.name} {name} {target} {precision}", file, made, about.macs))
                print(line(cases[-1]), file=sys.stderr)
    return cases


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
            "ms": seen.latency.ms, "torch_ms": seen.latency.torch_ms, "ratio": seen.latency.torch_ms / seen.latency.ms,
            "n": seen.latency.rounds, "device": seen.latency.device}


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
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    fronts = arguments.front or [run / "search" for run in arguments.run]
    cases = [found for run, front in zip(arguments.run, fronts, strict=True)
             for found in of_run(run, front, arguments.folder)]
    cases += imagenet(arguments.folder) if arguments.imagenet else []
    if arguments.json:
        print(json.dumps(cases))
        return
    installed = [f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "nncf", "executorch")
                 if find_spec(name) is not None]
    print(f"{cases[0]['device']}, one thread, Python {platform.python_version()}, torch {torch.__version__}, "
          f"{', '.join(installed)}; n = {cases[0]['n']} rounds\n")
    print("| sub-network | MACs | size | logits differ by | same top-1 | top-1 (torch) | ms (torch) | torch over it |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(map(line, cases)))


if __name__ == "__main__":
    main()
