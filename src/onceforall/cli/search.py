"""`ofa search`: the Pareto front of a trained supernet, or of a space with a predictor and tables."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.cli.latency import tables_of
from onceforall.cli.running import Threads, compute_of
from onceforall.cli.shipped import MaxLoss, Ship, shipped_table
from onceforall.cli.source import DataName, Device, Json, Root, SpaceName, Workers, is_space, sizes_of
from onceforall.errors import UserError
from onceforall.space import search_space
from onceforall.space.arch import foreign_words

if TYPE_CHECKING:
    from onceforall.cli.pictures import Asked
    from onceforall.cli.progress import Progress
    from onceforall.deploy.export import Request as Export
    from onceforall.latency.table import LatencyTable
    from onceforall.recipes.ship import Shipped
    from onceforall.searching.record import Record
    from onceforall.searching.search import Request

_SHOWN = 12
_SUFFIXES = {"k": 1e3, "M": 1e6, "G": 1e9}


def search(
    source: Annotated[str, typer.Argument(help="a run, a supernet's weights file, or a search space's name")],
    table: Annotated[list[str] | None, typer.Option(help="latency table; of several devices NAME=FILE")] = None,
    predictor: Annotated[Path | None, typer.Option(help="accuracy predictor; learned anew where none is given")] = None,
    collect: Annotated[int | None, typer.Option(help="sub-networks to measure and learn from, spread over the cost; "
                                                "100 by default")] = None,
    refine: Annotated[int, typer.Option(help="times to measure some of the front, learn, and search again")] = 2,
    max_latency_ms: Annotated[list[str] | None, typer.Option(help="limit; of several tables NAME=MS")] = None,
    max_macs: Annotated[str | None, typer.Option(help="limit on MACs, as 300M")] = None,
    max_params: Annotated[str | None, typer.Option(help="limit on parameters, as 5M")] = None,
    max_memory: Annotated[str | None, typer.Option(help="limit on peak activation memory in bytes, as 1M")] = None,
    objective: Annotated[str | None, typer.Option(help="two or more of accuracy,latency_ms,macs,params,memory")] = None,
    resolutions: Annotated[str | None, typer.Option(help="input sizes to search, as 160,176")] = None,
    measure: Annotated[int, typer.Option(min=0, help="rows of the front to measure on the test pictures")] = 10,
    population: Annotated[int, typer.Option(min=2, help="sub-networks that live on")] = 1000,
    generations: Annotated[int, typer.Option(min=1, help="times they have children")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="what everything random derives from")] = 0,
    ship: Ship = None,
    max_loss: MaxLoss = 1.0,
    baseline: Annotated[bool, typer.Option(help="also run random search at as many evaluations")] = False,
    space: SpaceName = None,
    data: DataName = None,
    root: Root = None,
    device: Device = "auto",
    workers: Workers = None,
    threads: Threads = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="folder to write; RUN/search for a run")] = None,
    json_only: Json = False,
) -> None:
    """Find the sub-networks that no other one beats in accuracy and cost, within limits, without training."""
    from onceforall.cli.pictures import Asked
    from onceforall.cli.progress import Progress
    from onceforall.searching.evolution import Evolution
    from onceforall.searching.search import Request
    from onceforall.searching.search import search as run
    from onceforall.searching.study import Plan

    if collect is not None and (predictor is not None or is_space(source)):
        raise UserError("--collect", "has nothing to measure" if predictor is None else "stands beside --predictor",
                        "give a trained supernet and no predictor, or leave it out")
    tables = tables_of(table or [], "--table")
    limits = _limits(max_latency_ms or [], tables, macs=max_macs, params=max_params, memory=max_memory)
    plan = Plan(100 if collect is None else collect, refine)
    objectives = tuple(name.strip() for name in objective.split(",")) if objective else ()
    request = Request(objectives, limits, sizes_of(resolutions) if resolutions else (), tables, predictor,
                      Evolution(population, generations, seed=seed), plan, measure, baseline)
    output = _folder(source, output)
    wanted = _forms(source, ship or (), max_loss, measure)
    shipped: list[Shipped] = []
    with Progress(shown=not json_only) as progress:
        if output is None or is_space(source):
            record: Record | None = run(search_space(source), request, listener=progress.hear)
            if record is not None and output is not None:
                record.write(output)
        else:
            record, shipped = _trained(Asked(source, space, data, root, device, workers, threads), request, output,
                                       wanted, progress)
    if record is None:
        return
    if json_only:
        values = record.to_dict() | {"shipped": [asdict(row) for row in shipped]}
        typer.echo(json.dumps({name: values[name] for name in (
            "space", "objectives", "limits", "front", "evaluations", "seconds", "baseline", "shipped")}))
    else:
        _show(record, shipped, source, output)


def _forms(source: str, ship: Sequence[str], max_loss: float, measure: int) -> list[Export]:
    """What is exported in the end."""
    if ship and not measure:
        raise UserError("--ship", "exports the rows that are measured, and --measure is 0", "give --measure 10")
    if ship and is_space(source):
        raise UserError("--ship", f"needs trained weights, and {source} is a search space", "give a run")
    if not ship:
        return []
    from onceforall.recipes.ship import forms

    return forms(ship, max_loss=max_loss)


def _folder(source: str, output: Path | None) -> Path | None:
    """The folder to write; None for a space without one. Raises UserError where it cannot be written."""
    from onceforall.searching.record import check_folder

    if output is None and not is_space(source):
        if Path(source).is_file():
            raise UserError("-o", "is missing", "name the folder where measured sub-networks are to be kept")
        output = Path(source) / "search"
    if output is not None:
        check_folder(output)
    return output


def _trained(what: Asked, request: Request, folder: Path, wanted: Sequence[Export],
             progress: Progress) -> tuple[Record | None, list[Shipped]]:
    """Search a trained supernet, and ship what was measured; None in processes other than the first, which only measure
    for it."""
    from onceforall.cli.pictures import evaluator_of, show_found
    from onceforall.nn import Supernet
    from onceforall.recipes.ship import ship_front
    from onceforall.searching.score import Scorer, shared
    from onceforall.searching.search import search as run
    from onceforall.training.engine.distributed import detect, joined
    from onceforall.weights.nets import open_weights, weights_file

    processes = detect(os.environ)
    compute = compute_of(what.device, 0, "float", processes, threads=what.threads)
    trained = open_weights(what.source, space=what.space)
    if not isinstance(trained.net, Supernet):
        raise UserError(what.source, "holds a single sub-network: there is nothing to search", "give a supernet")
    evaluator = evaluator_of(Path(what.source), trained, data=what.data, root=what.root, compute=compute,
                             workers=what.workers)
    if processes.first:
        show_found(evaluator.data)
    compute.place(trained.net)
    with joined(processes, compute.device):
        scorer = Scorer(trained.net, evaluator, folder, processes=processes, listener=progress.hear)
        with shared(scorer) as first:
            if not first:
                return None, []
            record = run(trained.space, request, num_classes=trained.num_classes, scorer=scorer,
                         listener=progress.hear)
    record.write(folder)
    return record, ship_front(record, trained.net, evaluator, weights_file(Path(what.source)), folder, wanted,
                              listener=progress.hear) if wanted else []


def _limits(latencies: Sequence[str], tables: Mapping[str, LatencyTable],
            **others: str | None) -> dict[str, float]:
    """The limits, by the name of the cost."""
    out: dict[str, float] = {}
    for text in latencies:
        name, _, value = text.rpartition("=")
        if (name or len(tables) > 1) and name not in tables:
            raise UserError("--max-latency-ms", f"{text!r} does not say for which table",
                            f"known: {', '.join(tables) or 'none, give --table'}")
        key = f"latency_ms.{name}" if len(tables) > 1 else "latency_ms"
        if key in out:
            raise UserError("--max-latency-ms", f"{text!r} is a second limit on the same latency", "give one")
        out[key] = _amount("--max-latency-ms", value)
    return out | {name: _amount(f"--max-{name}", text) for name, text in others.items() if text is not None}


def _amount(option: str, text: str) -> float:
    """A number, which may end in k, M or G."""
    try:
        value = float(text[:-1]) * _SUFFIXES[text[-1]] if text[-1:] in _SUFFIXES else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UserError(option, f"{text!r} is not a number above 0", "as 20, 300k, 5M or 1.2G")
    return value


def _show(record: Record, shipped: Sequence[Shipped], source: str, folder: Path | None) -> None:
    """Print the front, as predicted and as shipped, and the commands to go on with."""
    from onceforall.cli.tables import show, table
    from onceforall.searching.front import percent, percent_predicted, spread_over

    names, measured = list(record.front[0].costs), [i for i, row in enumerate(record.front) if row.measured is not None]
    shown = measured or spread_over(record.front, record.objectives, _SHOWN)
    heads = ("row", "predicted", *(["measured"] if measured else []), *map(_head, names), "pixels",
             *foreign_words(record.front[0].arch.foreign(record.space)))
    rows = []
    for i in shown:
        row = record.front[i]
        rows.append((str(i), percent_predicted(row.predicted), *([percent(row.measured)] if measured else []),
                     *(_cost(name, row.costs[name]) for name in names), str(row.arch.resolution),
                     *foreign_words(row.arch.foreign(record.space)).values()))
    show(f"\n{len(shown)} of the {len(record.front)} sub-networks of the front of "
         f"{', '.join(record.objectives)}; {record.evaluations:,} looked at in {record.seconds:.1f} s\n",
         table(heads, rows))
    if record.fitted is not None:
        errors = record.fitted.errors[record.fitted.regressor]
        show(f"\npredictor: {record.fitted.regressor}, on {errors.rows} measured sub-networks; "
             f"cross-validated RMSE {100 * errors.rmse:.2f} points, Kendall's tau {errors.tau:.3f}")
    show(*shipped_table([asdict(row) for row in shipped]))
    if folder is not None:
        words = shlex.join([source, "--front", str(folder), "--row", str(shown[len(shown) // 2])])
        extract = f"\n  ofa extract {words} -o subnet" if not is_space(source) else ""
        show(f"\nNext:{extract}\n  ofa inspect {words}\n")


def _head(name: str) -> str:
    return {"macs": "MACs", "params": "parameters", "memory": "memory"}.get(name, name.replace("_ms", " ms"))


def _cost(name: str, value: float) -> str:
    if name in ("macs", "params"):
        return f"{value / 1e6:.2f} M"
    return f"{value / 1e3:,.0f} kB" if name == "memory" else f"{value:.2f}"
