"""The folders on which faults were found, as `shared/cases/make_pictures.py` makes them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from onceforall.data import DataSpec, load_data
from onceforall.data.found import Found

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "make_pictures.py"


@pytest.fixture
def found(tmp_path: Path) -> Callable[[str], Found]:
    """What is found of a case's folder."""
    if not CASES.is_file():
        pytest.skip("the folders on which faults were found (../shared/cases) are not here")
    spec = importlib.util.spec_from_file_location("make_pictures", CASES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def make(case: str) -> Found:
        module.CASES[case](tmp_path / case)
        if case == "messy":  # a class that training lacks is refused
            (tmp_path / case / "val" / "gnu" / "000.png").unlink()
            (tmp_path / case / "val" / "gnu").rmdir()
        data = load_data(DataSpec("folder", root=str(tmp_path / case)))
        assert data.found is not None
        return data.found

    return make


@pytest.mark.parametrize(("case", "train", "held_out", "test", "source"), [
    ("split-validation", [54] * 6, [6] * 6, [20] * 6, "validation/"),
    ("split-Val", [54] * 6, [6] * 6, [20] * 6, "Val/"),
    ("split-dev", [54] * 6, [6] * 6, [20] * 6, "dev/"), ("split-testing", [54] * 6, [6] * 6, [20] * 6, "testing/"),
    ("six-jfif", [54] * 6, [6] * 6, [20] * 6, "val/"), ("messy", [54] * 6, [6] * 6, [20] * 6, "val/"),
    ("no-splits", [43] * 6, [5] * 6, [12] * 6, "20 % of no-splits/"),
    ("300-against-3", [2, 270], [1, 30], [1, 30], "val/"),
])
def test_the_pictures_of_a_case(found, case: str, train: list[int], held_out: list[int], test: list[int],
                                source: str) -> None:
    splits = found(case).splits
    assert [list(split.counts) for split in splits] == [train, held_out, test]
    assert splits[2].source.startswith(source)


def test_what_is_left_out_of_a_messy_folder(found) -> None:
    assert {(row.reason, row.count, row.example) for row in found("messy").origin.left_out} == {
        ("hidden", 2, "val/.ipynb_checkpoints"), ("broken", 1, "val/ant/broken.png"),
        ("linked to nothing", 1, "val/hen"), ("ending in .txt", 1, "val/notes.txt")}
