"""The shipped sub-networks in a report: what was exported, how it was verified, how fast and how large it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import TypeAlias

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from onceforall.deploy.description import Description, Export
from onceforall.searching.front import percent

Shipped: TypeAlias = Mapping[str, Description]  # by the folder's name
HEADS = ("file", "of", "sub-network's top-1", "logits differ by", "same top-1", "top-1", "torch's", "ms", "fp32's ms",
         "torch's ms", "batch", "bytes", "verified on", "may lose on", "arch")
_TORCH, _SINGLE, _COLOURS = "#9aa5b1", "#7aa6d6", {"fp32": "#1f5fa8", "fp16": "#2b8a3e", "int8": "#d1600a"}


def exports(shipped: Shipped) -> list[tuple[str, Description, str, Export]]:
    """Every exported file: its folder, that sub-network, the file's name, and how it was verified."""
    return [(folder, about, name, made) for folder, about in shipped.items() for name, made in about.exports.items()]


def bars(shipped: Shipped) -> go.Figure:
    """Latency and size of each file, a bar a precision, and torch's latency beside it."""
    found = exports(shipped)
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.04, column_widths=[0.6, 0.4])
    for precision, colour in _COLOURS.items():
        rows = [(escape(f"{folder} {name}"), made) for folder, _, name, made in found if made.precision == precision]
        if not rows:
            continue
        names = [name for name, _ in rows]
        figure.add_trace(go.Bar(y=names, x=[made.verification.latency.ms for _, made in rows], orientation="h",
                                name=precision, marker_color=colour, offsetgroup="own"), row=1, col=1)
        figure.add_trace(go.Bar(y=names, x=[made.size / 1e6 for _, made in rows], orientation="h", name=precision,
                                marker_color=colour, showlegend=False, offsetgroup="own"), row=1, col=2)
    beside = [(escape(f"{folder} {name}"), made.verification.latency.fp32_ms) for folder, _, name, made in found
              if made.verification.latency.fp32_ms is not None]
    if beside:
        figure.add_trace(go.Bar(y=[name for name, _ in beside], x=[ms for _, ms in beside], orientation="h",
                                name="fp32 in the same runtime", marker_color=_SINGLE, offsetgroup="fp32"),
                         row=1, col=1)
    names = [escape(f"{folder} {name}") for folder, _, name, _ in found]
    figure.add_trace(go.Bar(y=names, x=[made.verification.latency.torch_ms for *_, made in found], orientation="h",
                            name="torch, in turns with it", marker_color=_TORCH, offsetgroup="torch"), row=1, col=1)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    figure.update_xaxes(title_text="ms", col=1)
    figure.update_xaxes(title_text="size, MB", col=2)
    return figure.update_layout(barmode="group", height=max(360, 120 + 44 * len(found)),
                                legend={"orientation": "h", "y": -0.12, "yanchor": "top"})


def words(shipped: Shipped) -> str:
    """A sentence that says what was measured, and where."""
    devices = sorted({made.verification.latency.device for *_, made in exports(shipped)})
    threads = sorted({made.verification.latency.threads for *_, made in exports(shipped)})
    return (f"Each file was compared with torch before it was kept. Latency: median of rounds in turns on "
            f"{', '.join(devices)}, threads {', '.join(map(str, threads))}.")


def table(shipped: Shipped) -> Iterator[tuple[str, ...]]:
    """A row for each file, under HEADS."""
    for folder, about, name, made in exports(shipped):
        seen, times = made.verification, made.verification.latency
        best = seen.pictures or seen.random
        kind = "pictures" if seen.pictures else "random inputs"
        own = about.accuracy.top1 if about.accuracy else None
        yield (f"{folder}/{name}", f"{made.target} {made.precision}", percent(own), f"{best.relative_error:.1e}",
               f"{best.same_top1:,} of {best.images:,} {kind}", percent(seen.top1),
               percent(seen.torch_top1), f"{times.ms:.3f}",
               "" if times.fp32_ms is None else f"{times.fp32_ms:.3f}", f"{times.torch_ms:.3f}",
               str(made.batch) if made.batch else "any", f"{made.size:,}", ", ".join(seen.instructions),
               made.may_lose_on, about.arch)
