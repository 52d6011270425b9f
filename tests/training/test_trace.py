"""Profiling: a trace and a table of a few steps of a run that ends with the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import small
import torch
from few_blocks import few_blocks
from safetensors.torch import load_file
from small import config

from onceforall.interop.nnabla.settings import training_of
from onceforall.space import CATALOG
from onceforall.training import loop
from onceforall.training.engine import run as run_module
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.run import train
from onceforall.training.engine.trace import NUMBERS, PROFILE, STEPS, TABLE, TRACE, WARM_UP, profiled
from onceforall.training.evaluate import Compute
from onceforall.training.loop import PARTS, StepReport
from onceforall.training.setup import Options

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """The configurations are of few blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOG, "few_blocks", few_blocks)
        patch.setitem(small.SPACE, "space", "few_blocks")
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "K7"
    train(training_of(config(epoch=1), search=True), folder, Options())
    return folder / "weights.h5"


@pytest.fixture(scope="module")
def kernel(weights):
    """A stage with a teacher, of two sub-networks a step, which share their first blocks."""
    return config("kernel", weights=weights, teacher=weights, epoch=2, subnets_per_step=2)


@pytest.fixture(scope="module")
def plain(kernel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(training_of(kernel, search=True), folder, Options())
    return folder


@pytest.fixture(scope="module")
def heard() -> list:
    return []


@pytest.fixture(scope="module")
def run(kernel, heard, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("profiled") / "run"
    train(training_of(kernel, search=True), folder, Options(profile=True, listener=heard.append))
    return folder


def same_weights(a: Path, b: Path) -> bool:
    one, two = load_file(a / "checkpoint.safetensors"), load_file(b / "checkpoint.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_the_run_ends_with_the_same_bits(plain, run):
    assert same_weights(plain, run)
    assert {p.name for p in run.iterdir()} == {p.name for p in plain.iterdir()} | {PROFILE}
    assert {p.name for p in (run / PROFILE).iterdir()} == {TRACE, TABLE, NUMBERS}


def test_the_trace_names_the_parts(run):
    events = json.loads((run / PROFILE / TRACE).read_text())["traceEvents"]
    marks = [e["name"].removeprefix("ofa::") for e in events if e.get("cat") == "user_annotation"]
    counts = {name: marks.count(name) for name in (*PARTS, "step")}
    assert counts == {name: STEPS * times for name, times in  # forward and backward: what is shared, two sub-networks
                      {"data wait": 1, "teacher": 1, "forward": 3, "backward": 3, "reduce": 1, "optimizer": 1,
                       "step": 1}.items()}
    assert any(e["name"] == "aten::convolution" for e in events)


def test_operators_lie_in_the_parts_they_belong_to(run):
    events = [e for e in json.loads((run / PROFILE / TRACE).read_text())["traceEvents"] if e.get("ph") == "X"]

    def inside(operator: str) -> set[str]:
        spans = [(e["ts"], e["ts"] + e["dur"], e["name"]) for e in events if e["name"].startswith("ofa::")]
        times = [e["ts"] for e in events if e["name"] == operator]
        assert times
        return {name for t in times for began, ended, name in spans if began <= t <= ended} - {"ofa::step"}

    assert inside("aten::convolution") == {"ofa::teacher", "ofa::forward", "ofa::backward"}  # see nn/convolution.py
    assert inside("aten::convolution_backward") == {"ofa::backward"}
    assert inside("aten::_softmax") == {"ofa::teacher"}
    assert inside("aten::_fused_sgd_") == {"ofa::optimizer"}


def test_the_table_adds_up(run, heard):
    numbers = json.loads((run / PROFILE / NUMBERS).read_text())
    parts = numbers["parts_ms"]
    assert list(parts) == [*PARTS, "other"]
    assert (numbers["epoch"], numbers["first_step"], numbers["steps"]) == (0, WARM_UP, STEPS)
    assert all(ms >= 0 for ms in parts.values())
    assert sum(parts.values()) == pytest.approx(numbers["step_ms"])
    assert parts["other"] < 0.1 * numbers["step_ms"]
    steps = [r for r in heard if r["kind"] == "step" and r["epoch"] == 0][WARM_UP:WARM_UP + STEPS]
    mean = lambda name: 1000 * sum(r[name] for r in steps) / STEPS
    assert numbers["step_ms"] == pytest.approx(mean("seconds"), rel=0.1)
    assert parts["data wait"] == pytest.approx(mean("waited"), rel=0.2, abs=0.2)
    for name in ("teacher", "forward", "backward", "optimizer"):
        assert parts[name] > 0


def test_the_table_is_printed_and_kept(run, heard):
    text = (run / PROFILE / TABLE).read_text()
    assert text.startswith(f"profile of epoch 1, steps {WARM_UP + 1} to {WARM_UP + STEPS}, on cpu: ")
    assert [line.split("  ")[0] for line in text.splitlines()[1:]] == ["part", *PARTS, "other", "step"]
    assert text.splitlines()[-1].split()[-1] == "100.0"
    assert [r["table"] + "\n" for r in heard if r["kind"] == "profile"] == [text]


class StoppedError(Exception):
    pass


def stopped(configuration, folder: Path, options: Options, *, after: int) -> None:
    """A run that ends with an error after so many steps of its first epoch."""
    def listener(record):
        if record["kind"] == "step" and record["step"] + 1 == after:
            raise StoppedError
    with pytest.raises(StoppedError):
        train(training_of(configuration, search=True), folder, Options(listener=listener, profile=options.profile))


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_a_run_is_resumed_with_and_without(plain, kernel, tmp_path, before, after):
    often = type(kernel).from_dict({**kernel.to_dict(), "hparams": {**kernel.to_dict()["hparams"],
                                                                    "checkpoint_every": 1e-6}})
    stopped(often, tmp_path / "run", Options(profile=before), after=WARM_UP + 3)
    assert not (tmp_path / "run" / PROFILE / TRACE).exists()  # in the middle of what is profiled
    train(training_of(often, search=True), tmp_path / "run", Options(profile=after))
    assert same_weights(plain, tmp_path / "run")
    assert (tmp_path / "run" / PROFILE / TRACE).exists() == after
    if after:  # eight steps were left of the first epoch: the second one is profiled
        assert json.loads((tmp_path / "run" / PROFILE / NUMBERS).read_text())["epoch"] == 1


@pytest.mark.parametrize(("left", "first", "steps"), [(1, 0, 1), (2, 1, 1), (4, 1, 3), (6, 1, 5), (9, 4, 5),
                                                     (15, 10, 5), (40, 10, 5)])
def test_short_epochs(tmp_path, left, first, steps):
    learner = SimpleNamespace(compute=Compute(), mark=loop.unmarked)
    journal = SimpleNamespace(hear=lambda record: None)

    def reports():
        for i in range(left):
            with learner.mark("forward"):
                loss = torch.ones(3).sum()
            yield StepReport(0, i, left, 16, 0.1, loss, 64, 0.1, 0.0)

    assert [r.step for r in profiled(reports(), learner, tmp_path, left=left, journal=journal)] == list(range(left))
    numbers = json.loads((tmp_path / NUMBERS).read_text())
    assert (numbers["first_step"], numbers["steps"]) == (first, steps)
    assert learner.mark is loop.unmarked


def test_only_the_first_process_profiles(tmp_path, monkeypatch):
    """The other's part of a run, with what two processes do together taken out."""
    for name in ("wait", "follow_first", "check_alike"):
        monkeypatch.setattr(run_module, name, lambda *_: None)
    monkeypatch.setattr(run_module, "told", lambda value, _: value)
    monkeypatch.setattr(run_module, "gathered", lambda value, _: [value, value])
    monkeypatch.setattr(run_module, "summed", lambda values, _: values)
    monkeypatch.setattr(loop, "average_gradients", lambda *_: None)
    monkeypatch.setattr("onceforall.training.evaluate.summed", lambda values, _: values)
    monkeypatch.setattr(run_module, "profiled", lambda *_, **__: pytest.fail("the second process profiles"))
    train(training_of(config(epoch=1), search=True), tmp_path / "run",
          Options(profile=True, processes=Processes(1, 2, 1, 2)))
    assert not (tmp_path / "run").exists()


def test_the_command(tmp_path):
    """`ofa train --profile` prints the table, and the profiler's own lines stay away."""
    config(epoch=1).write(tmp_path / "fullnet.json")
    code = (f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
            "from few_blocks import few_blocks; from onceforall.space import CATALOG\n"
            "CATALOG['few_blocks'] = few_blocks\n"
            "from onceforall.cli import main; main(['train', '--profile', '--search', '-c', 'cpu', '-f', "
            f"{str(tmp_path / 'fullnet.json')!r}, '-o', {str(tmp_path / 'run')!r}])")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    table = (tmp_path / "run" / PROFILE / TABLE).read_text()
    assert table in done.stderr
    assert table in (tmp_path / "run" / "log.txt").read_text()
    assert not {"USDT", "ERROR", "STAGE"} & {line.partition(":")[0] for line in done.stderr.splitlines()}
