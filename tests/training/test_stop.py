"""Stopping: SIGTERM and Ctrl-C save first; one run at a time writes into a folder."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from forked import Popen
from PIL import Image
from safetensors.torch import load_file
from small import deep as config

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.training.engine import checkpoint
from onceforall.training.engine.lock import LOCK, locked
from onceforall.training.engine.stop import Stop, Stopped


def interrupted(stop: Stop, reached: list[int], signals: int) -> None:
    with stop.deferred():
        for i in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            reached.append(i)
    stop.check()


@pytest.fixture(autouse=True)
def heeded():
    """Ctrl-C as a terminal has it, also where the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ignored_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked is None
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_at_once_or_deferred():
    with Stop() as stop:
        with pytest.raises(Stopped, match="stopped by SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
        for signals in (1, 2):
            stop.asked, reached = None, []
            with pytest.raises(Stopped, match="stopped by SIGINT"):
                interrupted(stop, reached, signals)
            assert reached == [0]  # one is noted; a second Ctrl-C does not wait
    with pytest.raises(KeyboardInterrupt):  # as it was before
        os.kill(os.getpid(), signal.SIGINT)


def command(folder: Path, configuration: Config, *more: str, **options) -> Popen:
    path = folder.parent / f"{folder.name}.json"
    configuration.write(path)
    code = ("import sys, torch; torch.set_num_threads(1); from onceforall.cli import main; "
            "main(['train', '--search', '-c', 'cpu', *sys.argv[1:]])")
    return Popen([sys.executable, "-c", code, "-f", str(path), "-o", str(folder), *more], **options)


def in_training(process: Popen, folder: Path, *, after: int = 0) -> None:
    """Until steps are logged, below so many lines."""
    deadline, log = time.monotonic() + 120, folder / "log.txt"
    while not any(" loss " in line for line in (log.read_text().splitlines() if log.exists() else ())[after:]):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_says_where_it_stands_and_goes_on(tmp_path, number):
    configuration = config(epoch=2, print_frequency=2, checkpoint_every=None)
    whole = command(tmp_path / "whole", configuration)
    run = command(tmp_path / "run", configuration)
    in_training(run, tmp_path / "run")
    began = time.monotonic()
    run.send_signal(number)
    errors = run.communicate(timeout=60)[1]
    assert time.monotonic() - began < 10
    assert run.returncode == 128 + number
    found = re.search(r"ofa: stopped in epoch (\d) after step (\d+) of 20; the same command goes on from there", errors)
    assert found is not None, errors
    assert "Traceback" not in errors
    meta = checkpoint._meta(tmp_path / "run" / checkpoint.NEWEST)
    assert (meta["epoch"] + 1, meta["step"]) == (int(found[1]), int(found[2]))
    again = command(tmp_path / "run", configuration)
    errors = again.communicate(timeout=120)[1]
    assert f"resuming {tmp_path / 'run'} at epoch {found[1]} step {int(found[2]) + 1}" in errors
    assert whole.wait(120) == 0
    assert same_end(tmp_path / "whole", tmp_path / "run")


def same_end(a: Path, b: Path) -> bool:
    one, two = (load_file(folder / checkpoint.NEWEST) for folder in (a, b))
    return one.keys() == two.keys() and all((one[name] == two[name]).all() for name in one)


@pytest.mark.slow
def test_a_signal_to_the_workers_too(tmp_path):
    """As a terminal's Ctrl-C and a scheduler's SIGTERM come: to the whole process group."""
    for split, count in (("train", 96), ("val", 8)):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(count):
                picture = Image.linear_gradient("L").resize((40 + i % 3, 40))
                picture.save(tmp_path / "data" / split / name / f"{i}.jpg")
    values = config(epoch=3, print_frequency=1, batch_size_train=16).to_dict()
    values["dataloader"] = {"folder": {"root": str(tmp_path / "data"), "workers": 2}}
    values["network"]["ofa"]["num_classes"] = 2
    folder = tmp_path / "run"
    for number in (signal.SIGTERM, signal.SIGINT):
        steps = len((folder / "log.txt").read_text().splitlines()) if folder.exists() else 0
        run = command(folder, Config.from_dict(values), start_new_session=True)
        in_training(run, folder, after=steps)
        os.killpg(run.pid, number)
        errors = run.communicate(timeout=60)[1]
        assert run.returncode == 128 + number, errors
        assert "Traceback" not in errors
        assert "the same command goes on from there" in errors
    whole = command(tmp_path / "whole", Config.from_dict(values))
    assert command(folder, Config.from_dict(values)).wait(120) == whole.wait(120) == 0
    assert same_end(folder, tmp_path / "whole")


@pytest.mark.slow
def test_two_runs_into_one_folder(tmp_path):
    configuration = config(epoch=50, print_frequency=2)
    first = command(tmp_path / "run", configuration)
    in_training(first, tmp_path / "run")
    second = command(tmp_path / "run", configuration)
    errors = second.communicate(timeout=120)[1]
    assert second.returncode == 2
    assert f"run: is being written by process {first.pid} on " in errors
    first.kill()
    first.wait()
    assert (tmp_path / "run" / LOCK).exists()
    third = command(tmp_path / "run", config(epoch=50, print_frequency=2))  # a stale lock is none
    time.sleep(0.1)
    deadline = time.monotonic() + 120
    while "resuming" not in (tmp_path / "run" / "log.txt").read_text():
        assert third.poll() is None, third.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    third.kill()
    third.wait()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with locked(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / LOCK).exists()
    assert not (tmp_path / "a" / "b").exists()
    with locked(tmp_path / "c"):
        (tmp_path / "c" / "file").touch()
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"), locked(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize("text", ["0", "-1", "ten", "nan", "inf", "0steps", "1.5steps", "steps", "1e9"])
def test_checkpoint_every_is_minutes_or_steps(text, tmp_path, capsys):
    from onceforall.cli import main
    config().write(tmp_path / "a.json")
    with pytest.raises(SystemExit) as end:
        main(["train", "-f", str(tmp_path / "a.json"), "-o", str(tmp_path / "run"), "--checkpoint-every", text])
    assert end.value.code == 2
    assert capsys.readouterr().err.strip().startswith(f"ofa: --checkpoint-every: {text!r} is neither minutes nor steps")
    assert not (tmp_path / "run").exists()
