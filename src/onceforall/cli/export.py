"""`ofa export`: a sub-network for another runtime, verified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from onceforall.cli.source import DataName, Json, Root
from onceforall.errors import UserError

if TYPE_CHECKING:
    from onceforall.cli.progress import Progress
    from onceforall.data import DataSet
    from onceforall.deploy.description import Export, Precision
    from onceforall.deploy.export import Request
    from onceforall.searching.front import Row


def _list(wanted: bool) -> None:
    """Print the forms, the packages that each needs, with their versions, and what brings them; then end."""
    if not wanted:
        return
    from onceforall.cli.tables import show, table
    from onceforall.deploy.targets import TARGETS

    show(table(("--to", "file", "precisions", "packages here", "what brings them"), (
        (name, f"*{target.suffix}", ", ".join(target.precisions),
         ", ".join(f"{package} {found or 'is missing'}" for package, found in target.versions().items()), target.remedy)
        for name, target in TARGETS.items())))
    raise typer.Exit


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="an extracted sub-network, as `ofa extract` writes it; "
                                           "for elastic a run")],
    to: Annotated[list[str], typer.Option(help="onnx, openvino, torch-export, executorch, litert, ncnn, given again "
                                          "for more; or elastic: many sub-networks of a run in one file")],
    fp16: Annotated[bool, typer.Option("--fp16", help="numbers of 16 bits")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="integers of 8 bits, calibrated on training pictures; weights of "
                                       "7 bits, which every processor computes exactly")] = False,
    full_range: Annotated[bool, typer.Option("--full-range", help="int8 weights of 8 bits, for processors with VNNI "
                                             "(others lose accuracy)")] = False,
    keep: Annotated[list[str] | None, typer.Option(help="a layer, block or stage that int8 leaves in float, such as "
                                                   "stages.0.0; given again, or with commas, for more")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="write nothing; show what int8 of each block alone "
                                          "loses")] = False,
    takes: Annotated[Literal["float32", "uint8"], typer.Option("--input", help="normalised images, or RGB bytes, which "
                                                               "the file normalises itself")] = "float32",
    softmax: Annotated[bool, typer.Option("--softmax", help="probabilities in place of logits")] = False,
    batch: Annotated[str | None, typer.Option(help="pictures of one inference: a number, or dynamic for any")] = None,
    data: DataName = None,
    root: Root = None,
    calibration_images: Annotated[int, typer.Option(help="training pictures that int8 is calibrated with")] = 300,
    max_loss: Annotated[float, typer.Option(help="points of top-1 that fp16 and int8 may lose")] = 1.0,
    threads: Annotated[int, typer.Option(help="of one forward pass, when latency is measured")] = 1,
    front: Annotated[Path | None, typer.Option(help="front of `ofa search` for elastic; DIR/search by default")] = None,
    rows: Annotated[int, typer.Option(min=1, help="sub-networks for elastic, spread over the front")] = 12,
    _: Annotated[bool, typer.Option("--list", is_eager=True, callback=_list, help="show the forms and what each needs, "
                                    "and do nothing else")] = False,
    json_only: Json = False,
) -> None:
    """Write files for other runtimes into DIR, each compared with torch before it is called done."""
    from onceforall.cli.progress import Progress
    from onceforall.deploy.export import Request
    from onceforall.deploy.export import export as run

    if "elastic" in to:
        others = (fp16, int8, full_range, keep, explain, softmax, takes == "uint8", batch is not None)
        if len(to) > 1 or any(others):
            raise UserError("--to", "'elastic' stands beside other targets or their options", "give it alone")
        _elastic(folder, front, rows=rows, data=data, root=root, json_only=json_only)
        return
    if front is not None:
        raise UserError("--front", f"has no effect on {to[0]}", "`ofa extract` takes a row of it")
    if fp16 and int8:
        raise UserError("--int8", "stands beside --fp16", "give one of them")
    precision: Precision = "int8" if int8 else "fp16" if fp16 else "fp32"
    kept = tuple(name.strip() for names in keep or () for name in names.split(","))
    requests = [Request(name, precision, _batch(batch), threads, calibration_images, max_loss, full_range, kept,
                        pixels=takes == "uint8", softmax=softmax) for name in to]
    for request in requests:
        request.check()
    pictures, made = _pictures(folder, data, root), {}
    if explain:
        _explain(folder, requests, pictures, json_only=json_only)
        return
    with Progress(shown=not json_only) as progress:
        for request in requests:
            made.update(run(folder, request, pictures, listener=progress.hear))
    if json_only:
        typer.echo(json.dumps({name: found.model_dump(mode="json") for name, found in made.items()}))
    else:
        verified(folder, made)


def export_again(source: Path, folder: Path, progress: Progress) -> dict[str, Export]:
    """Export a sub-network in the forms that another one was exported in, as far as it is not, and note how they
    answer."""
    from onceforall.deploy.description import read_description
    from onceforall.deploy.ends import PROBABILITIES
    from onceforall.deploy.export import Request
    from onceforall.deploy.export import export as run

    there = read_description(folder).exports
    wanted = [Request(made.target, made.precision, made.batch, made.verification.latency.threads,
                      made.calibration_images or Request.calibration_images,
                      full_range=made.int8 is not None and made.int8.form == "full-range",
                      keep=() if made.int8 is None else tuple(made.int8.keep), pixels=made.type == "uint8",
                      softmax=made.output == PROBABILITIES)
              for name, made in read_description(source).exports.items() if name not in there]
    pictures, out = _pictures(folder, None, None) if wanted else None, {}
    for request in wanted:
        out.update(run(folder, request, pictures, listener=progress.hear))
    return out


def _explain(folder: Path, requests: Sequence[Request], data: DataSet | None, *, json_only: bool) -> None:
    """Print what int8 of each block alone loses, target by target."""
    from onceforall.cli.progress import Progress
    from onceforall.cli.tables import show, table
    from onceforall.deploy.explain import explain

    found = {}
    with Progress(shown=not json_only) as progress:
        for request in requests:
            found[request.target] = explain(folder, request, data, listener=progress.hear)
    if json_only:
        typer.echo(json.dumps({target: [asdict(loss) for loss in losses] for target, losses in found.items()}))
        return
    for target, losses in found.items():
        show(table((f"block ({target})", "logits differ by", "other top-1", "points of top-1 lost"), (
            (loss.block, f"{loss.error:.1e}", f"{loss.changed:,} of {loss.images:,}", f"{loss.points:.2f}")
            for loss in losses)))
    typer.echo("each block alone in int8, the others in float; leave one in float with, for example, "
               f"--keep {next(iter(found.values()))[0].block}")


def _elastic(run: Path, front: Path | None, *, rows: int, data: str | None, root: str | None,
             json_only: bool) -> None:
    """Store the sub-networks of a front with their supernet, and print them."""
    from onceforall.cli.pictures import evaluator_of
    from onceforall.cli.progress import Progress
    from onceforall.deploy.elastic_file import ELASTIC
    from onceforall.deploy.elastic_write import spread_rows, write_elastic
    from onceforall.nn import Supernet
    from onceforall.recipes.pick import SEARCH
    from onceforall.searching.record import read_front
    from onceforall.training.evaluate import Compute
    from onceforall.weights.nets import open_weights

    trained = open_weights(run)
    if not isinstance(trained.net, Supernet):
        raise UserError(str(run), "holds a single sub-network", "give the run that it comes from")
    found, objectives = read_front(front or run / SEARCH, trained.space)
    compute = Compute()
    compute.place(trained.net)
    path = (run if run.is_dir() else run.parent) / ELASTIC
    evaluator = evaluator_of(run, trained, data=data, root=root, compute=compute)
    with Progress(shown=not json_only) as progress:
        net = write_elastic(trained.net, spread_rows(found, objectives, rows), evaluator, path,
                            listener=progress.hear)
    values = [row.to_dict(trained.space) for row in net.rows]
    if json_only:
        typer.echo(json.dumps(values))
        return
    _stored(net.rows)
    typer.echo(f"{path}: {path.stat().st_size:,} bytes; all {len(values)} answer as the extracted ones, bit for bit\n"
               f"load it with: onceforall.Elastic.load({str(run)!r})")


def _stored(rows: Sequence[Row]) -> None:
    from onceforall.cli.tables import show, table
    from onceforall.searching.front import percent, percent_predicted

    show(table(("predicted", "measured", *rows[0].costs, "arch"), ((
        percent_predicted(row.predicted), percent(row.measured),
        *(f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" for value in row.costs.values()),
        str(row.arch)) for row in rows)))


def _batch(text: str | None) -> int | None:
    if text in (None, "dynamic"):
        return None if text is None else 0
    if not str(text).isdecimal() or int(str(text)) < 1:
        raise UserError("--batch", f"{text!r} is neither dynamic nor a number of pictures", "such as --batch 1")
    return int(str(text))


def _pictures(folder: Path, data: str | None, root: str | None) -> DataSet | None:
    """The data set of the options, else the one that the description names; None where that is not at hand."""
    from onceforall.cli.pictures import evaluator_of
    from onceforall.deploy.folder import open_subnet
    from onceforall.training.evaluate import Compute
    from onceforall.weights.nets import open_weights

    open_subnet(folder)
    try:
        return evaluator_of(folder, open_weights(folder), data=data, root=root, compute=Compute()).data
    except UserError as error:
        if data is not None or root is not None:
            raise
        typer.echo(f"without pictures: {error}", err=True)
        return None


def verified(folder: Path, made: dict[str, Export]) -> None:
    """Print how the files in a sub-network's folder answer, beside torch and beside float32 in the same runtime."""
    from onceforall.cli.tables import show, table

    show(table(("file", "bytes", "logits differ by", "same top-1", "top-1 (torch)", "ms", "fp32's ms", "torch's ms"),
               (_row(name, found) for name, found in made.items())))
    times = next(iter(made.values())).verification.latency
    typer.echo(f"in {folder}; latency of {times.batch} picture{'s' * (times.batch > 1)} with {times.threads} "
               f"thread{'s' * (times.threads > 1)} on {times.device}")


def _row(name: str, made: Export) -> list[str]:
    from onceforall.deploy.card import milliseconds

    seen = made.verification
    best, times = seen.pictures or seen.random, seen.latency
    top1 = "" if seen.top1 is None else f"{100 * seen.top1:.2f} % ({100 * (seen.torch_top1 or 0):.2f} %)"
    return [name, f"{made.size:,}", f"{best.relative_error:.1e}", f"{best.same_top1:,} of {best.images:,}", top1,
            f"{times.ms:.2f}", milliseconds(times.fp32_ms), f"{times.torch_ms:.2f}"]
