"""The measurement of threads runs, and says what docs/performance.md promises of it."""

from __future__ import annotations

import pytest
from in_turn import rows_of


@pytest.mark.slow
def test_a_row_for_each_number_of_threads_alone_and_beside():
    rows = rows_of("threads.py", "--only", "small", "--threads", "1")
    assert [(row["step"], row["threads"], row["busy_process"], row["n"]) for row in rows] == [
        ("small", 1, False, 1), ("small", 1, True, 1)]
    assert all(0 < row["least"] == row["seconds"] == row["most"] for row in rows)
