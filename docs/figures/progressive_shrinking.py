"""Draw the figure of progressive shrinking: what each of the six stages makes elastic.

    python docs/figures/progressive_shrinking.py [FILE.png]

The stages, their choices and the numbers of sub-networks come from the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from onceforall import search_space
from onceforall.recipes import STAGES

INK, MUTED, RULE, PAPER = "#1b2733", "#5b6875", "#c9d1d9", "#fbfcfd"
COLOURS = {"resolution": "#7a5a94", "kernel": "#0072b2", "depth": "#c75000", "expand": "#00795a"}  # after Okabe & Ito
NAMES = {"kernel": "kernel", "depth": "depth", "expand": "width"}
TITLES = ("full net", "kernel", "depth 1", "depth 2", "expand 1", "expand 2")
SIZE, DPI = (9.0, 5.5), 200  # inches: 900 x 550 pixels on a page, drawn at twice that
LEFT, CELL, GAP = 1.12, 1.2, 0.085
ROWS = {"kernel": 2.98, "depth": 2.12, "expand": 1.26}  # lower edges, inches
HEIGHT = 0.78


def column(stage: int) -> float:
    """Left edge of a stage's column, inches."""
    return LEFT + stage * (CELL + GAP)


def box(axes: Axes, x: float, y: float, width: float, height: float, *, face: str, edge: str, line: float) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.07", facecolor=face,
                                  edgecolor=edge, linewidth=line))


def tint(colour: str, share: float) -> str:
    """`colour` mixed with white: `share` of it."""
    parts = (round(255 - share * (255 - int(colour[i:i + 2], 16))) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


def unit(axes: Axes, x: float, y: float, width: float, height: float, *, colour: str, optional: bool) -> None:
    """A block or a group of channels: filled where every sub-network has it, dashed where some leave it out."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor="white" if optional else colour, edgecolor=colour,
                             linewidth=1.0, linestyle=(0, (2.2, 1.4)) if optional else "-", zorder=2))


def draw_kernel(axes: Axes, x: float, y: float, *, choices: Sequence[int], colour: str) -> None:
    """A 7x7 filter; the centres that smaller kernels use are darker."""
    side, pitch = max(choices), 0.066
    x += (CELL - side * pitch) / 2
    for row in range(side):
        for col in range(side):
            reach = 2 * max(abs(row - side // 2), abs(col - side // 2)) + 1
            smaller = [k for k in sorted(choices) if k >= reach]
            share = (1.0, 0.62, 0.36)[sorted(choices).index(smaller[0])] if len(choices) > 1 else 0.6
            axes.add_patch(Rectangle((x + col * pitch, y + row * pitch), 0.82 * pitch, 0.82 * pitch,
                                     facecolor=tint(colour, share), edgecolor="none"))


def draw_depth(axes: Axes, x: float, y: float, *, choices: Sequence[int], colour: str) -> None:
    """The blocks of a stage, first to last; the last ones may be skipped."""
    width, pitch = 0.155, 0.235
    x += (CELL - 3 * pitch - width) / 2
    axes.plot([x - 0.07, x + 3 * pitch + width + 0.07], [y + 0.23, y + 0.23], color=colour, linewidth=1.2, zorder=1.5)
    for i in range(max(choices)):
        unit(axes, x + i * pitch, y + 0.07, width, 0.32, colour=colour, optional=i >= min(choices))


def draw_expand(axes: Axes, x: float, y: float, *, choices: Sequence[int], colour: str) -> None:
    """Hidden channels in sixths, tall ones important: sorted once the width is elastic; the last may be left out."""
    heights = (0.46, 0.41, 0.35, 0.28, 0.2, 0.13)
    order = range(6) if len(choices) > 1 else (3, 0, 4, 2, 5, 1)
    width, pitch = 0.098, 0.14
    x += (CELL - 5 * pitch - width) / 2
    for i, channel in enumerate(order):
        unit(axes, x + i * pitch, y, width, heights[channel], colour=colour, optional=i >= min(choices))


DRAW: dict[str, Callable[..., None]] = {"kernel": draw_kernel, "depth": draw_depth, "expand": draw_expand}


def draw_cells(axes: Axes, dimension: str) -> None:
    """One elastic dimension through the six stages."""
    y, colour = ROWS[dimension], COLOURS[dimension]
    what = {"kernel": "of each block", "depth": "blocks in\neach stage", "expand": "hidden channels,\nexpand ratio"}
    axes.text(0.14, y + 0.5, NAMES[dimension], color=colour, fontsize=10.5, fontweight="bold", va="center")
    axes.text(0.14, y + 0.36, what[dimension], color=MUTED, fontsize=7.2, va="top", linespacing=1.15)
    before: tuple[int, ...] = ()
    for i, stage in enumerate(STAGES):
        choices: tuple[int, ...] = getattr(stage, dimension)
        new, elastic = bool(before) and choices != before, len(choices) > 1
        pen = colour if elastic else "#8c97a3"
        box(axes, column(i), y, CELL, HEIGHT, face=tint(colour, 0.17) if new else "white",
            edge=colour if new else tint(colour, 0.45) if elastic else RULE, line=2.2 if new else 0.9)
        DRAW[dimension](axes, column(i), y + 0.25, choices=choices, colour=pen)
        axes.text(column(i) + CELL / 2, y + 0.115, "  ".join(map(str, choices)), color=pen if elastic else MUTED,
                  fontsize=8.6, fontweight="bold" if new else "normal", ha="center", va="center")
        before = choices


def draw_head(axes: Axes) -> None:
    """Stage numbers and names, and the resolutions, which are elastic in all of them."""
    for i, title in enumerate(TITLES):
        x = column(i)
        axes.text(x + 0.12, 5.13, str(i + 1), color="white", fontsize=9, fontweight="bold", ha="center", va="center",
                  bbox={"boxstyle": "circle,pad=0.22", "facecolor": INK, "edgecolor": "none"})
        axes.text(x + 0.33, 5.13, title, color=INK, fontsize=10.5, fontweight="bold", va="center")
        caption = f"from {i}, taught by 1" if i else "from scratch"
        axes.text(x + 0.02, 4.84, caption, color=MUTED, fontsize=7.8, va="center")
    sizes, colour, y = search_space("mobilenet_v3_large").resolutions, COLOURS["resolution"], 3.92
    axes.text(0.14, y + 0.46, "resolution", color=colour, fontsize=10.5, fontweight="bold", va="center")
    axes.text(0.14, y + 0.32, "of the picture", color=MUTED, fontsize=7.2, va="top")
    box(axes, LEFT, y, column(5) + CELL - LEFT, 0.7, face=tint(colour, 0.13), edge=colour, line=0.9)
    x = LEFT + 0.28
    for size in (128, 160, 192, 224):
        side = 0.5 * size / max(sizes)
        axes.add_patch(Rectangle((x, y + 0.1), side, side, facecolor="white", edgecolor=colour, linewidth=1.2))
        axes.text(x + side / 2, y + 0.1 + side / 2, str(size), color=colour, fontsize=7.2, ha="center", va="center")
        x += side + 0.14
    axes.text(x + 0.16, y + 0.35, f"elastic from the start: every step draws one of {len(sizes)} sizes, "
              f"{min(sizes)} to {max(sizes)} pixels", color=INK, fontsize=8.6, va="center")


def draw_foot(axes: Axes) -> None:
    """Numbers of sub-networks, and what the drawing's signs mean."""
    axes.text(0.14, 0.94, "sub-networks", color=INK, fontsize=8.6, fontweight="bold", va="center")
    axes.text(0.14, 0.77, "at one resolution", color=MUTED, fontsize=7.2, va="center")
    space = search_space("mobilenet_v3_large")
    for i, stage in enumerate(STAGES):
        count = space.restrict(kernel=stage.kernel, expand=stage.expand, depth=stage.depth).count
        power = len(str(count)) - 1
        text = str(count) if count < 1000 else rf"${count / 10**power:.1f} \times 10^{{{power}}}$"
        axes.text(column(i) + CELL / 2, 0.88, text, color=INK, fontsize=10, ha="center", va="center")
    axes.plot([0.14, column(5) + CELL], [0.56, 0.56], color=RULE, linewidth=0.8)
    blue = COLOURS["kernel"]
    x = 0.14
    for face, edge, line, text, width in (
            ("white", RULE, 0.9, "fixed", 0.8), (tint(blue, 0.17), blue, 2.0, "becomes elastic in this stage", 2.2),
            ("white", tint(blue, 0.45), 0.9, "stays elastic", 1.2)):
        box(axes, x, 0.24, 0.22, 0.15, face=face, edge=edge, line=line)
        axes.text(x + 0.3, 0.315, text, color=INK, fontsize=7.8, va="center")
        x += width
    for optional, text, width in (
            (False, "in every sub-network", 1.6), (True, "in some: the last ones are left out", 2)):
        unit(axes, x, 0.235, 0.11, 0.16, colour=MUTED, optional=optional)
        axes.text(x + 0.19, 0.315, text, color=INK, fontsize=7.8, va="center")
        x += width


def draw(path: Path) -> None:
    """Write the figure to `path`."""
    figure = plt.figure(figsize=SIZE, facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.set_axis_off()
    box(axes, 0.02, 0.02, SIZE[0] - 0.04, SIZE[1] - 0.04, face=PAPER, edge=RULE, line=0.8)
    draw_head(axes)
    for dimension in ROWS:
        draw_cells(axes, dimension)
    draw_foot(axes)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
