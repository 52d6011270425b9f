"""What verbs print in columns. Names stay whole, however narrow the terminal is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table


def table(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows under their heads, without lines around them."""
    out = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        out.add_row(*row)
    return out


def show(*parts: str | Table) -> None:
    """Print texts and tables, one below the other."""
    console = Console(highlight=False, markup=False, soft_wrap=True, width=400)
    for part in parts:
        console.print(part)
