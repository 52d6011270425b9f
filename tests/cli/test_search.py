"""`ofa search` on a bare space with a predictor and tables, and everything it refuses."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from onceforall.cli import main
from onceforall.cost import macs
from onceforall.cost.memory import peak_memory
from onceforall.cost.population import CostTable, macs_table
from onceforall.cost.predictor_file import save
from onceforall.latency.table import LatencyTable, Timing, all_parts, latency, write_table
from onceforall.space import Arch, search_space

NAME = "mobilenet_v3_large_32px"
SPACE = search_space(NAME)
QUICK = ("--population", "60", "--generations", "5")


def ofa(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return end.value.code, out, err


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A predictor, and tables of two devices: one knows all sizes, the other 20 and 32 pixels."""
    folder = tmp_path_factory.mktemp("tables")
    made = macs_table(SPACE)
    accuracy = CostTable(SPACE, made.rest / 1e9 + 0.3, np.sqrt(made.blocks) / 1e5)
    save(accuracy, folder / "predictor.safetensors", about={})
    for name, sizes in (("phone", SPACE.resolutions), ("board", (20, 32))):
        rng = random.Random(name)
        parts = {(size, part): Timing(rng.random()) for size in sizes for part in all_parts(SPACE, size)}
        write_table(LatencyTable(parts, {"device": name}, 1.0, 0.5), folder / f"{name}.json")
    return folder


def test_a_space_with_a_predictor_and_a_table(files, capsys):
    code, out, err = ofa(capsys, "search", NAME, "--predictor", files / "predictor.safetensors", "--table",
                         files / "phone.json", "--max-latency-ms", "16", "--max-params", "5M", *QUICK, "--json")
    assert code == 0
    assert not err
    found = json.loads(out)
    assert found["objectives"] == ["accuracy", "latency_ms"]
    assert found["evaluations"] > 60
    assert found["seconds"] > 0
    from onceforall.latency.table import read_table
    table = read_table(files / "phone.json")
    assert found["front"]
    for row in found["front"]:
        arch = Arch.parse(SPACE, row["arch"])
        assert list(row) == ["arch", "resolution", "costs", "accuracy_predicted", "accuracy_measured", "foreign"]
        assert Arch.from_genotype(SPACE, row["foreign"]["nnablanas"]["genotype"], resolution=row["resolution"]) == arch
        assert row["costs"]["latency_ms"] == pytest.approx(latency(SPACE, arch, table))
        assert row["costs"]["macs"] == macs(SPACE, arch)
        assert row["costs"]["memory"] == peak_memory(SPACE, arch)
        assert row["costs"]["latency_ms"] <= 16
        assert row["costs"]["params"] <= 5e6
        assert row["accuracy_measured"] is None
    accuracies = [row["accuracy_predicted"] for row in found["front"]]
    assert accuracies == sorted(accuracies)
    latencies = [row["costs"]["latency_ms"] for row in found["front"]]
    assert latencies == sorted(latencies)  # a front of two: what is more accurate takes longer


def test_two_devices_at_once(files, capsys, tmp_path):
    code, out, err = ofa(capsys, "search", NAME, "--predictor", files / "predictor.safetensors", "--table",
                         files / "phone.json", "--table", f"small={files / 'board.json'}", "--max-latency-ms",
                         "phone=16", *QUICK, "-o", tmp_path / "out")
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "front.json").read_text())
    assert found["objectives"] == ["accuracy", "latency_ms.phone", "latency_ms.small"]
    assert {row["resolution"] for row in found["front"]} <= {20, 32}
    assert all(row["costs"]["latency_ms.phone"] <= 16 for row in found["front"])
    assert "latency ms.small" in out


def test_costs_alone_need_no_predictor(capsys):
    code, out, _ = ofa(capsys, "search", NAME, "--objective", "macs,memory", *QUICK, "--json")
    assert code == 0
    front = json.loads(out)["front"]
    assert front[0]["costs"]["macs"] == macs(SPACE, SPACE.smallest)
    assert front[0]["accuracy_predicted"] is None


@pytest.mark.parametrize(("words", "message"), [
    (("--max-latency-ms", "20"), "limit on latency_ms: there is no such cost here; give --table"),
    (("--table", "{f}/phone.json", "--max-latency-ms", "1"), "no sub-network has 1 or less; the smallest possible is "),
    (("--max-params", "-5M"), "--max-params: '-5M' is not a number above 0; as 20, 300k, 5M"),
    (("--max-macs", "many"), "--max-macs: 'many' is not a number above 0"),
    (("--max-memory", "nan"), "--max-memory: 'nan' is not a number above 0"),
    (("--max-latency-ms", "0"), "--max-latency-ms: '0' is not a number above 0"),
    (("--max-latency-ms", "2", "--max-latency-ms", "3"), "--max-latency-ms: '3' is a second limit on the same latency"),
    (("--table", "{f}/phone.json", "--table", "{f}/board.json", "--max-latency-ms", "3"),
     "--max-latency-ms: '3' does not say for which table; known: phone, board"),
    (("--table", "{f}/phone.json", "--table", "phone={f}/board.json"), "--table: phone is given twice"),
    (("--table", "{f}/phone.json", "--max-latency-ms", "tablet=5"), "'tablet=5' does not say for which table; "),
    (("--table", "phone="), "--table: 'phone=' names no file"),
    (("--table", "{f}/nothing.json"), "nothing.json: cannot be read"),
    (("--table", "{f}/empty.json"), "empty.json: is no latency table"),
    (("--table", "{f}/wide.json"), "latency table: has no expanded_conv-input"),
    (("--table", "{f}/board.json", "--resolutions", "16"), "--resolutions: 16 is not in the table of latency_ms"),
    (("--resolutions", "18"), f"--resolutions: 18 is not in the {NAME}; it has 12, 16"),
    (("--resolutions", "x"), "--resolutions: 'x' is not a list of sizes"),
    (("--objective", "accuracy"), "objectives: accuracy: a front has two different ones or more"),
    (("--objective", "macs,macs"), "objectives: macs, macs: a front has two different ones or more"),
    (("--objective", "speed,macs"), "objective speed: there is no such value here; known: accuracy, macs, params"),
    (("--objective", "latency_ms,macs"), "objective latency_ms: there is no such value here; give --table"),
    (("--predictor", "{f}/phone.json"), "phone.json: is not a readable"),
    (("--predictor", "{f}/nan.safetensors"), "nan.safetensors: is a damaged predictor: it tells [nan, nan, nan]"),
    (("--predictor", "{f}/short.safetensors"), "short.safetensors: is a damaged predictor (index"),
    (("--predictor", "{f}/other.safetensors"), "predicts for mobilenet_v3_large_64px, not for mobilenet_v3_large_32px"),
    (("--predictor", "{f}/part.safetensors"), "predicts for another part of mobilenet_v3_large_32px than is searched"),
    (("--population", "1"), "Invalid value for '--population'"),
    (("--collect", "50"), "--collect: stands beside --predictor"),
    (("--refine", "-1"), "--refine: -1 is below 0"),
])
def test_a_mistake_is_one_line(files, capsys, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other, part = search_space("mobilenet_v3_large_64px"), SPACE.restrict(kernel=(3, 5))
    for name, space in (("other", other), ("part", part)):
        save(macs_table(space), files / f"{name}.safetensors", about={})
    made = macs_table(SPACE)
    save(CostTable(SPACE, made.rest * np.nan, made.blocks), files / "nan.safetensors", about={})
    save(CostTable(SPACE, made.rest, made.blocks[:, :3]), files / "short.safetensors", about={})
    (files / "empty.json").write_text("")
    wide = search_space(NAME, width_mult=2)
    write_table(LatencyTable({(32, name): Timing(1.0) for name in all_parts(wide, 32)}), files / "wide.json")
    given = [word.format(f=files) for word in words]
    if "--predictor" not in given:
        given += ["--predictor", str(files / "predictor.safetensors")]
    code, out, err = ofa(capsys, "search", NAME, *given, *(() if "--population" in given else QUICK), "-o", "out")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())  # nothing written


def test_an_output_that_is_a_file(capsys, tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/in"):
        code, _, err = ofa(capsys, "search", NAME, "--objective", "macs,memory", *QUICK, "-o", tmp_path / name)
        assert code == 2
        assert "file is a file; give another folder" in err


def test_a_space_without_a_predictor(capsys):
    code, _, err = ofa(capsys, "search", NAME)
    assert code == 2
    assert "objective accuracy: there is no such value here; give --predictor, or a trained supernet" in err
    code, _, err = ofa(capsys, "search", NAME, "--collect", "50")
    assert code == 2
    assert "--collect: has nothing to measure; give a trained supernet" in err
