"""Scores a run of `ofa fit --from` on the test pictures, and draws its front beside the tuned network at every size.

    python benchmarks/transfer.py RUN [--records FILE.json] [--picture FILE.png] [--title TEXT] [--count 12]
        [--below 32 72] [--milliseconds 5]

The tuned network is the stage `tuned` alone: one network for all sizes, as anyone would have it without shrinking, with
the BN statistics that it was trained with. Those of sub-networks are measured anew, as everywhere. It also scores the
largest architecture at every size, the middle sub-network, and of the front the one that is predicted best below some
millions of MACs. With --milliseconds it also times all of them: one picture in float32 by onnxruntime on one thread, in
time of the processor, the median of so many rounds. With --records of an earlier call it only draws.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import onnx
import torch
from matplotlib.axes import Axes
from onnx import TensorProto, numpy_helper

from onceforall.cost import macs
from onceforall.latency.runner import opener, visit
from onceforall.nn.onnx_graph import graph
from onceforall.recipes.summary import SUMMARY, read_summary
from onceforall.recipes.transfer import TUNED
from onceforall.run import Run
from onceforall.searching.front import spread_over
from onceforall.searching.record import read_front
from onceforall.space import Arch, Layer, SearchSpace, lower
from onceforall.space.parts import parts
from onceforall.weights.nets import load_supernet

INK, MUTED, RULE, PAPER = "#1b2733", "#5b6875", "#c9d1d9", "#fbfcfd"
FRONT, ALONE, POLISHED = "#0072b2", "#c75000", "#009e73"  # after Okabe & Ito
STYLES: dict[str, dict[str, Any]] = {
    "tuned": {"linestyle": "--", "marker": "s", "color": ALONE, "markersize": 5, "linewidth": 1,
              "label": "one network, tuned for all sizes"},
    "front": {"marker": "o", "color": FRONT, "markersize": 5, "linewidth": 1.4, "label": "sub-networks of the front"},
    "saved": {"linestyle": "", "marker": "o", "color": FRONT, "markerfacecolor": "none", "markersize": 10,
              "label": "those that were saved"},
    "polished": {"linestyle": "", "marker": "D", "color": POLISHED, "markersize": 5.5, "label": "polished alone"}}


def milliseconds(space: SearchSpace, archs: Sequence[Arch], *, num_classes: int, rounds: int) -> dict[Arch, float]:
    """How long onnxruntime takes for one picture with each sub-network; weights are random numbers."""
    rng = np.random.default_rng(0)

    def tensor(layer: Layer, _kind: str, shape: tuple[int, ...]) -> TensorProto:
        scale = (2 / (layer.inputs // layer.groups * layer.kernel**2)) ** 0.5  # keeps activations in their size
        return numpy_helper.from_array(rng.normal(0, scale, shape).astype(np.float32))

    found: dict[Arch, list[float]] = {arch: [] for arch in archs}
    with TemporaryDirectory() as name:
        for arch in found:
            pieces = [part for _, part in parts(lower(space, arch, num_classes))]
            onnx.save(graph(pieces, tensor), Path(name) / f"{arch}.onnx".replace("/", "_"))
        open_case = opener(Path(name), 1)
        for number in range(rounds):
            for arch in random.Random(number).sample(list(found), len(found)):
                run = open_case(str(arch).replace("/", "_"))
                found[arch].append(visit(run, {"runs": 20, "seconds": 0.3}, "processor")[0])
    return {arch: round(median(times), 3) for arch, times in found.items()}


def measured(folder: Path, count: int, limits: Sequence[float], rounds: int) -> dict[str, Any]:
    """Rows with MACs in millions, top-1 in per cent on the test pictures, and milliseconds for `rounds` above 0."""
    run = Run(folder)
    evaluator, net = run.evaluator, run.net
    pictures, space = evaluator.data.test, net.space
    rows, objectives = read_front(folder / "search", space)
    front = [rows[i].arch for i in spread_over(rows, objectives, count)]
    fitting = [[row for row in rows if row.costs["macs"] < limit * 1e6] for limit in limits]
    below = [max(some, key=lambda row: row.predicted).arch for some in fitting if some]
    sizes = [space.largest.at(size) for size in space.resolutions]
    tuned = load_supernet(folder / TUNED)
    evaluator.compute.place(tuned)
    summary, keeps = read_summary(folder / SUMMARY), run.stages[TUNED].keeps
    saved = [(Arch.parse(space, row["arch"]), row) for row in summary["subnets"]]
    timed = dict.fromkeys([*sizes, *front, *below, *(arch for arch, _ in saved)])
    times = milliseconds(space, list(timed), num_classes=net.num_classes, rounds=rounds) if rounds else {}

    def point(arch: Arch, top1: float) -> dict[str, Any]:
        cost = macs(space, arch, num_classes=net.num_classes)
        return {"arch": str(arch), "pixels": arch.resolution, "macs": round(cost / 1e6, 2), "ms": times.get(arch),
                "top1": round(100 * top1, 2)}

    def scored(archs: Sequence[Arch]) -> list[dict[str, Any]]:
        found = (point(arch, evaluator.score(net, arch, pictures).top1) for arch in archs)
        return sorted(found, key=itemgetter("macs"))

    return {
        "pictures": len(pictures), "torch": torch.__version__,
        "tuned": [point(arch, evaluator.score(tuned, arch, pictures, kept=keeps(arch)).top1) for arch in sizes],
        "largest": scored(sizes), "middle": scored([space.middle]), "below": scored(below), "front": scored(front),
        "saved": [point(arch, row["top1"]) for arch, row in saved],
        "polished": [point(arch, row["polished"]["top1"]) for arch, row in saved if "polished" in row],
        "stages": summary["stages"]}


def draw(found: dict[str, Any], picture: Path, title: str) -> None:
    """The front, the polished ones, and the tuned network at every size; by milliseconds, too, if there are some."""
    costs = {"macs": "million multiply-accumulates of one picture"}
    if found["front"][0]["ms"] is not None:
        costs["ms"] = "milliseconds of one picture, measured"
    figure, axes = plt.subplots(1, len(costs), figsize=(7.2 if len(costs) == 1 else 10, 4.2), facecolor=PAPER,
                                sharey=True, squeeze=False)
    for (cost, label), one in zip(costs.items(), axes[0], strict=True):
        _panel(one, found, cost)
        one.set_xlabel(label, color=MUTED, fontsize=8.5)
    axes[0][0].set_ylabel(f"top-1 on {found['pictures']} test pictures, %", color=MUTED, fontsize=8.5)
    axes[0][0].set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes[0][-1].legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    figure.tight_layout()
    figure.savefig(picture, dpi=160, metadata={"Software": None})
    plt.close(figure)


def _panel(axes: Axes, found: dict[str, Any], cost: str) -> None:
    axes.set_facecolor(PAPER)
    for name, style in STYLES.items():
        if rows := sorted(found[name], key=itemgetter(cost)):
            line = {"linestyle": ""} if (name, cost) == ("front", "ms") else {}  # it is a front in MACs
            axes.plot([row[cost] for row in rows], [row["top1"] for row in rows], **style | line)
    for row in found["tuned"]:
        axes.annotate(f"{row['pixels']} px", (row[cost], row["top1"]), (4, -11), textcoords="offset points",
                      color=ALONE, fontsize=7.5)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.grid(color=RULE, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def main() -> None:
    """Measure, or read the records, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--records", type=Path, metavar="FILE.json")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--title", default="")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--below", type=float, nargs="*", default=[32, 72])
    parser.add_argument("--milliseconds", type=int, default=0, metavar="ROUNDS")
    options = parser.parse_args()
    known = options.records is not None and options.records.exists()
    found = json.loads(options.records.read_text()) if known else measured(
        options.run, options.count, options.below, options.milliseconds)
    print(json.dumps(found, indent=1))
    if options.records is not None and not known:
        options.records.write_text(json.dumps(found) + "\n")
    if options.picture is not None:
        draw(found, options.picture, options.title)


if __name__ == "__main__":
    main()
