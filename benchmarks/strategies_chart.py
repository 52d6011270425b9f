"""The picture of docs/strategies.md, from the records of `strategies.py`.

    python benchmarks/strategies_chart.py [FILE.png] [--records FILE]

A panel a setting, a row a way to train: means over the seeds of the accuracies of four sub-networks, and of the least,
median and greatest of the population.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from strategies_table import LEVELS, RECORDS, Record, by_setting, grouped, read

INK, MUTED, RULE, PAPER = "#1b2733", "#5b6875", "#c9d1d9", "#fbfcfd"
COLOURS = dict(zip(LEVELS, ("#56b4e9", "#0072b2", "#e69f00", "#c75000"), strict=True))  # after Okabe & Ito
PICTURE = Path(__file__).parents[1] / "docs" / "figures" / "strategies.png"


def panel(axes: Axes, title: str, records: Sequence[Record], order: Sequence[str]) -> None:
    """One setting: ways from top to bottom in `order`, under the sub-networks trained alone."""
    own, ways = grouped(records, alone=True), grouped(records, alone=False)
    for level in LEVELS:
        if level in own:
            axes.plot(100 * mean(r["top1"] for r in own[level]), 0, "D", color=COLOURS[level], markersize=5.5)
    for row, way in enumerate(order, 1):
        if way in ways:
            draw_way(axes, row, ways[way])
    data, _, rest = title.partition(", ")
    axes.set_title(data, loc="left", color=INK, fontsize=11, fontweight="bold", pad=20)
    axes.text(0, 1.015, rest, transform=axes.transAxes, color=MUTED, fontsize=7)
    axes.axhline(0.5, color=RULE, linewidth=0.8)
    axes.set_xlabel("top-1 on the test pictures, %", color=MUTED, fontsize=8.5)
    axes.tick_params(colors=MUTED, labelsize=8.5, length=0)
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_way(axes: Axes, row: int, records: Sequence[Record]) -> None:
    """The population as a bar with its median, the four sub-networks as points on it."""
    low, middle, high = (100 * mean(pick(r["population"]) for r in records) for pick in (min, median, max))
    axes.barh(row, high - low, left=low, height=0.5, color=RULE)
    axes.plot([middle, middle], [row - 0.25, row + 0.25], color=INK, linewidth=1.4)
    for level in LEVELS:
        axes.plot(100 * mean(r["levels"][level] for r in records), row, "o", color=COLOURS[level], markersize=5.5)


def ranked(settings: Mapping[str, Sequence[Record]]) -> list[str]:
    """Ways by the mean of their medians over the settings."""
    medians: dict[str, list[float]] = {}
    for records in settings.values():
        for way, found in grouped(records, alone=False).items():
            medians.setdefault(way, []).append(mean(median(r["population"]) for r in found))
    return sorted(medians, key=lambda way: -mean(medians[way]))


def checksum(records: Sequence[Record]) -> str:
    """Of records, in any order: stands in the picture's file that was drawn from them."""
    return str(zlib.crc32("\n".join(sorted(map(json.dumps, records))).encode()))


def draw(records: Sequence[Record], path: Path) -> None:
    """Write the picture to `path`."""
    settings = by_setting(records)
    order = ranked(settings)
    figure, panels = plt.subplots(1, len(settings), figsize=(9, 1.4 + 0.3 * (len(order) + 1)), sharey=True,
                                  squeeze=False, facecolor=PAPER)
    for axes, (title, found) in zip(panels[0], settings.items(), strict=True):
        panel(axes, title, found, order)
        axes.set_facecolor(PAPER)
    panels[0][0].set_yticks(range(len(order) + 1), ["trained alone", *order], color=INK)
    panels[0][0].set_ylim(len(order) + 0.6, -0.6)
    signs = [plt.Line2D([], [], marker="o", linestyle="", color=COLOURS[level], label=level) for level in LEVELS]
    signs.append(plt.Rectangle((0, 0), 1, 1, color=RULE, label="50 random sub-networks and their median"))
    figure.legend(handles=signs, loc="lower center", ncols=len(signs), frameon=False, fontsize=8, labelcolor=INK)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=160, metadata={"Software": None, "Source": checksum(records)})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, nargs="?", default=PICTURE, metavar="FILE.png")
    parser.add_argument("--records", type=Path, default=RECORDS, metavar="FILE")
    arguments = parser.parse_args()
    draw(read(arguments.records), arguments.picture)


if __name__ == "__main__":
    main()
