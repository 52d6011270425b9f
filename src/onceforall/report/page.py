"""One HTML file that needs no network: charts to hover over, and tables."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from onceforall.errors import UserError
from onceforall.files import known, unwritable, write_text
from onceforall.report import charts, classes, shipped
from onceforall.report.gather import Run
from onceforall.searching.front import thinned
from onceforall.searching.record import check_folder
from onceforall.space.arch import foreign_words

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 13px; white-space: nowrap; }
td, th { text-align: right; padding: 3px 10px; border-bottom: 1px solid #e3e7ec; }
td:last-child, th:last-child { text-align: left; font-family: ui-monospace, monospace; }
p { max-width: 46rem; color: #47505b; }
summary { cursor: pointer; margin: 0.8rem 0; color: #1f5fa8; }
"""
_WHOLE, _SHOWN = 30, 20  # rows up to which a front is shown as it is, and rows of a longer one
_LAYOUT = {"template": "plotly_white", "margin": {"l": 60, "r": 20, "t": 50, "b": 60}, "hoverlabel": {"align": "left"}}


def figures(run: Run) -> dict[str, tuple[str, go.Figure]]:
    """The charts of what there is: by name a sentence and the figure."""
    out: dict[str, tuple[str, go.Figure]] = {}
    search = run.search
    if search is not None and search["front"] and search["front"][0]["accuracy_predicted"] is not None:
        out["Pareto front"] = (_front_words(search), charts.pareto(search))
    if search is not None and search["sampled"] and search["predictor"]:
        out["Accuracy predictor"] = (_predictor_words(search["predictor"]), charts.predictor(search))
    for name, table in (search["tables"] if search is not None else {}).items():
        if table["about"]["check"] and table["about"]["subnets"]:
            out[f"Latency table {name}"] = (_table_words(table["about"]), charts.table_error(table))
    if run.shipped:
        out["Exports"] = (shipped.words(run.shipped), shipped.bars(run.shipped))
    if (best := classes.most_accurate(run.subnets)) is not None:
        out["Classes"] = (classes.words(*best), classes.heatmap(best[1]))
    if any(run.stages.values()):
        out["Training"] = (_training_words(run), charts.training(run.stages))
    for _, figure in out.values():
        figure.update_layout(**_LAYOUT, height=figure.layout.height or 520)
    return out


def write(run: Run, path: Path) -> None:
    """Write the report; raises UserError where that cannot be."""
    found = figures(run)
    parts = []
    for number, (name, (words, figure)) in enumerate(found.items()):
        values = figure.to_json().replace("<", "\\u003c")  # so that nothing in it can end the script
        parts.append(f"<h2>{html.escape(name)}</h2><p>{html.escape(words)}</p><div id='chart{number}' "
                     f"style='height: {figure.layout.height}px'></div><script>(f => Plotly.newPlot('chart{number}', "
                     f" f.data, f.layout, {{responsive: true}}))({values})</script>")
    if run.search is not None:
        parts.append(f"<h2>Sub-networks of the front</h2>{_front(run.search)}")
    if run.shipped:
        parts.append(f"<h2>Exports and how they were verified</h2>{_table(shipped.HEADS, shipped.table(run.shipped))}")
    if (best := classes.most_accurate(run.subnets)) is not None:
        parts.append(f"<h2>Accuracy of each class</h2>{_table(classes.HEADS, classes.table(best[1]))}")
    page = (f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(run.name)}</title>"
            f"<style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
            f"<h1>{html.escape(run.name)}</h1>{''.join(parts)}</body></html>")
    write_text(path, page)


def write_png(run: Run, folder: Path) -> list[Path]:
    """Write each chart as a picture; raises UserError where Kaleido or the browser that it draws with is missing."""
    try:
        import kaleido
    except ImportError:
        raise UserError("--png", "needs Kaleido", "pip install 'onceforall[png]'") from None
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    out = []
    for name, (_, figure) in figures(run).items():
        out.append(folder / f"{re.sub('[^a-z0-9]+', '_', name.lower())}.png")
        try:
            size = {"width": 1080, "height": figure.layout.height, "scale": 2}
            kaleido.write_fig_sync(figure, str(out[-1]), opts=size)
        except (RuntimeError, OSError) as error:
            if isinstance(error, OSError) and known(error) and not isinstance(error, PermissionError):
                raise unwritable(out[-1], error) from None
            raise UserError("--png", f"needs Chrome or Chromium to draw with ({str(error).splitlines()[0]})",
                            "install one, as Debian's chromium") from None
    return out


def _front_words(search: Mapping[str, Any]) -> str:
    limits = ", ".join(f"{name} at most {value:,.10g}" for name, value in search["limits"].items())
    return (f"{len(search['front'])} sub-networks that no other one beats in {', '.join(search['objectives'])}"
            f"{f', with {limits}' if limits else ''}; {search['evaluations']:,} were looked at.")


def _training_words(run: Run) -> str:
    stages = "Stage by stage of progressive shrinking: each starts from the weights of the one before."
    return " ".join([stages, *(f"Training pictures: {words}." for words in run.augmentation)])


def _predictor_words(fitted: Mapping[str, Any]) -> str:
    best = fitted["errors"][fitted["regressor"]]
    return (f"Regressor {fitted['regressor']} on {best['rows']} measured sub-networks, each predicted by a fit that "
            f"had not seen it: RMSE {100 * best['rmse']:.2f} points, Kendall's tau {best['tau']:.3f}.")


def _table_words(about: Mapping[str, Any]) -> str:
    check = about["check"]
    return (f"{about['backend']} on {about['device']}, batch {about['batch']}, threads {about['threads']}. On "
            f"{check['held_out']} sub-networks that the correction was not fitted on: mean absolute error "
            f"{check['before']['mape']:.1f} % before it and {check['after']['mape']:.1f} % after, Kendall's tau "
            f"{check['after']['tau']:.3f}.")


def _front(search: Mapping[str, Any]) -> str:
    """The front as a table. Of a long one some rows that spread over it, and those measured, are shown; the others are
    folded."""
    front: Sequence[Mapping[str, Any]] = search["front"]
    others = foreign_words(front[0]["foreign"])
    heads = ["row", "predicted", "measured", *map(str, front[0]["costs"]), "pixels", *others]
    rows = _rows(front)
    shown = range(len(rows)) if len(rows) <= _WHOLE else _chosen(front, search["objectives"])
    rest = [row for i, row in enumerate(rows) if i not in shown]
    table = _table(heads, [rows[i] for i in shown])
    if not rest:
        return table
    return f"{table}<details><summary>{len(rest):,} more</summary>{_table(heads, rest)}</details>"


def _chosen(front: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> list[int]:
    """Rows of a front to show at first, by number."""
    names = [name for name in objectives if name in front[0]["costs"]] or list(front[0]["costs"])
    spread = thinned(np.array([[row["costs"][name] for name in names] for row in front]), _SHOWN)
    return sorted({*spread, *(i for i, row in enumerate(front) if row["accuracy_measured"] is not None)})


def _rows(front: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of every row. Costs are shown as whole numbers where all of the front's are, as parameters."""
    whole = {name for name in front[0]["costs"] if all(float(row["costs"][name]).is_integer() for row in front)}
    others = list(foreign_words(front[0]["foreign"]))
    return [[str(number), *charts.accuracies(row),
             *(f"{value:,.{0 if name in whole else 3}f}" for name, value in row["costs"].items()),
             str(row["resolution"]), *(foreign_words(row["foreign"]).get(name, "") for name in others)]
            for number, row in enumerate(front)]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return (f"<table><tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>"
            f"{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")
