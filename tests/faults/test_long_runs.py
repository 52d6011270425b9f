"""A long run holds no more memory, files or threads than a short one; small here, in full `benchmarks/long_run.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FEW_BLOCKS = f"""
import sys
sys.path[:0] = [{str(BENCHMARKS)!r}, {str(Path(__file__).parents[1])!r}]
import long_run
from few_blocks import few_blocks
from onceforall.interop.nnabla.config import Config
from onceforall.space import CATALOG
CATALOG["few_blocks"] = few_blocks
whole = long_run.config
def config(steps):
    values = whole(steps).to_dict()
    values["network"]["ofa"]["space"] = "few_blocks"
    return Config.from_dict(values)
long_run.config = config
long_run.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_steps_and_scores_leave_nothing_behind():
    """A run that leaves nothing behind takes about 20 MiB more in its first steps."""
    done = subprocess.run([sys.executable, "-c", FEW_BLOCKS, "--json", "--steps", "320", "--scores", "40",
                           "--mib", "60"], check=False,
                          capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["steps"][-1]["done"] == 320
    assert found["scores"][-1]["done"] == 40
    assert found["log_bytes"] < 30_000
