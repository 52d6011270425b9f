"""Measures whether a long run stays as it was: memory, open files and threads over training steps, checkpoints and
validations, and over recalibrations and scorings of random sub-networks, on small nets.

    python benchmarks/long_run.py [--steps 10000] [--scores 200] [--mib 20] [--json]

Exits with 1 where after the first fifth memory still grows by more than --mib, files by more than two, threads by any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import pictures_of, training_of
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.engine.output import WEIGHTS
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Evaluator
from onceforall.training.setup import Options, data_of
from onceforall.weights.nets import load_supernet

STEPS_AN_EPOCH = 80
OPERATORS = ["MB4 3x3", "MB4 5x5", "MB4 7x7", "MB6 3x3", "MB6 5x5", "MB6 7x7"]


def now() -> dict[str, float]:
    """MiB that lie in memory, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {"mib": pages * os.sysconf("SC_PAGE_SIZE") / 2**20, "files": len(os.listdir("/proc/self/fd")),
            "threads": threading.active_count()}


def config(steps: int) -> Config:
    """An expand stage on the digits, with a checkpoint in the middle of each epoch too."""
    epochs = max(1, steps // STEPS_AN_EPOCH)
    return Config.from_dict({
        "dataloader": {"digits": {}},
        "network": {"ofa": {"space": "mobilenet_v3_large_32px", "width_mult": 0.15, "num_classes": 10,
                            "op_candidates": OPERATORS, "depth_candidates": [2, 3, 4]}},
        "optimizer": {"train": {"lr": 0.05, "weight_decay": 3e-5}},
        "hparams": {"task": "expand", "epoch": epochs, "batch_size_train": 16, "subnets_per_step": 1,
                    "train_image_size_list": [12, 16], "image_size_continuous": False, "calibration_images": 100,
                    "batch_size_valid": 200,
                    "checkpoint_every_steps": 40, "validation_frequency": max(1, epochs // 20)}})


def measured(steps: int, scores: int, folder: Path) -> dict[str, list[dict[str, float]]]:
    """What is held, forty times over the steps and over the scores."""
    out: dict[str, list[dict[str, float]]] = {"steps": [], "scores": []}
    done = [0]

    def hear(record: Mapping[str, Any]) -> None:
        if record["kind"] == "step":
            done[0] += 1
            if done[0] % max(1, steps // 40) == 0:
                out["steps"].append({"done": done[0], **now()})

    settings = config(steps)
    train(training_of(settings, search=True), folder / "run", Options(listener=hear))
    net, data = load_supernet(folder / "run" / WEIGHTS), data_of(pictures_of(settings, search=True))
    evaluator, rng = Evaluator(data, calibration_images=500), random.Random(0)
    for number in range(scores):
        evaluator.score(net, net.space.sample(rng), data.held_out)
        if (number + 1) % max(1, scores // 40) == 0:
            out["scores"].append({"done": number + 1, **now()})
    return out


def growth(rows: list[dict[str, float]]) -> dict[str, float]:
    """The most of each after the first fifth, over what it was there."""
    start, rest = rows[len(rows) // 5], rows[len(rows) // 5:]
    return {name: max(row[name] for row in rest) - start[name] for name in ("mib", "files", "threads")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--scores", type=int, default=200)
    parser.add_argument("--mib", type=float, default=20.0, help="that memory may still grow after the first fifth")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_large_blocks()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(arguments.steps, arguments.scores, Path(folder))
        logs = sum(path.stat().st_size for path in Path(folder, "run").rglob("*") if path.suffix in (".txt", ".jsonl"))
    growths = {name: growth(rows) for name, rows in found.items()}
    if arguments.json:
        print(json.dumps({"growth": growths, "log_bytes": logs, **found}))
    else:
        for name, rows in found.items():
            first, last, more = rows[len(rows) // 5], rows[-1], growths[name]
            print(f"{last['done']:,.0f} {name}: {first['mib']:.0f} MiB after {first['done']:,.0f}, {last['mib']:.0f} "
                  f"at the end, at most {more['mib']:.1f} more; {last['files']:.0f} files ({more['files']:+.0f}), "
                  f"{last['threads']:.0f} threads ({more['threads']:+.0f})")
        print(f"log.txt and metrics.jsonl: {logs / 1024:.0f} KiB")
    sys.exit(any(more["mib"] > arguments.mib or more["files"] > 2 or more["threads"] > 0 for more in growths.values()))


if __name__ == "__main__":
    main()
