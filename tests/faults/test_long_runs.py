"""A long run holds no more memory, files or threads than a short one; small here, in full `benchmarks/long_run.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "long_run.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_steps_and_scores_leave_nothing_behind():
    done = subprocess.run([sys.executable, str(SCRIPT), "--json", "--steps", "320", "--scores", "40",
                           "--mib", "80"], check=False,
                          capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["steps"][-1]["done"] == 320
    assert found["scores"][-1]["done"] == 40
    assert found["log_bytes"] < 30_000
