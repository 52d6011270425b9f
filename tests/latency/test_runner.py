"""The runner alone: timing, correction, what is kept of a stopped run, the script on a device."""

from __future__ import annotations

import ast
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from onceforall.latency import runner
from onceforall.latency.job import Job, Settings
from onceforall.latency.measure import make_runner
from onceforall.latency.table import latency, read_table
from onceforall.space import Arch, search_space

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(
    resolutions=[16], kernel=[3, 5], expand=[3], depth=[2, 3])
QUICK = Settings(subnets=30, rounds=2, runs=2, seconds=0.001)
ABOUT = {"device": "x", "threads": 1, "clock": "wall", "versions": {"onnxruntime": "1"}}


def job(**changes) -> dict:
    parts = [{"key": f"p{i}", "name": f"part {i}"} for i in range(12)]
    rng = random.Random(0)
    subnets = [{"key": f"s{i}", "arch": str(i), "held_out": i % 2 == 1,
                "parts": rng.sample([p["key"] for p in parts], 4 + i % 7)} for i in range(30)]
    about = {"backend": "onnxruntime", "batch": 1, "seed": 0, "versions": {"onceforall": "1"},
             "repetitions": {"rounds": 2, "runs": 2, "seconds": 0.0}}
    return {"about": {**about, **changes}, "parts": parts, "subnets": subnets}


class Device:
    """A machine whose clock is a table; it counts what it is asked to time, and can stop."""

    def __init__(self, monkeypatch, values: dict, *, stop_after: int = 10 ** 6) -> None:
        self.ms = {part["key"]: 1.0 + i ** 1.3 for i, part in enumerate(values["parts"])}
        for subnet in values["subnets"]:
            self.ms[subnet["key"]] = 3.0 + 0.7 * sum(self.ms[key] for key in subnet["parts"])
        self.now, self.visited, self._stop_after = 0.0, [], stop_after
        monkeypatch.setattr(runner.time, "perf_counter", lambda: self.now)

    def open_case(self, key: str):
        def run() -> None:
            if not self.visited or self.visited[-1] != key:
                self.visited.append(key)
            if len(self.visited) > self._stop_after:
                raise KeyboardInterrupt
            self.now += self.ms[key] / 1e3
        return run


def nothing(record) -> None:
    pass


def test_correction_takes_a_bias_away(monkeypatch, tmp_path):
    values = job()
    found = runner.measure(values, Device(monkeypatch, values).open_case, ABOUT, tmp_path / "partial", nothing)
    assert (found["scale"], found["offset_ms"]) == pytest.approx((0.7, 3.0))
    check = found["about"]["check"]
    assert (check["fitted"], check["held_out"]) == (15, 15)
    assert check["before"]["mape"] > 5
    assert check["after"]["mape"] < 1e-6
    assert check["after"]["tau"] == pytest.approx(1)
    assert [row["ms"] for row in found["timings"]] == pytest.approx([1.0 + i ** 1.3 for i in range(12)])
    assert {(row["resolution"], row["n"]) for row in found["timings"]} == {(None, 4)}
    assert found["about"]["versions"] == {"onceforall": "1", "onnxruntime": "1"}


def test_the_fit_sees_relative_errors_and_not_what_is_held_out(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    sums = rng.uniform(1, 100, 400)
    whole = (2 + 1.3 * sums) * rng.normal(1, 0.03, 400)
    scale, offset = runner.correction(sums, whole)
    assert (scale, offset) == (pytest.approx(1.3, rel=0.02), pytest.approx(2, rel=0.1))
    values = job()
    device = Device(monkeypatch, values)
    for subnet in values["subnets"]:
        device.ms[subnet["key"]] *= 2 if subnet["held_out"] else 1
    found = runner.measure(values, device.open_case, ABOUT, tmp_path / "partial", nothing)
    assert (found["scale"], found["offset_ms"]) == pytest.approx((0.7, 3.0))
    assert found["about"]["check"]["after"]["mape"] == pytest.approx(50)


def test_correction_of_noise_is_still_one():
    scale, offset = runner.correction(np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.2, 0.1]))
    assert offset == 0
    assert scale == pytest.approx((1 / 0.3 + 2 / 0.2 + 3 / 0.1) / ((1 / 0.3) ** 2 + (2 / 0.2) ** 2 + (3 / 0.1) ** 2))


def test_agreement_is_the_usual_one():
    rng = np.random.default_rng(0)
    a, b = rng.integers(1, 9, 50).astype(float), rng.integers(1, 9, 50).astype(float)  # with ties
    found = runner.agreement(a, b)
    assert found["tau"] == pytest.approx(kendalltau(a, b).statistic)
    assert found["mape"] == pytest.approx(100 * np.mean(abs(a - b) / b))
    assert runner.agreement(np.ones(3), np.ones(3))["tau"] == 0


@pytest.mark.parametrize("clock", ["wall", "processor"])
def test_the_median_run_counts_and_the_others_are_its_spread(monkeypatch, clock):
    times, wall, own = iter([1.0, 5.0, 2.0, 9.0, 3.0]), [0.0], [0.0]
    monkeypatch.setattr(runner.time, "perf_counter", lambda: wall[0])
    monkeypatch.setattr(runner.time, "process_time", lambda: own[0])

    def run() -> None:
        ms = next(times)
        wall[0] += (ms if clock == "wall" else 100) / 1e3  # another program has the processor
        own[0] += ms / 1e3
    ms, spread, n = runner.visit(run, {"runs": 4, "seconds": 0.0}, clock)  # the first is warm-up
    assert (ms, n) == (pytest.approx(4.0), 4)
    assert spread == pytest.approx(np.subtract(*np.percentile([5, 2, 9, 3], [75, 25])))


def test_a_round_that_was_disturbed_does_not_count(monkeypatch, tmp_path):
    values = job(repetitions={"rounds": 3, "runs": 2, "seconds": 0.0})
    device = Device(monkeypatch, values)
    calm = dict(device.ms)

    def hear(record) -> None:
        factor = 3 if 0 < record["done"] < 42 else 1
        device.ms.update({key: factor * ms for key, ms in calm.items()})
    found = runner.measure(values, device.open_case, ABOUT, tmp_path / "partial", hear)
    assert [row["ms"] for row in found["timings"]] == pytest.approx([1.0 + i ** 1.3 for i in range(12)])
    assert found["about"]["check"]["after"]["mape"] < 1e-6


def test_runs_go_on_until_both_number_and_time_are_reached(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(runner.time, "perf_counter", lambda: clock[0])

    def run() -> None:
        clock[0] += 0.001
    assert runner.visit(run, {"runs": 30, "seconds": 0.01}, "wall")[2] == 30
    assert runner.visit(run, {"runs": 3, "seconds": 0.01}, "wall")[2] in (10, 11)


def test_what_other_programs_take_counts_only_where_there_are_threads():
    assert runner.machine(1)["clock"] == "processor"
    assert runner.machine(2)["clock"] == "wall"


@pytest.mark.parametrize("stop", [1, 7, 50, 83])
def test_a_stopped_run_goes_on(monkeypatch, tmp_path, stop):
    values, partial = job(), tmp_path / "partial"
    stopped = Device(monkeypatch, values, stop_after=stop)
    with pytest.raises(KeyboardInterrupt):
        runner.measure(values, stopped.open_case, ABOUT, partial, nothing)
    kept = len(partial.read_text().splitlines()) - 1
    assert kept == max(0, stop - 1)  # the first is the estimate's, and no case is visited twice in a row
    with partial.open("a") as file:
        file.write('[1, "p')  # torn by the stop
    device, records = Device(monkeypatch, values), []
    found = runner.measure(values, device.open_case, ABOUT, partial, records.append)
    assert len(device.visited) - 1 == 84 - kept
    assert records[0]["done"] == kept
    assert (records[-1]["done"], records[-1]["of"]) == (84, 84)
    assert (found["scale"], found["offset_ms"]) == pytest.approx((0.7, 3.0))
    again = Device(monkeypatch, values)
    assert runner.measure(values, again.open_case, ABOUT, partial, nothing)["timings"] == found["timings"]
    assert not again.visited


def test_rounds_have_orders_of_their_own(monkeypatch, tmp_path):
    values = job()
    device = Device(monkeypatch, values)
    runner.measure(values, device.open_case, ABOUT, tmp_path / "partial", nothing)
    first, second = device.visited[1:43], device.visited[43:]
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize(("change", "message"), [
    ({"threads": 2}, "holds timings of other settings: threads;"),
    ({"device": "y", "versions": {"onnxruntime": "2"}}, "other settings: versions, device;"),
])
def test_timings_of_other_settings_are_refused(monkeypatch, tmp_path, change, message):
    values = job()
    partial = tmp_path / "partial"
    runner.measure(values, Device(monkeypatch, values).open_case, ABOUT, partial, nothing)
    before = partial.read_bytes()
    with pytest.raises(runner.RefusedError, match=message):
        runner.measure(values, Device(monkeypatch, values).open_case, {**ABOUT, **change}, partial, nothing)
    values["subnets"].pop()
    with pytest.raises(runner.RefusedError, match="other settings: subnets, cases"):
        runner.measure(values, Device(monkeypatch, values).open_case, ABOUT, partial, nothing)
    assert partial.read_bytes() == before


@pytest.mark.parametrize("damage", ["[]\n", "{}\n", "\n\n", "{header}[0]\n", "{header}[0, 1, 2, 3\n",
                                    '{header}[0, "p0", "a", 1, 1]\n', "\x00\x01\n", '{header}[0, "p0", NaN, 0, 1]\n'])
def test_a_damaged_file_is_refused(monkeypatch, tmp_path, damage):
    values, partial = job(), tmp_path / "partial"
    runner.measure(values, Device(monkeypatch, values).open_case, ABOUT, partial, nothing)
    partial.write_text(damage.replace("{header}", partial.read_text().splitlines(keepends=True)[0]))
    with pytest.raises(runner.RefusedError, match="is damaged") as error:
        runner.measure(values, Device(monkeypatch, values).open_case, ABOUT, partial, nothing)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runner") / "phone"
    make_runner(Job(SPACE, 10, QUICK), path)
    return path


def on_device(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-I", str(folder / "run.py"), *arguments], check=False, text=True,
                          capture_output=True, cwd=folder.parent)


def test_the_folder_is_enough_on_a_device(folder, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert sum(path.stat().st_size for path in moved.rglob("*")) < 1_000_000
    result = on_device(moved, "-o", str(tmp_path / "out" / "table.json"), "--threads", "2")
    assert result.returncode == 0, result.stderr
    assert "on the other 15:  mean absolute error, Kendall's tau" in result.stdout
    assert "26 parts and 30 sub-networks, 2 rounds" in result.stderr
    table = read_table(tmp_path / "out" / "table.json")
    about = table.about
    assert (about["backend"], about["threads"], about["check"]["held_out"]) == ("onnxruntime", 2, 15)
    assert {"python", "numpy", "onnxruntime", "onceforall"} == about["versions"].keys()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["table.json"]
    costs = table.of(SPACE, num_classes=10)
    for row in about["subnets"]:
        arch = Arch.parse(SPACE, row["arch"])
        ms = latency(SPACE, arch, table, num_classes=10)
        assert ms == pytest.approx(table.offset_ms + table.scale * row["sum_ms"])
        assert costs.of(np.array([SPACE.encode(arch)]))[0] == pytest.approx(ms)


@pytest.mark.parametrize(("arguments", "message"), [
    (["-o", "table.csv"], "run.py: --output: table.csv is no name in .json"),
    (["-o", "table.json", "--threads", "0"], "run.py: --threads: 0 is below 1"),
    (["-o", "phone/run.py/table.json"], "run.py: "),
])
def test_mistakes_on_a_device_are_one_line(folder, arguments, message):
    result = on_device(folder, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1


def test_the_runner_stands_alone_on_python_3_8():
    text = Path(runner.__file__).read_text()
    tree = ast.parse(text, feature_version=(3, 8))
    names = {name for node in ast.walk(tree) for name in (
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else
        [node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"__future__"} == {"numpy"}
    assert json.dumps(job())  # what it takes is JSON


def test_the_weights_alone(tmp_path):
    pytest.importorskip("onnx")
    make_runner(Job(SPACE, 10, QUICK), tmp_path / "phone")
    done = subprocess.run([sys.executable, str(tmp_path / "phone" / "run.py"), "--draw"], check=False,
                          capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = json.loads((tmp_path / "phone" / "job.json").read_text())["numbers"]
    assert files
    for name, (_, count) in files.items():
        assert (tmp_path / "phone" / "graphs" / name).stat().st_size == 4 * count
