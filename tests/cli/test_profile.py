"""`ofa profile`: what it prints, and one line for a mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from onceforall.cli import main
from onceforall.latency import job
from onceforall.latency.table import read_table
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.weights.nets import Trained, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(
    resolutions=[16, 20], kernel=[3, 5], expand=[3], depth=[2, 3])


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a small space, timed briefly."""
    monkeypatch.setattr(job.Settings.__init__, "__defaults__", ("onnxruntime", "auto", 1, 1, 40, 0, 5, 2, 0.001))
    folder = tmp_path / "run"
    folder.mkdir()
    save(Trained(Supernet(SPACE, 7, generator=torch.Generator()), SPACE), folder / "weights.h5")
    return folder


def ofa(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["profile", *arguments])
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


@pytest.mark.slow
def test_a_run_is_profiled(capsys, run, tmp_path):
    output = tmp_path / "out" / "table.json"
    code, out, err = ofa(capsys, str(run), "--resolutions", "16", "--rounds", "1", "-o", str(output))
    assert code == 0, err
    assert "26 parts and 40 sub-networks, 1 round: about 1 min" in err
    assert "66/66 timings" in err
    lines = out.splitlines()
    assert lines[0].startswith("onnxruntime ") and "1 thread, batch 1: 26 parts, 40 sub-networks" in lines[0]
    assert lines[2:] == ["on the other 20:  mean absolute error, Kendall's tau", *lines[3:5], f"{output}: written"]
    table = read_table(output)
    assert (table.about["classes"], table.about["space"]) == (7, SPACE.restrict(resolutions=[16]).to_dict())
    code, out, err = ofa(capsys, str(run), "--resolutions", "16", "--rounds", "1", "-o", str(output), "--json")
    assert (code, err) == (0, "")
    values = json.loads(out)
    assert list(values) == ["output", "about", "scale", "offset_ms", "timings"]
    assert values["about"]["check"]["after"].keys() == {"mape", "tau"}


@pytest.mark.slow
def test_the_tutorial_shows_what_is_printed(capsys, run, tmp_path):
    def form(line: str) -> str:
        return re.sub(r" +", " ", re.sub(r"[+-]?[0-9][0-9.]*", "#", re.sub(r" on .*, 1 thread", "", line)))
    code, out, _ = ofa(capsys, str(run), "--rounds", "1", "-o", str(tmp_path / "cpu.json"))
    assert code == 0
    text = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
    shown = text.partition("```text\nonnxruntime")[2].partition("\n```")[0]
    assert [form(line) for line in f"onnxruntime{shown}".splitlines()] == [
        form(line.replace(f"{tmp_path}/", "")) for line in out.splitlines()]


@pytest.mark.slow
def test_csv_says_what_is_lost(capsys, run, tmp_path):
    code, out, _ = ofa(capsys, str(run), "--rounds", "1", "--resolutions", "20", "-o", str(tmp_path / "t.csv"))
    assert code == 0
    assert "correction and description are lost" in out.splitlines()[-1]
    assert len(read_table(tmp_path / "t.csv").timings) == 26


def test_a_runner_is_written(capsys, run, tmp_path):
    code, out, _ = ofa(capsys, str(run), "--runner", str(tmp_path / "phone"))
    assert code == 0
    assert "python phone/run.py -o table.json" in out
    assert {path.name for path in (tmp_path / "phone").iterdir()} == {"graphs", "job.json", "run.py"}


def test_what_is_measured_stays_after_a_stop(capsys, run, tmp_path, monkeypatch):
    from onceforall.latency import runner
    visits = []

    def visit(*arguments: object) -> tuple[float, float, int]:
        visits.append(arguments)
        if len(visits) == 10:
            raise KeyboardInterrupt
        return 1.0 + len(visits) / 10, 0.0, 1
    monkeypatch.setattr(runner, "visit", visit)
    arguments = [str(run), "--rounds", "1", "-o", str(tmp_path / "t.json")]
    code, _, err = ofa(capsys, *arguments)
    assert code == 130
    assert err.splitlines()[-1] == "ofa: stopped"
    code, _, err = ofa(capsys, *arguments)
    assert code == 0
    assert "9 of 90 timings are there" in err
    assert len(visits) == 90 + 1


@pytest.mark.parametrize(("arguments", "message"), [
    (["mobilenet_v3_large", "-o", "t.json", "--backend", "tflite"], "--backend: 'tflite' is not one of onnxruntime,"),
    (["mobilenet_v3_large", "-o", "t.json", "--threads", "0"], "--threads: 0 is below 1"),
    (["mobilenet_v3_large", "-o", "t.json", "--subnets", "10"], "--subnets: 10 is below 30"),
    (["mobilenet_v3_large", "-o", "t.json", "--device", "cuda"], "--device: onnxruntime is timed on the CPU"),
    (["mobilenet_v3_large", "-o", "t.json", "--resolutions", "160,161"], "resolutions: 161 is not one of 128, 132"),
    (["mobilenet_v3_large", "-o", "t.json", "--resolutions", "160;192"], "--resolutions: '160;192' is not a list"),
    (["mobilenet_v3_large", "-o", "t.json", "--classes", "0"], "--classes: 0 is below 1"),
    (["mobilenet_v3_large", "-o", "t.txt"], "--output: t.txt ends neither in .json nor in .csv"),
    (["mobilenet_v3_large"], "--output: is missing; give -o TABLE.json, or --runner DIR"),
    (["mobilenet_v3_large", "-o", "t.json", "--runner", "d"], "--output: stands beside --runner"),
    (["mobilenet_v3_large", "--runner", "d", "--backend", "torch"], "--runner: torch does not run there"),
    (["mobilenet_v4", "-o", "t.json"], "mobilenet_v4: is neither a run folder nor a weights file"),
])
def test_a_mistake_is_one_line(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = ofa(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_classes_stand_beside_a_run(capsys, run, tmp_path):
    code, _, err = ofa(capsys, str(run), "--classes", "8", "-o", str(tmp_path / "t.json"))
    assert code == 2
    assert "--classes: 8 stands beside" in err and "which has 7" in err
