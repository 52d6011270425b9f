"""Scores a run of `ofa fit --from` on the test pictures, and draws its front beside the tuned network at every size.

    python benchmarks/transfer.py RUN [--records FILE.json] [--picture FILE.png] [--title TEXT] [--count 12]
        [--below 32 72]

The tuned network is the stage `tuned` alone: one network for all sizes, as anyone would have it without shrinking, with
the BN statistics that it was trained with. Those of sub-networks are measured anew, as everywhere. It also scores the
largest architecture at every size, the middle sub-network, and of the front the one that is predicted best below some
millions of MACs. With --records of an earlier call it only draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import torch

from onceforall.cost import macs
from onceforall.recipes.summary import SUMMARY, read_summary
from onceforall.recipes.transfer import TUNED
from onceforall.run import Run
from onceforall.searching.front import spread_over
from onceforall.searching.record import read_front
from onceforall.weights.nets import load_supernet

INK, MUTED, RULE, PAPER = "#1b2733", "#5b6875", "#c9d1d9", "#fbfcfd"
FRONT, ALONE, POLISHED = "#0072b2", "#c75000", "#009e73"  # after Okabe & Ito


def measured(folder: Path, count: int, limits: Sequence[float]) -> dict[str, Any]:
    """MACs in millions and top-1 in per cent on the test pictures."""
    run = Run(folder)
    evaluator, net = run.evaluator, run.net
    pictures = evaluator.data.test
    rows, objectives = read_front(folder / "search", net.space)
    archs = [rows[i].arch for i in spread_over(rows, objectives, count)]
    fitting = [(limit, [row for row in rows if row.costs["macs"] < limit * 1e6]) for limit in limits]
    tuned = load_supernet(folder / TUNED)
    evaluator.compute.place(tuned)
    summary, keeps = read_summary(folder / SUMMARY), run.stages[TUNED].keeps

    def point(supernet: Any, arch: Any, *, kept: bool = False) -> list[float]:
        cost = macs(net.space, arch, num_classes=net.num_classes)
        score = evaluator.score(supernet, arch, pictures, kept=kept)
        return [round(cost / 1e6, 2), round(100 * score.top1, 2)]

    return {
        "pictures": len(pictures), "torch": torch.__version__,
        "tuned": [[arch.resolution, *point(tuned, arch, kept=keeps(arch))]
                  for arch in map(net.space.largest.at, net.space.resolutions)],
        "largest": [[size, *point(net, net.space.largest.at(size))] for size in net.space.resolutions],
        "middle": [net.space.middle.resolution, *point(net, net.space.middle)],
        "below": [[limit, *point(net, max(some, key=lambda row: row.predicted).arch)]
                  for limit, some in fitting if some],
        "front": sorted(point(net, arch) for arch in archs),
        "saved": [[row["macs"] / 1e6, 100 * row["top1"]] for row in summary["subnets"]],
        "polished": [[row["macs"] / 1e6, 100 * row["polished"]["top1"]] for row in summary["subnets"]
                     if "polished" in row],
        "stages": summary["stages"]}


def draw(found: dict[str, Any], picture: Path, title: str) -> None:
    """The front, the polished ones, and the tuned network at every size."""
    figure, axes = plt.subplots(figsize=(7.2, 4.2), facecolor=PAPER)
    axes.set_facecolor(PAPER)
    axes.plot(*zip(*(row[1:] for row in found["tuned"]), strict=True), "s--", color=ALONE, markersize=5, linewidth=1,
              label="one network, tuned for all sizes")
    for size, cost, top1 in found["tuned"]:
        axes.annotate(f"{size} px", (cost, top1), (4, -11), textcoords="offset points", color=ALONE, fontsize=7.5)
    axes.plot(*zip(*found["front"], strict=True), "o-", color=FRONT, markersize=5, linewidth=1.4,
              label="sub-networks that the search found")
    axes.plot(*zip(*found["saved"], strict=True), "o", color=FRONT, markerfacecolor="none", markersize=10,
              label="those that it saved")
    if found["polished"]:
        axes.plot(*zip(*found["polished"], strict=True), "D", color=POLISHED, markersize=5.5, label="polished alone")
    axes.set_xlabel("million multiply-accumulates of one picture", color=MUTED, fontsize=8.5)
    axes.set_ylabel(f"top-1 on {found['pictures']} test pictures, %", color=MUTED, fontsize=8.5)
    axes.set_title(title, loc="left", color=INK, fontsize=10, fontweight="bold")
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.grid(color=RULE, linewidth=0.5)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    for spine in axes.spines.values():
        spine.set_visible(False)
    figure.tight_layout()
    figure.savefig(picture, dpi=160, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Measure, or read the records, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--records", type=Path, metavar="FILE.json")
    parser.add_argument("--picture", type=Path, metavar="FILE.png")
    parser.add_argument("--title", default="")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--below", type=float, nargs="*", default=[32, 72])
    options = parser.parse_args()
    known = options.records is not None and options.records.exists()
    found = json.loads(options.records.read_text()) if known else measured(options.run, options.count, options.below)
    print(json.dumps(found, indent=1))
    if options.records is not None and not known:
        options.records.write_text(json.dumps(found) + "\n")
    if options.picture is not None:
        draw(found, options.picture, options.title)


if __name__ == "__main__":
    main()
