"""Counts the statements of each room of the package: the nodes of `ast.stmt`, docstrings left out.

    python benchmarks/size.py
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src/onceforall"


def statements(path: Path) -> int:
    """Those of a file."""
    found = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.stmt)]
    return sum(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                    and isinstance(node.value.value, str)) for node in found)


def main() -> None:
    """Print a line for each room, and the sum."""
    rooms: Counter[str] = Counter()
    for path in SOURCE.rglob("*.py"):
        rooms[path.relative_to(SOURCE).parts[0]] += statements(path)
    for room, count in rooms.most_common():
        print(f"{count:6,} {room}")
    print(f"{rooms.total():6,} in all")


if __name__ == "__main__":
    main()
