"""docs/dependencies.md has a row for every dependency, with the version that pyproject.toml asks for at least."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def requirements() -> list[str]:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]


def test_every_dependency_has_a_lower_bound_and_its_row() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = {cells[1]: cells for line in page.splitlines() if len(cells := [c.strip() for c in line.split("|")]) == 7}
    for requirement in requirements():
        name, bound = re.match(r"([\w-]+)(?:\[[\w,]+\])?(?:[>=]=([\w.]+))?", requirement).groups()
        assert name in rows, f"{requirement} has no row"
        if name != "onceforall":
            assert bound, f"{requirement} has no lower bound"
            assert bound in re.split(r"[ ()]", rows[name][3]), f"{requirement}: its row says {rows[name][3]}"
        assert all(rows[name][2:5]), f"{requirement}: its row has empty cells"


def test_no_row_is_of_something_else() -> None:
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements()}
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w-]+) \|", page, re.MULTILINE)
    assert set(rows) - {"package"} == names
