"""Whether training pictures are mirrored: asked for, said, and done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from onceforall.cli import main
from onceforall.cli.progress import Progress
from onceforall.data import DataSpec, Loader, TrainBatches
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.recipes.augmentation import say_augmentation
from onceforall.recipes.fit import Request, plan
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Training

LINE = "augmentation: random crops of 60 to 100 % of the area, {}, colours kept"
HINT = "hint: a mirrored picture may be of another class here (left, right); --no-flip leaves training pictures as " \
       "they are"


@pytest.fixture
def arrows(tmp_path):
    """Pictures that get brighter from left to right, in two classes that are each other's mirror image."""
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8), (32, 32))
    for split, count in (("train", 20), ("val", 2)):
        for name in ("left", "right"):
            folder = tmp_path / "arrows" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(ramp).save(folder / f"{i}.png")
    return tmp_path / "arrows"


def said(training: Training) -> list[str]:
    heard: list[str] = []
    say_augmentation(training, Options(listener=lambda record: heard.append(record["text"])))
    return heard


def mirrored(spec: DataSpec) -> float:
    """The share of training pictures that get darker from left to right."""
    batches = TrainBatches(data_of(spec).train, (16,), augment=spec.augment, loader=Loader(32, workers=0), seed=0)
    images = [image for epoch in range(8) for batch in batches.epoch(epoch) for image in batch.images.float()]
    return float(np.mean([bool(image[:, :, :8].mean() > image[:, :, 8:].mean()) for image in images]))


@pytest.mark.parametrize(("words", "flip"), [((), True), (("--flip",), True), (("--no-flip",), False)])
def test_the_option_reaches_the_batches(words, flip, arrows, tmp_path):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--data", str(arrows), *words, "--device", "cpu", "--dump-configs", str(tmp_path / "configs")])
    assert end.value.code == 0
    (path,) = (tmp_path / "configs").iterdir()
    training = training_of(Config.read(path), search=True)
    assert training.data.augment.flip is flip
    assert mirrored(training.data) == (pytest.approx(0.5, abs=0.15) if flip else 0)
    assert said(training) == [LINE.format("mirrored at random"), HINT] if flip else [LINE.format("not mirrored")]


def test_every_stage_and_other_recipes(arrows, tmp_path):
    asked = [Request(str(arrows), recipe="cifar10-shrinking", flip=False), Request("digits", flip=True),
             Request("digits")]
    found = [plan(request, gpu=False) for request in asked]
    assert [len(recipe.stages) for recipe in found] == [6, 6, 6]
    assert [recipe.data.augment.flip for recipe in found] == [False, True, False]


def test_it_is_said_before_training(arrows, tmp_path, monkeypatch, capsys):
    def train(*_):
        raise UserError("training", "starts here")

    monkeypatch.setattr("onceforall.recipes.fit.train", train)
    with pytest.raises(SystemExit):
        main(["fit", "--data", str(arrows), "--no-flip", "--device", "cpu", "-o", str(tmp_path / "run")])
    err = capsys.readouterr().err.splitlines()
    assert err[-2:] == [LINE.format("not mirrored"), "ofa: training: starts here"]
    Progress(shown=False).hear({"kind": "note", "text": "of the first process alone"})
    assert not capsys.readouterr().err


def test_where_shrunk_pictures_are_kept(arrows, tmp_path):
    for path in arrows.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((400, 300)).save(path)
    (training,) = plan(Request(str(arrows), flip=False), gpu=False).trainings(tmp_path).values()
    found = said(training)[1:]
    assert len(found) == 1
    assert found[0].startswith("cache: large training pictures, shrunk to 96 pixels, in ")
    (training,) = plan(Request(str(arrows), flip=False, cache=0), gpu=False).trainings(tmp_path).values()
    assert len(said(training)) == 1


def test_a_rare_class_is_said_with_the_setting_that_helps(arrows, tmp_path):
    for i in range(1, 20):
        (arrows / "train" / "right" / f"{i}.png").unlink()
    request = Request(str(arrows), recipe="cifar10-cpu", flip=False)
    (training,) = plan(request, gpu=False).trainings(tmp_path).values()
    assert said(training)[1:] == ["hint: class right has 1 training pictures, left has 18; --balanced draws every "
                                  "class equally often"]
    (training,) = plan(replace(request, balanced=True), gpu=False).trainings(tmp_path).values()
    assert training.stage.batches.balanced
    assert len(said(training)) == 1
