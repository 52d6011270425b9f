"""The charts of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from onceforall.report.gather import Records
from onceforall.searching.front import MOST_PREDICTED, percent, percent_predicted
from onceforall.space.arch import foreign_words

_BLUE, _ORANGE, _GREY, _GREEN = "#1f5fa8", "#d1600a", "#9aa5b1", "#2b8a3e"
_UNITS = {"macs": ("MACs, million", 1e-6), "params": ("parameters, million", 1e-6), "memory": ("memory, kB", 1e-3)}
Rows = Sequence[Mapping[str, Any]]


def pareto(search: Mapping[str, Any]) -> go.Figure:
    """Accuracy against cost of the sampled sub-networks, the front, what was measured of it, and random search. A menu
    changes the cost."""
    front: Rows = search["front"]
    groups = [("random search", search["baseline"], "accuracy_predicted", {"color": _GREEN, "symbol": "x"}),
              ("measured to learn from", search["sampled"], "accuracy_measured", {"color": _GREY}),
              ("front, predicted", front, "accuracy_predicted", {"color": _BLUE, "size": 7}),
              ("front, on the test pictures", front, "accuracy_measured", {"color": _ORANGE, "symbol": "diamond",
                                                                          "size": 10})]
    shown = [(name, found, key, marker) for name, rows, key, marker in groups
             if (found := [row for row in rows if row[key] is not None])]
    costs = _costs_first(search)
    figure = go.Figure([go.Scatter(
        x=_column(rows, costs[0]), y=[_height(row, key) for row in rows], text=[_hover(row) for row in rows], name=name,
        mode="markers", marker=marker, hovertemplate="%{text}<extra></extra>") for name, rows, key, marker in shown])
    figure.update_layout(
        shapes=_limit(search, costs[0]), xaxis_title=_unit(costs[0])[0], yaxis_title="top-1, %",
        legend={"orientation": "h", "y": -0.18},
        updatemenus=[{"x": 0, "xanchor": "left", "y": 1.12, "buttons": [
            {"label": _unit(cost)[0], "method": "update",
             "args": [{"x": [_column(rows, cost) for _, rows, _, _ in shown]}, {
                "xaxis.title.text": _unit(cost)[0], "shapes": _limit(search, cost)}]} for cost in costs]}])
    return figure


def predictor(search: Mapping[str, Any]) -> go.Figure:
    """The measured accuracy of each sub-network, against the one predicted by a fit that had not seen it."""
    rows: Rows = search["sampled"]
    measured = [100 * row["accuracy_measured"] for row in rows]
    figure = go.Figure(go.Scatter(
        x=measured, y=[_height(row, "accuracy_predicted") for row in rows], mode="markers",
        marker={"color": [row["resolution"] for row in rows], "colorscale": "Viridis", "showscale": True,
                "colorbar": {"title": "pixels", "tickvals": sorted({row["resolution"] for row in rows})}},
        text=[_hover(row) for row in rows], hovertemplate="%{text}<extra></extra>"))
    _diagonal(figure, measured)
    return figure.update_layout(xaxis_title="measured top-1, %", yaxis_title="predicted top-1, %", showlegend=False)


def table_error(table: Mapping[str, Any]) -> go.Figure:
    """Whole sub-networks timed on the device, against the sums of their parts before and after the correction."""
    whole: Rows = table["about"]["subnets"]
    measured = [row["ms"] for row in whole]
    figure = go.Figure()
    for name, colour, held, scale, offset in (
            ("sum of parts", _GREY, None, 1.0, 0.0),
            ("corrected, fitted on", _GREEN, False, table["scale"], table["offset_ms"]),
            ("corrected, held out", _ORANGE, True, table["scale"], table["offset_ms"])):
        rows = [row for row in whole if held in (None, row["held_out"])]
        figure.add_trace(go.Scatter(
            x=[row["ms"] for row in rows], y=[offset + scale * row["sum_ms"] for row in rows], name=name,
            mode="markers", marker={"color": colour}, text=[escape(row["arch"]) for row in rows],
            hovertemplate="%{x:.3f} ms, told %{y:.3f} ms<br>%{text}<extra></extra>"))
    _diagonal(figure, measured)
    return figure.update_layout(xaxis_title="measured, ms", yaxis_title="told by the table, ms",
                                legend={"orientation": "h", "y": -0.18})


def training(stages: Mapping[str, Records]) -> go.Figure:
    """Training loss and validation accuracy of the smallest, middle and largest sub-network, stage after stage."""
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.06)
    starts: dict[str, float] = {}
    start, names = 0, {"smallest": _GREEN, "middle": _BLUE, "largest": _ORANGE}
    curves: dict[str, list[tuple[float | None, float | None]]] = {name: [] for name in ("loss", *names)}
    for stage, records in stages.items():
        epochs = sorted({record["epoch"] for record in records})
        curves["loss"] += [(start + r["epoch"] + 1, r["loss"]) for r in records if r["kind"] == "train"]
        for epoch in epochs:
            scores = [100 * r["top1"] for r in records
                      if r["kind"] in ("start", "valid") and r["epoch"] == epoch and r["top1"] is not None]
            if scores:
                ends = {"smallest": scores[0], "middle": scores[len(scores) // 2], "largest": scores[-1]}
                for name in ends if len(scores) > 1 else ("largest",):
                    curves[name].append((start + epoch + 1, ends[name]))
        for curve in curves.values():
            curve.append((None, None))  # a gap between stages: their losses do not compare
        starts[stage] = start + 0.5
        start += max(epochs, default=-1) + 1
    for name, points in curves.items():
        figure.add_trace(go.Scatter(
            x=[x for x, _ in points], y=[y for _, y in points], name=name, mode="lines+markers",
            line={"color": names.get(name, "#444")}, marker={"size": 5}), row=2 if name == "loss" else 1, col=1)
    for stage, place in starts.items():
        figure.add_vline(place, line_dash="dot", line_color=_GREY, annotation_text=escape(stage), row=1, col=1,
                         annotation_position="bottom right", annotation_font_size=10)
    figure.update_yaxes(title_text="validation top-1, %", row=1)
    figure.update_yaxes(title_text="training loss", row=2)
    figure.update_xaxes(title_text="epoch", row=2)
    return figure.update_layout(legend={"orientation": "h", "y": -0.15})


def _costs_first(search: Mapping[str, Any]) -> list[str]:
    """All costs. Those that were objectives come first."""
    known = list(search["front"][0]["costs"])
    return [*(name for name in search["objectives"] if name in known),
            *(name for name in known if name not in search["objectives"])]


def _limit(search: Mapping[str, Any], cost: str) -> list[dict[str, Any]]:
    """A line at the limit on that cost, where there is one."""
    if cost not in search["limits"]:
        return []
    place = search["limits"][cost] * _unit(cost)[1]
    return [{"type": "line", "x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper",
             "line": {"dash": "dot", "color": _GREY}, "label": {"text": "limit", "textposition": "end"}}]


def _unit(cost: str) -> tuple[str, float]:
    return _UNITS.get(cost, (escape(cost.replace("latency_ms", "latency, ms")), 1.0))


def accuracies(row: Mapping[str, Any]) -> tuple[str, str]:
    """The predicted and the measured top-1 of a row in words, each empty where there is none."""
    return percent_predicted(row["accuracy_predicted"]), percent(row["accuracy_measured"])


def _height(row: Mapping[str, Any], key: str) -> float:
    """An accuracy in per cent. A predicted one is cut where it may not be shown higher."""
    share = float(row[key])
    return 100 * (min(share, MOST_PREDICTED) if key == "accuracy_predicted" else share)


def _column(rows: Rows, cost: str) -> list[float]:
    return [row["costs"][cost] * _unit(cost)[1] for row in rows]


def _hover(row: Mapping[str, Any]) -> str:
    """The sub-network in lines: accuracies, costs, arch stage by stage, its forms in other projects."""
    told = zip(("predicted", "measured"), accuracies(row), strict=True)
    percents = [f"{name} {words}" for name, words in told if words]
    costs = [f"{_unit(name)[0]}: {value * _unit(name)[1]:,.3f}" for name, value in row["costs"].items()]
    arch = escape(str(row["arch"])).replace("/", "<br>&nbsp;&nbsp;&nbsp;/")
    others = [escape(f"{name} {text}") for name, text in foreign_words(row["foreign"]).items()]
    return "<br>".join([", ".join(percents), *costs, arch, *others])


def _diagonal(figure: go.Figure, values: Sequence[float]) -> None:
    ends = [min(values), max(values)]
    figure.add_trace(go.Scatter(x=ends, y=ends, mode="lines", line={"color": _GREY, "dash": "dot"}, hoverinfo="skip",
                                showlegend=False))
