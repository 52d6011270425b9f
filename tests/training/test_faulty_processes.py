"""Several processes of a run, one of which dies, or was given something else than the others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Popen
from small import deep as config

from onceforall.training.engine.output import finished

MAIN = ("import sys, torch; torch.set_num_threads(1); from onceforall.cli import main; "
        "main(['train', '--search', '-c', 'cpu', *sys.argv[1:]])")


def environment(job: Path, rank: int) -> dict[str, str]:
    return {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2",
            "TORCHELASTIC_RUN_ID": str(job), "OMP_NUM_THREADS": "1"}


def two(tmp_path: Path, *configurations: Path) -> list[Popen]:
    """A process each, into one folder."""
    return [Popen([sys.executable, "-c", MAIN, "-f", str(path), "-o", str(tmp_path / "run")],
                  env=environment(tmp_path, rank)) for rank, path in enumerate(configurations)]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "message"), [
    ({"seed": 1}, "process 1 of 2: runs something else than process 0 (settings.stage.seed differs)"),
    ({"workers": 1}, "")])
def test_another_configuration(tmp_path, change, message):
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    config(epoch=1).write(paths[0])
    values = config(epoch=1).to_dict()
    if message:
        values["hparams"] |= change
    else:
        values["dataloader"]["digits"] = change  # may differ
    type(config()).from_dict(values).write(paths[1])
    processes = two(tmp_path, *paths)
    texts = [p.communicate(timeout=120)[1] for p in processes]
    if not message:
        assert [p.returncode for p in processes] == [0, 0], texts
        return
    assert [p.returncode for p in processes] == [2, 2]
    assert all(message in text for text in texts)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_other_and_the_run_goes_on(tmp_path):
    path = tmp_path / "a.json"
    config(epoch=3, print_frequency=2, checkpoint_every_steps=2).write(path)
    processes = two(tmp_path, path, path)
    log, deadline = tmp_path / "run" / "log.txt", time.monotonic() + 120
    while "epoch 2/3 step" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes[1].kill()
    began = time.monotonic()
    errors = processes[0].communicate(timeout=60)[1]
    assert time.monotonic() - began < 30
    assert processes[0].returncode == 2
    assert "processes: process 1 of 2 has ended or hangs; what it printed says why; the same command goes" in errors
    assert "Traceback" not in errors
    again = two(tmp_path, path, path)
    texts = [p.communicate(timeout=120)[1] for p in again]
    assert [p.returncode for p in again] == [0, 0], texts
    assert "at epoch 2" in texts[0]


@pytest.mark.slow
def test_torchrun_restarts_it(tmp_path):
    path, script = tmp_path / "a.json", tmp_path / "main.py"
    config(epoch=3, print_frequency=2).write(path)
    # the number into a file: what two processes print may mingle
    script.write_text("import os, pathlib\n"
                      f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(str(os.getpid()))\n"
                      + MAIN)
    run = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2", str(script),
         "-f", str(path), "-o", str(tmp_path / "run")], text=True, stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"})
    log, deadline = tmp_path / "run" / "log.txt", time.monotonic() + 120
    while "epoch 2/3 step" not in (log.read_text() if log.exists() else ""):
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(int((tmp_path / "1").read_text()), signal.SIGKILL)
    errors = run.communicate(timeout=180)[1]
    assert run.returncode == 0, errors
    assert "at epoch 2" in log.read_text()
    assert finished(tmp_path / "run")
