"""Profiles of this machine with every backend: quick ones, of a few parts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onceforall.cost import macs
from onceforall.errors import UserError
from onceforall.latency import measure, runner
from onceforall.latency.job import BACKENDS, Job, Settings
from onceforall.latency.measure import make_runner, profile
from onceforall.latency.table import all_parts, latency, read_table
from onceforall.latency.torch_cases import opener, threads
from onceforall.space import Arch, search_space

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(
    resolutions=[16, 20], kernel=[3, 5], expand=[3], depth=[2, 3])
QUICK = Settings(subnets=30, rounds=1, runs=3, seconds=0.002)
JOB = Job(SPACE, 10, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_profile_covers_the_space_and_checks_itself(backend, tmp_path):
    job = Job(SPACE, 10, replace(QUICK, backend=backend, batch=2, seed=3))
    records = []
    table = profile(job, tmp_path / "new" / "table.json", records.append)
    back = read_table(tmp_path / "new" / "table.json")
    assert back.timings == table.timings
    assert {name for _, name in table.timings} == {name for size in (16, 20) for name in all_parts(SPACE, size, 10)}
    assert all(t.ms > 0 and t.n >= 3 for t in table.timings.values())
    assert table.of(SPACE, num_classes=10).space.resolutions == (16, 20)
    about = back.about
    assert (about["backend"], about["threads"], about["batch"], about["seed"]) == (backend, 1, 2, 3)
    assert about["device"] and about["date"] and about["space"] == SPACE.to_dict() and about["classes"] == 10
    assert {"python", "onceforall", backend} <= about["versions"].keys()
    assert about["repetitions"] == {"rounds": 1, "runs": 3, "seconds": 0.002}
    assert about["check"]["held_out"] == 15
    for row in about["subnets"]:
        ms = latency(SPACE, Arch.parse(SPACE, row["arch"]), back, num_classes=10)
        assert ms == pytest.approx(back.offset_ms + back.scale * row["sum_ms"])
    assert records[0]["kind"] == "begin"
    assert (records[0]["parts"], records[0]["subnets"]) == (len(table.timings), 30)
    assert records[0]["seconds"] > 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["table.json"]


def test_larger_networks_take_longer(tmp_path):
    """A busy machine may stall for as long as a part is timed: one profile of three has to show it."""
    space = search_space("mobilenet_v3_large_32px").restrict(resolutions=[32], kernel=[3, 7], expand=[6], depth=[2, 4])
    seen = []
    for number in range(3):
        table = profile(Job(space, 10, replace(QUICK, rounds=3, runs=5)), tmp_path / f"{number}.json")
        small, large = (latency(space, arch, table, num_classes=10) for arch in (space.smallest, space.largest))
        seen.append((large / small, table.about["check"]["after"]["tau"]))
        if large > 1.5 * small and seen[-1][1] > 0.5:
            return
    pytest.fail(f"largest / smallest, and rank correlation: {seen}")


def test_a_stopped_profile_goes_on(tmp_path, monkeypatch):
    output, seen = tmp_path / "table.json", []

    def stop(record) -> None:
        seen.append(record)
        if record.get("done") == 20 and record["kind"] == "visit":
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        profile(JOB, output, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json.partial.jsonl"]
    kept = (tmp_path / "table.json.partial.jsonl").read_text()
    with pytest.raises(UserError, match="timings of other settings: threads, clock; finish with those"):
        profile(Job(SPACE, 10, replace(QUICK, threads=2)), output)
    with pytest.raises(UserError, match="other settings: subnets, cases"):
        profile(Job(SPACE, 10, replace(QUICK, subnets=31)), output)
    assert (tmp_path / "table.json.partial.jsonl").read_text() == kept
    seen.clear()
    table = profile(JOB, output, seen.append)
    assert seen[0]["done"] == 20
    assert len(seen) - 1 == seen[0]["of"] - 20
    assert len(table.timings) == len(JOB.parts)
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]


def test_timings_alone_as_csv(tmp_path):
    table = profile(JOB, tmp_path / "table.csv")
    back = read_table(tmp_path / "table.csv")
    assert back.timings == table.timings
    assert (back.scale, back.offset_ms, back.about) == (1.0, 0.0, {})


def test_sub_networks_are_spread_over_cost():
    space = search_space("mobilenet_v3_large").restrict(resolutions=[160])
    archs = Job(space, 1000, Settings()).archs
    costs = [macs(space, arch) for arch in archs]
    assert archs[0] == space.smallest and archs[-1] == space.largest
    assert len(set(archs)) == 40 and costs == sorted(costs)
    assert archs == Job(space, 1000, Settings()).archs != Job(space, 1000, Settings(seed=1)).archs
    share = (np.array(costs) - costs[0]) / (costs[-1] - costs[0])
    assert np.histogram(share, bins=4, range=(0, 1))[0].min() >= 5
    many = Job(search_space("mobilenet_v3_large"), 1000, Settings()).archs
    assert len({arch.resolution for arch in many}) > 10


def test_a_space_may_be_too_small():
    with pytest.raises(UserError, match="--subnets: 30 are asked for, and .* has only 32 here; at least 60 are needed"):
        _ = Job(SPACE.restrict(resolutions=[16], kernel=[3]), 10, Settings(subnets=30)).archs
    assert len(set(Job(SPACE.restrict(kernel=[3]), 10, Settings(subnets=32)).archs)) == 32


def test_torchs_threads_are_given_back():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_torch_times_the_modules_themselves():
    run = opener(JOB.cases, torch.device("cpu"), 2)
    for key in JOB.cases:
        out = run(key)()
        assert torch.isfinite(out).all(), key
        assert 1e-4 < out.abs().max() < 1e6, key
        assert len(out) == 2
    name, first = next(iter(JOB.parts.items()))
    assert JOB.cases["part_0000"] == first and name.startswith("expanded_conv")


@pytest.mark.parametrize(("changes", "message"), [
    ({"backend": "tflite"}, "--backend: 'tflite' is not one of onnxruntime, openvino, torch"),
    ({"threads": 0}, "--threads: 0 is below 1"), ({"threads": 10 ** 6}, "--threads: 1000000 is far above"),
    ({"batch": 0}, "--batch: 0 is below 1"), ({"subnets": 29}, "--subnets: 29 is below 30"),
    ({"rounds": 0}, "--rounds: 0 is below 1"), ({"seed": -1}, "--seed: -1 is below 0"),
    ({"device": "tpu"}, "--device: 'tpu' is not one of auto, cpu, cuda"),
    ({"device": "cuda"}, "--device: onnxruntime is timed on the CPU"),
    ({"device": "cuda", "backend": "openvino"}, "--device: openvino is timed on the CPU"),
])
def test_settings_that_are_none_are_one_line(tmp_path, changes, message):
    for act in (lambda job: profile(job, tmp_path / "t.json"), lambda job: make_runner(job, tmp_path / "dir")):
        with pytest.raises(UserError, match=message) as error:
            act(Job(SPACE.restrict(resolutions=[16]), 10, replace(QUICK, **changes)))
        assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="--device: 'cuda' needs a GPU, and torch sees none"):
        profile(Job(SPACE, 10, replace(QUICK, backend="torch", device="cuda")), tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["table.yaml", "table", "folder.json", "file/table.json"])
def test_an_output_that_cannot_be_is_one_line(tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"neither in .json nor in .csv|is a folder|cannot be written"):
        profile(JOB, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_partial_file_is_one_line(tmp_path):
    (tmp_path / "table.json.partial.jsonl").write_text("nonsense\n")
    with pytest.raises(UserError, match="is damaged .*; delete it to start anew"):
        profile(JOB, tmp_path / "table.json")


@pytest.mark.parametrize(("backend", "package", "extra"), [
    ("onnxruntime", "onnxruntime", "onnx"), ("onnxruntime", "onnx", "onnx"), ("openvino", "openvino", "openvino")])
def test_a_missing_package_says_what_brings_it(tmp_path, monkeypatch, backend, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"{package} is not installed; pip install 'onceforall\[{extra}\]'"):
        profile(Job(SPACE, 10, replace(QUICK, backend=backend)), tmp_path / "table.json")
    assert not list(tmp_path.iterdir())


def test_a_runner_is_written_again_but_nothing_else_is_overwritten(tmp_path):
    make_runner(JOB, tmp_path / "dir")
    (tmp_path / "dir" / "graphs" / "old.onnx").write_text("")
    make_runner(JOB, tmp_path / "dir")
    assert sorted(path.name for path in (tmp_path / "dir").iterdir()) == ["graphs", "job.json", "run.py"]
    assert len(list((tmp_path / "dir" / "graphs").iterdir())) == len(JOB.cases)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").write_text("cat")
    with pytest.raises(UserError, match="is not empty, and no runner's folder"):
        make_runner(JOB, tmp_path / "pictures")
    with pytest.raises(UserError, match="cannot be written"):
        make_runner(JOB, tmp_path / "pictures" / "cat.jpg" / "dir")
    for backend in ("torch", "openvino"):
        with pytest.raises(UserError, match=f"--runner: {backend} does not run there"):
            make_runner(Job(SPACE, 10, replace(QUICK, backend=backend)), tmp_path / "other")


def test_the_graphs_of_this_machine_are_the_runners():
    with measure._graphs(JOB) as (values, graphs):
        assert (graphs.parent / "run.py").read_bytes() == Path(runner.__file__).read_bytes()
        assert {f"{case['key']}.onnx" for case in values["parts"] + values["subnets"]} | values["numbers"].keys() == {
            path.name for path in graphs.iterdir()}
    assert not graphs.exists()
