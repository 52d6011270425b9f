"""Scripts of benchmarks/ whose processes are forked, not started afresh, which takes seconds for each of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from forked import run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FORKING = """
import multiprocessing, pickle, runpy, sys
fork = multiprocessing.get_context("fork")

class Context:
    Pipe = fork.Pipe

    def Process(self, target, args, daemon):
        make, _, threads, answer = args
        pickle.dumps((target, make, threads, answer))  # as for a fresh process
        return fork.Process(target=target, args=args, daemon=daemon)

multiprocessing.get_context = lambda method: Context()
sys.argv[:] = sys.argv[1:]
sys.path.insert(0, ".")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def rows_of(*words: str) -> list[dict[str, Any]]:
    """What a script prints, given such words, for one round."""
    done = run([sys.executable, "-c", FORKING, *words, "--json", "--rounds", "1"], cwd=BENCHMARKS)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)
