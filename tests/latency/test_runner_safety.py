"""A runner's folder from elsewhere writes nothing outside itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from onceforall.latency.runner import RefusedError, write_numbers


@pytest.mark.parametrize("name", ["../../a.bin", "{}/a.bin", "numbers1.bin/../../a", "numbers1.bin\n", "run.py", ""])
def test_numbers_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    with pytest.raises(RefusedError, match="is no name of numbers"):
        write_numbers(folder, {name.format(tmp_path): (1.0, 4)})
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("count", [10**12, -1, 0.5, True])
def test_numbers_are_of_a_size_that_a_network_has(tmp_path: Path, count: float) -> None:
    with pytest.raises(RefusedError, match="is no number of numbers"):
        write_numbers(tmp_path, {"numbers-3.bin": (1.0, count)})
    write_numbers(tmp_path, {"numbers-3.bin": (1.0, 4)})
    assert (tmp_path / "numbers-3.bin").stat().st_size == 16
