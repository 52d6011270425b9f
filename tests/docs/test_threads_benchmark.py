"""The measurement of threads runs, and says what docs/performance.md promises of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_row_for_each_number_of_threads_alone_and_beside():
    command = [sys.executable, "threads.py", "--json", "--only", "small", "--rounds", "1", "--threads", "1"]
    out = subprocess.run(command, cwd=BENCHMARKS, check=True, capture_output=True, text=True, timeout=120).stdout
    rows = json.loads(out)
    assert [(row["step"], row["threads"], row["busy_process"], row["n"]) for row in rows] == [
        ("small", 1, False, 1), ("small", 1, True, 1)]
    assert all(0 < row["least"] == row["seconds"] == row["most"] for row in rows)
