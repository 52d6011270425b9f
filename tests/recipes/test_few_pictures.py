"""Few pictures: what cannot be trained is said before training, and who validates is said as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onceforall.cli import main
from onceforall.cli.progress import closing_table
from onceforall.data import DataSpec, load_data
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.recipes import fit as fitting
from onceforall.recipes.fit import Request, fit, plan
from onceforall.training.engine.run import train
from onceforall.training.setup import Options

TINY = {"space": "mobilenet_v3_large_32px", "width_mult": 0.15, "num_classes": 2, "op_candidates": ["MB6 7x7"],
        "depth_candidates": [4]}


def pictures(root: Path, counts: dict[str, int]) -> Path:
    """Pictures of noise, so many in each folder."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def configuration(root: Path) -> Config:
    """One step of one stage."""
    return Config.from_dict({
        "dataloader": {"folder": {"root": str(root)}}, "network": {"ofa": TINY},
        "optimizer": {"train": {"lr": 0.01}}, "hparams": {
            "task": "fullnet", "epoch": 1, "batch_size_train": 2, "train_image_size_list": [16],
            "valid_image_size_list": [16]}})


@pytest.mark.parametrize(("counts", "problem"), [
    ({"train/ant": 9, "val/ant": 3}, "has pictures of one class only, ant"),
    ({"ant": 9}, "has pictures of one class only, ant"),
    ({"train/ant": 1, "train/bee": 1}, "has no more than one picture of each class"),
    ({"ant": 1, "bee": 1}, "has no more than one picture of each class"),
])
def test_what_cannot_be_trained_is_refused_before_training(capsys, tmp_path, counts, problem):
    root = pictures(tmp_path / "mine", counts)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--data", str(root), "-o", str(tmp_path / "run"), "--device", "cpu"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2
    assert error.startswith(f"ofa: {root}: {problem}")
    assert "num_classes" not in error
    assert not (tmp_path / "run").exists()
    config = configuration(root)
    with pytest.raises(UserError, match=problem):
        train(training_of(config), tmp_path / "run")


def test_two_pictures_of_each_class_are_enough(tmp_path):
    """One to train on, one to test on."""
    root = pictures(tmp_path / "mine", {"ant": 2, "bee": 2})
    assert plan(Request(str(root)), gpu=False)
    data = load_data(DataSpec("folder", root=str(root)))
    assert [split.counts for split in data.found.splits] == [(1, 1), (1, 1)]
    assert any("no pictures are held out" in note for note in data.found.origin.notes)


def test_a_rare_class_is_held_out_too(tmp_path, caplog):
    root = pictures(tmp_path / "mine", {"train/ok": 60, "train/defect": 3, "train/odd": 1, "val/ok": 3})
    data = load_data(DataSpec("folder", root=str(root)))
    assert data.classes == ("defect", "odd", "ok")
    assert [split.counts for split in data.found.splits] == [(2, 1, 54), (1, 0, 6), (0, 0, 3)]
    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said.endswith(": odd")


@pytest.mark.parametrize("val", [0, 2])
def test_the_log_says_what_validates(tmp_path, val):
    """Where nothing is held out, the test pictures."""
    root = pictures(tmp_path / "mine", {"train/ant": 1, "train/bee": 1, "test/ant": 2, "test/bee": 2}
                    | ({"val/ant": val, "val/bee": val} if val else {}))
    config = configuration(root)
    heard: list[Any] = []
    train(training_of(config, search=True), tmp_path / "run", Options(listener=heard.append))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "2 classes" in log
    assert "training  2  train/" in log
    assert ("no training pictures are held out: the test pictures validate" in log) == (not val)
    assert all(record["images"] == 4 for record in heard if record["kind"] == "valid")


@pytest.mark.parametrize(("val", "chosen"), [(0, "test"), (2, "held-out")])
def test_the_closing_table_says_who_chose(tmp_path, capsys, monkeypatch, val, chosen):
    root = pictures(tmp_path / "mine", {"train/ant": 1, "train/bee": 1, "test/ant": 2, "test/bee": 2}
                    | ({"val/ant": val, "val/bee": val} if val else {}))
    row = {"arch": "x", "macs": 1, "params": 1, "top1": 0.5, "resolution": 16, "path": "y"}
    stage = {"name": "whole", "epochs": 1, "seconds": 1, "smallest": 0.5, "middle": 0.5, "largest": 0.5}
    picked = {"subnets": [row], "tuned": []}
    for name, stand_in in (("train", lambda *_: None), ("pick", lambda *_: picked), ("stage_row", lambda *_: stage)):
        monkeypatch.setattr(fitting, name, stand_in)
    heard: list[Any] = []
    (tmp_path / "run").mkdir()
    summary = fit(Request(str(root)), tmp_path / "run", Options(listener=heard.append))
    assert [record["kind"] for record in heard] == ["note", "note"]  # the pictures, the augmentation
    assert "test      4  test/" in heard[0]["text"]
    assert summary["chosen_on"] == json.loads((tmp_path / "run" / "summary.json").read_text())["chosen_on"] == chosen
    closing_table(summary, tmp_path / "run")
    out = capsys.readouterr().out
    assert ("held-out training pictures" in out) == (chosen == "held-out")
    assert ("Stages: top-1 on the test pictures" in out) == (chosen == "test")
