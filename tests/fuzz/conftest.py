"""Counts what became of the cases of the fuzz."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onceforall.space import UserError

sys.path.insert(0, str(Path(__file__).parent))
COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="session")
def outcome() -> Callable[[Callable[[], Any]], Any]:
    """Runs a case: its value, or None for one that is refused in one line. Anything else that it raises is a bug."""
    def run(case: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        try:
            value = case()
            COUNTS["accepted"] += 1
            refusal = None
        except UserError as error:
            COUNTS["refused"] += 1
            value, refusal = None, error
        except BaseException:
            COUNTS["failed"] += 1
            raise
        COUNTS["slow"] += time.perf_counter() - began > 10
        assert refusal is None or (refusal.place and refusal.problem and "\n" not in str(refusal))
        return value
    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if COUNTS:
        cases = COUNTS["accepted"] + COUNTS["refused"] + COUNTS["failed"]
        terminalreporter.write_line(
            f"fuzz: {cases:,} cases, {COUNTS['accepted']:,} accepted, {COUNTS['refused']:,} refused, "
            f"{COUNTS['failed']} with another error, {COUNTS['slow']} over 10 s")
