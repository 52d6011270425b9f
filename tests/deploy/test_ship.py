"""`--ship`: sub-networks in a runtime's form, marked where they lose too much or another one is better."""

from __future__ import annotations

import json
from dataclasses import replace
from shutil import copytree

import pytest

from onceforall.cli import main
from onceforall.deploy.description import read_description
from onceforall.deploy.export import Request, export
from onceforall.errors import UserError
from onceforall.recipes import ship as shipping
from onceforall.recipes.ship import Shipped, forms, ship

ROW = Shipped("a", "model.onnx", "x", 1, top1=0.5, torch_top1=0.5, ms=1.0, fp32_ms=None, size=1, kept=True)


@pytest.mark.parametrize(("texts", "message"), [
    (["tflite"], "--ship tflite: --to: 'tflite' is not one of onnx, "),
    (["onnx:int4"], "--ship: 'int4' in 'onnx:int4' is not one of fp32, fp16, int8; as onnx:int8"),
    (["torch-export:int8"], "--ship torch-export:int8: --int8: torch-export has fp32, fp16 only"),
])
def test_what_is_no_form(texts, message):
    with pytest.raises(UserError) as error:
        forms(texts)
    assert str(error.value).startswith(message)


def test_the_front_is_of_what_is_kept(monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    rows = {"a": ROW, "slow": replace(ROW, ms=2.0), "better": replace(ROW, ms=2.0, top1=0.6), "same": ROW,
            "rejected": replace(ROW, ms=0.5, top1=0.7, kept=False)}
    monkeypatch.setattr(shipping, "_shipped", lambda folder, *_: rows[folder.name])
    found = ship([tmp_path / name for name in rows], forms(["onnx"]), None)
    assert [(row.ms, row.top1, row.kept, row.front) for row in found] == [
        (0.5, 0.7, False, False), (1.0, 0.5, True, True), (1.0, 0.5, True, True), (2.0, 0.5, True, False),
        (2.0, 0.6, True, True)]


def test_what_loses_too_much_is_marked(folder, digits, tmp_path):
    pytest.importorskip("onnxruntime")
    export(folder, Request("onnx"))  # without pictures, so that it has no accuracy
    other = copytree(folder, tmp_path / "other")
    wanted = forms(["onnx", "onnx:int8"], max_loss=0)
    found = ship([folder, other], wanted, digits)
    assert sorted((row.subnet, row.file) for row in found) == sorted(
        (place, file) for place in ("subnet", "other") for file in ("model.onnx", "model_int8.onnx"))
    for row in found:
        made = read_description(tmp_path / row.subnet).exports
        assert row.kept == (row.file in made) == (row.torch_top1 <= row.top1)
        assert row.torch_top1 == read_description(folder).accuracy.top1
        place = tmp_path / row.subnet / ("" if row.kept else "rejected") / row.file
        assert place.stat().st_size == row.size
    exact = {row.subnet: row for row in found if row.file == "model.onnx"}
    assert all(row.kept and row.top1 == row.torch_top1 for row in exact.values())
    kept = {row.file: row.kept for row in ship([folder], forms(["onnx:int8"], max_loss=100), digits)}
    judged = {row.file: row for row in ship([folder], forms(["onnx:int8"], max_loss=0), digits)}
    assert kept == {"model_int8.onnx": True}
    assert all(row.kept == (row.torch_top1 <= row.top1) for row in judged.values())  # by what is asked for now
    again = ship([folder], forms(["onnx"]), digits)
    assert [row.ms for row in again] == [exact["subnet"].ms]  # the file that is there


def test_a_space_cannot_be_shipped(capsys):
    with pytest.raises(SystemExit) as end:
        main(["search", "mobilenet_v3_large", "--ship", "onnx"])
    assert end.value.code == 2
    assert "--ship: needs trained weights, and mobilenet_v3_large is a search space" in capsys.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(["search", "nowhere", "--ship", "onnx", "--measure", "0", "-o", "x"])
    assert end.value.code == 2
    assert "--ship: exports the rows that are measured, and --measure is 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_search_ships_what_it_measured(weights, capsys, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(SystemExit) as end:
        main(["search", str(weights), "-o", str(tmp_path / "s"), "--collect", "20", "--refine", "0", "--measure", "2",
              "--population", "20", "--generations", "5", "--ship", "onnx", "--json", "--data", "digits"])
    assert end.value.code == 0
    out = json.loads(capsys.readouterr().out)
    measured = [number for number, row in enumerate(out["front"]) if row["accuracy_measured"] is not None]
    assert sorted(row["subnet"] for row in out["shipped"]) == sorted(f"row-{number}" for number in measured)
    assert json.loads((tmp_path / "s" / "shipped" / "shipped.json").read_text()) == out["shipped"]
    for row in out["shipped"]:
        assert (tmp_path / "s" / "shipped" / row["subnet"] / row["file"]).is_file()
        assert row["top1"] == out["front"][int(row["subnet"][4:])]["accuracy_measured"]
