"""`ofa export` and `ofa predict`, as they are typed: what they print, and one line for a mistake."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from PIL import Image

from onceforall.cli import main
from onceforall.deploy.description import read_description
from onceforall.deploy.targets import TARGETS


def ofa(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code, *capsys.readouterr()


@pytest.fixture
def pictures(digits, tmp_path):
    place = tmp_path / "pictures ä"
    place.mkdir()
    for i in range(3):
        Image.fromarray(digits.test.images[i].permute(1, 2, 0).numpy()).save(place / f"{i}.png")
    return place


@pytest.mark.slow
def test_export_prints_what_it_verified(folder, capsys):
    pytest.importorskip("onnxruntime")
    code, out, err = ofa(capsys, "export", folder, "--to", "onnx", "--to", "torch-export")
    assert code == 0
    assert "comparing with torch: 359 of 359" in err
    rows = [line.split() for line in out.splitlines()]
    assert [row[0] for row in rows] == ["file", "model.onnx", "model.pt2", "in"]
    top1 = f"{100 * read_description(folder).accuracy.top1:.2f}"
    for row in rows[1:3]:
        assert row[3:6] == ["359", "of", "359"]
        assert row[6:10] == [top1, "%", f"({top1}", "%)"]
    code, out, err = ofa(capsys, "export", folder, "--to", "onnx", "--batch", "2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["model.onnx"]["batch"] == 2


@pytest.mark.slow
def test_int8_prints_its_time_beside_float32(folder, capsys):
    pytest.importorskip("onnxruntime")
    words = ("export", folder, "--to", "onnx", "--int8", "--max-loss", "100", "--calibration-images", "25",
             "--keep", "stem, first.0", "--keep", "stages.0")
    code, out, _ = ofa(capsys, *words)
    assert code == 0
    made = read_description(folder).exports["model_int8.onnx"]
    assert made.int8.keep == ["stem", "first.0", "stages.0"]
    times = made.verification.latency
    assert out.splitlines()[1].split()[-3:] == [f"{ms:.2f}" for ms in (times.ms, times.fp32_ms, times.torch_ms)]


def test_explain_lists_blocks_and_writes_nothing(folder, capsys):
    pytest.importorskip("onnxruntime")
    before = sorted(folder.rglob("*"))
    words = ("export", folder, "--to", "onnx", "--int8", "--explain", "--calibration-images", "25", "--keep",
             "stages,head.mix,head.expand,first")
    code, out, _ = ofa(capsys, *words)
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[1:3]} == {"stem", "head.classifier"}
    code, out, err = ofa(capsys, *words, "--json")
    assert (code, err) == (0, "")
    first, second = json.loads(out)["onnx"]
    assert first["error"] > second["error"] > 0
    assert sorted(folder.rglob("*")) == before


def test_predict_by_torch_and_by_the_file(folder, capsys, pictures):
    pytest.importorskip("onnxruntime")
    ofa(capsys, "export", folder, "--to", "onnx")
    code, out, _ = ofa(capsys, "predict", folder, pictures, "--top", "3", "--json")
    assert code == 0
    by_torch = json.loads(out)
    assert [row["picture"] for row in by_torch] == [str(pictures / f"{i}.png") for i in range(3)]
    code, out, _ = ofa(capsys, "predict", folder / "model.onnx", pictures, "--top", "3", "--json")
    for one, other in zip(by_torch, json.loads(out), strict=True):
        assert [c["class"] for c in one["top"]] == [c["class"] for c in other["top"]]
        assert [c["probability"] for c in one["top"]] == pytest.approx([c["probability"] for c in other["top"]],
                                                                       rel=1e-4)
    (pictures / "broken.png").write_bytes(b"no picture")
    code, out, err = ofa(capsys, "predict", folder, pictures)
    assert code == 0  # of a folder it is left out, as everywhere
    assert out.count("\n") == 3 * 6
    assert err.startswith(f"left out: {pictures / 'broken.png'}: cannot be read as a picture (")
    assert err.count("\n") == 1


def test_evaluate_knows_the_pictures(folder, capsys):
    code, out, _ = ofa(capsys, "evaluate", folder, "--json")
    assert code == 0
    assert json.loads(out)["top1"] == read_description(folder).accuracy.top1


def test_pictures_that_are_gone(folder, capsys):
    pytest.importorskip("onnxruntime")
    values = json.loads((folder / "model.json").read_text())
    values["data"] = {"name": "folder", "root": "/nowhere"}
    (folder / "model.json").write_text(json.dumps(values))
    code, out, err = ofa(capsys, "export", folder, "--to", "onnx")
    assert code == 0
    assert "without pictures: data.root: /nowhere is not a folder" in err
    assert "32 of 32" in out
    code, _, err = ofa(capsys, "export", folder, "--to", "onnx", "--int8")
    assert code == 2
    assert "--int8: needs training pictures to calibrate with" in err


@pytest.mark.parametrize(("words", "message"), [
    (["export", "DIR", "--to", "tflite"], "--to: 'tflite' is not one of onnx,"),
    (["export", "DIR"], "Missing option '--to'"),
    (["export", "DIR", "--to", "onnx", "--int8", "--fp16"], "--int8: stands beside --fp16"),
    (["export", "DIR", "--to", "onnx", "--explain"], "--explain: shows what int8 loses; give --int8"),
    (["export", "DIR", "--to", "onnx", "--int8", "--keep", "stages.9"], "--keep: 'stages.9' is no layer, block or"),
    (["export", "DIR", "--to", "onnx", "--keep", "stem"], "--keep: has no effect in fp32"),
    (["export", "DIR", "--to", "elastic", "--full-range"], "--to: 'elastic' stands beside other targets"),
    (["export", "DIR", "--to", "onnx", "--batch", "0"], "--batch: '0' is neither dynamic nor a number"),
    (["export", "DIR", "--to", "onnx", "--batch", "many"], "--batch: 'many' is neither dynamic nor a number"),
    (["export", "DIR", "--to", "onnx", "--max-loss", "nan"], "--max-loss: nan is not a number from 0 to 100"),
    (["export", "DIR", "--to", "onnx", "--data", "nowhere"], "data.root: nowhere is not a folder"),
    (["export", "PICTURES", "--to", "onnx"], "model.json: cannot be read: No such file"),
    (["predict", "PICTURES", "PICTURES"], "model.json: cannot be read: No such file"),
    (["predict", "DIR", "nowhere.jpg"], "nowhere.jpg: cannot be read as a picture"),
    (["predict", "DIR", "DIR"], "holds no pictures"),
    (["predict", "nowhere.onnx", "PICTURES"], "nowhere.onnx: is neither an extracted sub-network's folder nor"),
    (["predict", "PICTURES/0.png", "PICTURES"], "0.png: is neither an extracted sub-network's folder nor"),
])
def test_mistakes_are_one_line(folder, pictures, capsys, words, message):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, err = ofa(capsys, *(word.replace("DIR", str(folder)).replace("PICTURES", str(pictures))
                                   for word in words))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_forms_and_what_they_need(capsys, monkeypatch):
    monkeypatch.setattr("onceforall.deploy.targets.find_spec", lambda name: None if name == "nncf" else find_spec(name))
    code, out, _ = ofa(capsys, "export", "--list")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert list(rows) == ["--to", *TARGETS]
    assert "nncf is missing" in rows["openvino"]
    assert f"torch {version('torch')}" in rows["torch-export"]
    assert "pip install 'onceforall[ncnn]'" in rows["ncnn"]
