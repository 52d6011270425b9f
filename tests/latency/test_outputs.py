"""What benchmark tools print, read as timings; those that are here are run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onceforall.cli import main
from onceforall.errors import UserError
from onceforall.latency import runner
from onceforall.latency.job import Job, Settings
from onceforall.latency.measure import imported, make_runner
from onceforall.latency.outputs import read_output, read_outputs
from onceforall.latency.table import Timing, read_table
from onceforall.space import Layer, search_space

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(
    resolutions=[16], kernel=[3, 5], expand=[3], depth=[2, 3])
JOB = Job(SPACE, 10, Settings(subnets=30))
APP = """[ INFO ] Count:            {n} iterations
[ INFO ] Duration:         1000.17 ms
[ INFO ] Latency:
[ INFO ]    Median:        {us:.2f} us
[ INFO ]    Average:       885.46 us
"""


@pytest.mark.parametrize(("text", "tool", "timing"), [
    (APP.format(n=1054, us=808.18), "benchmark_app", Timing(0.80818, 0.0, 1054)),
    ("[ INFO ]    Median:        2.50 ms", "benchmark_app", Timing(2.5, 0.0, 1)),
    ("Inference (avg):       1.27 ms (50 runs)\nInference (median):    1.21 ms\nInference (p5):        1.14 ms\n"
     "Inference (p95):       1.69 ms\n", "litert-benchmark", Timing(1.21, 0.55 * 1.35 / 3.29, 50)),
    ("count=8 first=9000 curr=8000 min=7000 max=9000 avg=8000 std=20\n\nRunning benchmark for at least 50 iterations\n"
     "INFO: count=50 first=1249 curr=1240 min=1238 max=1252 avg=1.24e+03 std=5 p5=1200 median=1239 p95=1300\n",
     "benchmark_model", Timing(1.239, 0.1 * 1.35 / 3.29, 50)),
    ("count=50 first=37 curr=37 min=36 max=39 avg=37.2 std=1\nInference timings in us: Init: 4521, First inference: "
     "38234, Warmup (avg): 37856, Inference (avg): 3.7234e+04", "benchmark_model (mean)", Timing(37.234, 0.0, 50)),
    ("Total inference requests: 20\nAverage inference time cost total: 236.2 ms\nP50 Latency: 0.134472 s",
     "onnxruntime_perf_test (P50)", Timing(134.472, 0.0, 20)),
    ("Total inference requests: 10\nAverage inference time cost total: 7.270205 ms\n", "onnxruntime_perf_test",
     Timing(7.270205, 0.0, 10)),
    ("loop_count = 4\n          part_0001  min =    1.20  max =    1.45  avg =    1.33\n", "benchncnn",
     Timing(1.33, 0.0, 1)),
])
def test_what_each_tool_prints(text, tool, timing, tmp_path):
    (tmp_path / "x.txt").write_text(text)
    found, read = read_output(tmp_path / "x.txt")
    assert found == tool
    assert (read.ms, read.spread_ms, read.n) == pytest.approx((timing.ms, timing.spread_ms, timing.n))


@pytest.mark.parametrize("text", ["", "[ INFO ]    Median:        ", "Median: x ms", "count=50 first=37 curr=37"])
def test_what_was_cut_off(text, tmp_path):
    (tmp_path / "x.txt").write_text(text)
    with pytest.raises(UserError, match="x.txt: holds no time that one of benchmark_app, .* it may have been cut off"):
        read_output(tmp_path / "x.txt")


@pytest.fixture
def outputs(tmp_path) -> Path:
    """Of a device that takes 2 ms for a part and 20 to 50 for a sub-network."""
    folder, values, rng = tmp_path / "a board", JOB.values(), np.random.default_rng(0)
    folder.mkdir()
    for part in values["parts"]:
        (folder / f"{part['key']}.txt").write_text(APP.format(n=100, us=1000 + 2000 * rng.random()))
    for subnet in values["subnets"]:
        times = [read_output(folder / f"{key}.txt")[1].ms for key in subnet["parts"]]
        (folder / f"{subnet['key']}.txt").write_text(APP.format(n=50, us=1000 * (1 + 0.9 * sum(times))))
    return folder


def test_a_table_of_outputs(outputs, tmp_path, capsys):
    pytest.importorskip("onnx")
    make_runner(JOB, tmp_path / "board")
    with pytest.raises(SystemExit) as end:
        main(["profile", str(tmp_path / "board"), "--import", str(outputs), "-o", str(tmp_path / "t.json"),
              "--threads", "4"])
    assert end.value.code == 0
    assert "benchmark_app  on a board, 4 threads, batch 1" in capsys.readouterr().out
    table = read_table(tmp_path / "t.json")
    assert (table.scale, table.offset_ms) == (pytest.approx(0.9, abs=1e-3), pytest.approx(1.0, abs=0.02))
    assert table.about["check"]["after"]["tau"] > 0.99
    assert table.of(SPACE, num_classes=10).smallest > 0
    assert {timing.n for timing in table.timings.values()} == {100}


def test_outputs_that_do_not_fit(outputs, tmp_path):
    pytest.importorskip("onnx")
    make_runner(JOB, tmp_path / "board")
    with pytest.raises(UserError, match="ends neither in .json nor in .csv"):
        imported(tmp_path / "board", outputs, tmp_path / "t.txt")
    with pytest.raises(UserError, match=r"job.json: .*`ofa profile --runner` writes one"):
        imported(tmp_path / "nowhere", outputs, tmp_path / "t.json")
    (outputs / "part_0003.txt").write_text("part_0003  min =    1.20  max =    1.45  avg =    1.33")
    with pytest.raises(UserError, match="a board: holds outputs of benchmark_app and benchncnn; keep those of one"):
        imported(tmp_path / "board", outputs, tmp_path / "t.json")
    (outputs / "part_0003.txt").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of [0-9]+ outputs, the first part_0003.txt"):
        imported(tmp_path / "board", outputs, tmp_path / "t.json")
    (tmp_path / "board" / "job.json").write_text("{}")
    with pytest.raises(UserError, match="board: is no runner's folder"):
        imported(tmp_path / "board", outputs, tmp_path / "t.json")
    assert not (tmp_path / "t.json").exists()


@pytest.fixture(scope="module")
def graphs(tmp_path_factory) -> Path:
    """The largest sub-network as ONNX, and a layer as .tflite."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("runner") / "board"
    make_runner(JOB, folder)
    runner.write_numbers(folder / "graphs", json.loads((folder / "job.json").read_text())["numbers"])
    return folder / "graphs"


@pytest.mark.slow
@pytest.mark.parametrize(("tool", "words"), [
    ("benchmark_app", ["-m", "subnet_029.onnx", "-t", "1", "-api", "sync"]),
    ("litert-benchmark", ["--model", "layer.tflite", "--num_runs", "20"])])
def test_real_tools(tool, words, graphs, tmp_path):
    place = Path(sys.executable).parent / tool
    if not place.exists():
        pytest.skip(f"{tool} is not installed")
    if tool == "litert-benchmark":
        from onceforall.nn.litert_graph import graph
        layer = next(part for part in JOB.cases.values() if isinstance(part, Layer))
        shape = layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel
        numbers = {"weight": np.ones(shape, np.float32), "bias": np.ones(layer.outputs, np.float32)}
        (graphs / "layer.tflite").write_bytes(graph([layer], lambda _, kind: numbers[kind]))
    done = subprocess.run([str(place), *words], check=True, capture_output=True, text=True, timeout=300, cwd=graphs)
    (tmp_path / "x.txt").write_text(done.stdout)
    found, timings = read_outputs(tmp_path, ["x"])
    assert found == tool
    assert 0 <= timings["x"].ms < 1000
    assert timings["x"].n > 1
