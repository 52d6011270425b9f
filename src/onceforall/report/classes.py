"""How well a sub-network tells the classes apart: a table and a confusion matrix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

import plotly.graph_objects as go
import torch
from torch import Tensor

from onceforall.deploy.confusion import by_class, names_of
from onceforall.deploy.description import Description

HEADS = ("class", "pictures", "top-1", "taken for")
_WITH_NUMBERS = 15  # classes up to which the counts stand in the cells
_OTHERS = 5


def most_accurate(subnets: Mapping[str, Description]) -> tuple[str, Description] | None:
    """The most accurate of the sub-networks whose confusion is known, and its folder; None where there is none."""
    known = [(about.accuracy.top1, name) for name, about in subnets.items() if about.accuracy and about.confusion]
    return (best := max(known)[1], subnets[best]) if known else None


def words(name: str, about: Description) -> str:
    """A sentence that says which sub-network the figure and the table are of."""
    assert about.accuracy is not None
    return (f"{name}, the most accurate sub-network that is saved: {100 * about.accuracy.top1:.2f} % of "
            f"{about.accuracy.images:,} {about.accuracy.split} pictures. A row shows what the pictures of one class "
            "are taken for.")


def heatmap(about: Description) -> go.Figure:
    """The confusion matrix, coloured by the share of each class's pictures."""
    counts, names = _counts(about), [escape(name) for name in names_of(about.num_classes, about.classes)]
    shares = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
    cells = [[f"{count:,}" if count else "" for count in row] for row in counts.tolist()]
    figure = go.Figure(go.Heatmap(
        z=shares.tolist(), x=names, y=names, text=cells, zmin=0, zmax=100, colorscale="Blues",
        texttemplate="%{text}" if len(names) <= _WITH_NUMBERS else None, colorbar={"title": "%"},
        hovertemplate="%{y} taken for %{x}: %{z:.1f} %, %{text} pictures<extra></extra>"))
    figure.update_xaxes(title_text="taken for", type="category", side="top", automargin=True)
    figure.update_yaxes(title_text="class", type="category", autorange="reversed", automargin=True)
    return figure.update_layout(height=max(420, min(1000, 160 + 28 * len(names))))


def table(about: Description) -> Iterator[tuple[str, ...]]:
    """A row for each class, under HEADS."""
    for row in by_class(_counts(about), about.classes):
        others = [f"{name} ({images:,})" for name, images in list(row.taken_for.items())[:_OTHERS]]
        yield row.name, f"{row.images:,}", f"{100 * row.top1:.1f} %", ", ".join(others)


def _counts(about: Description) -> Tensor:
    counts = torch.zeros(about.num_classes, about.num_classes, dtype=torch.int64)
    for found in about.confusion:
        counts[found.label, found.answer] = found.images
    return counts
