"""The options and the table of `--ship`: sub-networks as a runtime has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from onceforall.cli.tables import table
from onceforall.searching.front import percent

Ship = Annotated[list[str] | None, typer.Option("--ship", help="also export what is saved, in this form, as onnx or "
                                                "onnx:int8, and show it as shipped; given again for more")]
MaxLoss = Annotated[float, typer.Option("--max-loss", help="points of top-1 that fp16 and int8 may lose with --ship")]


def shipped_table(rows: Sequence[Mapping[str, Any]]) -> list[Table | str]:
    """The rows of `recipes.ship.Shipped` as printed: nothing where there are none."""
    if not rows:
        return []
    heads = ("sub-network", "file", "MACs", "top-1", "torch's", "ms", "fp32's ms", "bytes", "")
    return ["\nAs shipped, by time: top-1 on the test pictures\n", table(heads, map(_row, rows)),
            "front: no other file of this form is faster and as accurate; rejected: it loses more than --max-loss\n"]


def _row(row: Mapping[str, Any]) -> list[str]:
    word = "front" if row["front"] else "" if row["kept"] else "rejected"
    single = "" if row["fp32_ms"] is None else f"{row['fp32_ms']:.2f}"
    return [row["subnet"], row["file"], f"{row['macs'] / 1e6:.2f} M", percent(row["top1"]), percent(row["torch_top1"]),
            f"{row['ms']:.2f}", single, f"{row['size']:,}", word]
