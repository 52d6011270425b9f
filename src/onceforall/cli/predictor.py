"""`ofa predictor`: learn accuracies from measured sub-networks, and say how well."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.cli.source import Json
from onceforall.space import search_space

if TYPE_CHECKING:
    from onceforall.cost.measured import Errors

app = typer.Typer(no_args_is_help=True, help="Predict accuracies of sub-networks from measured ones.")
Rows = Annotated[Path, typer.Argument(help='measured sub-networks, a JSON object a line: {"ks", "e", "d", '
                                           '"image_size", "top1"} or {"arch", "top1"}')]
SpaceName = Annotated[str, typer.Option("--space", help="search space the rows are of")]


@app.command()
def fit(
    rows: Rows,
    output: Annotated[Path, typer.Option("-o", "--output", help="predictor to write")],
    space: SpaceName = "mobilenet_v3_large",
    seed: Annotated[int, typer.Option(help="what folds and starting weights derive from")] = 0,
    json_only: Json = False,
) -> None:
    """Fit the regressor that cross-validation finds best, on all rows, and write it."""
    from onceforall.cost.measured import read_rows
    from onceforall.cost.predictor import fit_best
    from onceforall.cost.predictor_file import save

    found = fit_best(read_rows(rows, search_space(space)), seed=seed)
    save(found.predictor, output, about={
        "regressor": found.regressor, "cross_validation": {name: asdict(e) for name, e in found.errors.items()}})
    if json_only:
        typer.echo(json.dumps({"regressor": found.regressor, **{name: asdict(e) for name, e in found.errors.items()}}))
        return
    for name, score in found.errors.items():
        typer.echo(f"{name:8s} {_line(score)}{'  (taken)' if name == found.regressor else ''}")
    typer.echo(f"{output}: fitted on {len(found.left_out)} rows")


@app.command("test")
def compare(
    predictor: Annotated[Path, typer.Argument(help="a predictor of `ofa predictor fit`, or the authors' .pth")],
    rows: Rows,
    space: SpaceName = "mobilenet_v3_large",
    json_only: Json = False,
) -> None:
    """Compare predictions with measured rows."""
    from onceforall.cost.measured import errors, read_rows
    from onceforall.cost.predictor_file import load

    model = load(predictor, space=search_space(space))
    found = read_rows(rows, model.space)
    score = errors(model.of(found.codes), found)
    typer.echo(json.dumps(asdict(score)) if json_only else _line(score))


def _line(score: Errors) -> str:
    within = ", ".join(f"{size}: {tau:.3f}" for size, tau in score.tau_within.items())
    return f"RMSE {100 * score.rmse:.3f} points, Kendall's tau {score.tau:.3f} ({within}) on {score.rows:,} rows"
