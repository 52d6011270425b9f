"""Ship: saved sub-networks in the form that a runtime reads, and which of them are worth shipping there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, get_args

from onceforall.data import DataSet
from onceforall.deploy.description import Precision, Verification, read_description
from onceforall.deploy.export import RejectedError, Request, export
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.errors import UserError, within
from onceforall.files import write_text
from onceforall.functions import Listener
from onceforall.nn import Supernet
from onceforall.recipes.summary import SUMMARY, read_summary, write_summary
from onceforall.searching.record import Record
from onceforall.training.evaluate import Evaluator

SHIPPED, SHIPPED_FILE = "shipped", "shipped.json"  # a folder in a search's, and the file in it


@dataclass(frozen=True)
class Shipped:
    """A sub-network in one form.

    Args:
        subnet: the name of its folder.
        file: the exported file's.
        arch: the sub-network.
        macs: multiplications and additions of one picture.
        top1: of the file, in [0, 1], on the test pictures.
        torch_top1: of torch.
        ms: milliseconds of one batch of the file.
        fp32_ms: of the same in float32; None where the file is that.
        size: bytes.
        kept: whether it answers well enough to be kept.
        front: whether no other file that is kept, of the same form, is faster and at least as accurate.
    """

    subnet: str
    file: str
    arch: str
    macs: int
    top1: float
    torch_top1: float
    ms: float
    fp32_ms: float | None
    size: int
    kept: bool
    front: bool = False


def forms(texts: Sequence[str], *, max_loss: float = Request.max_loss) -> list[Request]:
    """The forms that are asked for, as TARGET or TARGET:PRECISION.

    Raises:
        UserError: there is no such form, or its packages are missing.
    """
    out = []
    for text in texts:
        target, _, precision = text.partition(":")
        if precision not in ("", *get_args(Precision)):
            raise UserError("--ship", f"{precision!r} in {text!r} is not one of {', '.join(get_args(Precision))}",
                            "as onnx:int8")
        request = Request(target, precision or "fp32", max_loss=max_loss)  # type: ignore[arg-type]
        with within(f"--ship {text}"):
            request.check()
        if request not in out:
            out.append(request)
    return out


def ship(folders: Sequence[Path], wanted: Sequence[Request], data: DataSet, *,
         listener: Listener | None = None) -> list[Shipped]:
    """Export sub-networks, and say what they are worth as shipped. What is exported already is not exported again.

    Args:
        folders: of the sub-networks.
        wanted: the forms.
        data: its training pictures calibrate int8, and its test pictures verify.
        listener: hears of progress.

    Returns:
        A row for each sub-network and form, by ascending time; those that lose more than they may are not kept.

    Raises:
        UserError: a file cannot be written.
    """
    rows: list[Shipped] = []
    for request in wanted:
        found = [_shipped(folder, request, data, listener) for folder in folders]
        rows += [replace(row, front=row.kept and not any(_beats(other, row) for other in found)) for row in found]
    return sorted(rows, key=lambda row: row.ms)


def ship_run(run: Path, wanted: Sequence[Request], data: DataSet, *, listener: Listener | None = None) -> None:
    """Export what a finished run has saved, polished where it was, and add to its summary what that is worth.

    Args:
        run: the run's folder.
        wanted: the forms.
        data: as of `ship`.
        listener: hears of progress.

    Raises:
        UserError: a file cannot be written.
    """
    summary = read_summary(run / SUMMARY)
    saved = [row.get("polished", row)["path"] for row in (*summary["subnets"], *summary["tuned"])]
    rows = ship([run / path for path in saved], wanted, data, listener=listener)
    write_summary({**summary, "shipped": values(rows)}, run)


def ship_front(record: Record, net: Supernet, evaluator: Evaluator, source: Path, folder: Path,
               wanted: Sequence[Request], *, listener: Listener | None = None) -> list[Shipped]:
    """Save the rows of a front that were measured, export them, and write what they are worth beside the front.

    Args:
        record: the search's.
        net: the supernet.
        evaluator: on the pictures that the front was measured with.
        source: the supernet's weights.
        folder: where the search is kept.
        wanted: the forms.
        listener: hears of progress.

    Returns:
        What `ship` returns.

    Raises:
        UserError: no row was measured, or a file cannot be written.
    """
    saved = []
    if (folder / SHIPPED).is_dir():
        rmtree(folder / SHIPPED)  # of an earlier search, whose rows were others
    for number, row in enumerate(record.front):
        if row.measured is not None:
            found = Scored.of(evaluator, evaluator.subnet(net, row.arch), net.space, row.arch)
            saved.append(folder / SHIPPED / f"row-{number}")
            save_subnet(found.extracted, saved[-1], source=source)
    if not saved:
        raise UserError("--ship", "exports the rows that are measured, and there are none", "give --measure 10")
    rows = ship(saved, wanted, evaluator.data, listener=listener)
    write_text(folder / SHIPPED / SHIPPED_FILE, json.dumps(values(rows), indent=1) + "\n")
    return rows


def _shipped(folder: Path, request: Request, data: DataSet, listener: Listener | None) -> Shipped:
    about, file = read_description(folder), request.file(request.check())
    kept = True
    made = about.exports.get(file)
    if made is not None and made.verification.top1 is not None:  # without pictures it was compared on random inputs
        seen, size = made.verification, made.size
        kept = request.precision == "fp32" or 100 * (_accuracies(seen)[1] - _accuracies(seen)[0]) <= request.max_loss
    else:
        try:
            made = export(folder, request, data, listener=listener)[file]
            seen, size = made.verification, made.size
        except RejectedError as error:
            kept, seen, size = False, error.found, error.size
    return Shipped(folder.name, file, about.arch, about.macs, *_accuracies(seen), seen.latency.ms, seen.latency.fp32_ms,
                   size, kept)


def _accuracies(seen: Verification) -> tuple[float, float]:
    assert seen.top1 is not None  # there were pictures
    assert seen.torch_top1 is not None
    return seen.top1, seen.torch_top1


def _beats(other: Shipped, row: Shipped) -> bool:
    better = other.top1 >= row.top1 and other.ms <= row.ms
    return other.kept and better and (other.top1, other.ms) != (row.top1, row.ms)


def values(rows: Sequence[Shipped]) -> list[dict[str, Any]]:
    """The rows as JSON."""
    return [asdict(row) for row in rows]
