"""Accuracy before the first step and after the first epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from onceforall.api import train
from onceforall.nn import Supernet
from onceforall.recipes.summary import curve_of
from onceforall.run import Run
from onceforall.space import search_space
from onceforall.training.engine.journal import METRICS, UNTRAINED, read_records
from onceforall.training.evaluate import Evaluator
from onceforall.training.recipe import START
from onceforall.training.settings import Optimizer
from onceforall.training.setup import data_of
from onceforall.training.stage import Batches, Stage
from onceforall.weights.nets import load_supernet

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=(12,), depth=(2,))
STAGE = Stage(epochs=4, optimizer=Optimizer(lr=0.01), validate_every=3, validate_start=True,
              batches=Batches(size=128, calibration=200))


def net() -> Supernet:
    return Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1))


def where(folder: Path) -> list[tuple[str, int]]:
    """Kind and epoch of each record of a validation."""
    return [(r["kind"], r["epoch"]) for r in read_records(folder / METRICS) if r["kind"] in ("start", "valid")]


WHERE = [(kind, epoch) for kind, epoch in (("start", UNTRAINED), ("valid", 0), ("valid", 2), ("valid", 3))
         for _ in range(3)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    train(net(), "digits", stages=[STAGE], output=folder)
    return folder


def test_when_it_is_validated(run):
    assert where(run / "stage1") == WHERE


def test_the_first_scores_are_those_of_the_weights_it_starts_with(run):
    records = [r for r in read_records(run / "stage1" / METRICS) if r["kind"] == "start"]
    start, data = load_supernet(run / START), data_of(Run(run).stages["stage1"].data)
    evaluator = Evaluator(data, calibration_images=200)
    archs = (start.space.smallest, start.space.middle, start.space.largest)
    assert [r["top1"] for r in records] == [evaluator.score(start, arch, data.held_out).top1 for arch in archs]


def test_the_curve_counts_epochs_that_are_done(run):
    curve = curve_of(read_records(run / "stage1" / METRICS))
    assert [row["epoch"] for row in curve] == [0, 1, 3, 4]
    assert curve[0]["largest"] != curve[-1]["largest"]


def test_a_stop_in_the_first_epoch_keeps_them(tmp_path):
    def halt(record: Mapping[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(net(), "digits", stages=[STAGE], output=tmp_path, listener=halt)
    assert where(tmp_path / "stage1") == WHERE[:3]
    train(net(), "digits", stages=[STAGE], output=tmp_path)
    assert where(tmp_path / "stage1") == WHERE
