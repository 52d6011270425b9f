"""Which recipe a data set takes, and how long it trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from onceforall.interop.nnabla.config import checked
from onceforall.recipes import RECIPES, STAGES, recipe_for
from onceforall.recipes.fit import Request, plan


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
    stages = plan(Request("digits", seed=5), tmp_path, gpu=False)
    assert list(stages) == [row.folder for row in STAGES]
    assert {config.hparams.seed for config in stages.values()} == {5}
    last = stages.pop("K357_E346_D234")
    assert [config.hparams.strategy for config in stages.values()] == 5 * ["shrinking"]
    assert [config.hparams.lambda_kd for config in stages.values()] == [0, 1, 1, 1, 1]
    assert [config.hparams.validation_frequency for config in stages.values()] == [5, 1, 1, 1, 1]
    assert (last.hparams.strategy, last.hparams.subnets_per_step, last.hparams.lambda_kd) == ("sandwich", 3, 0)
    assert last.teacher is None
    assert last.network.weights == str(tmp_path / "K357_E46_D234" / "weights.h5")
    checked(last, "OFASearcher", search=True)


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
    (config,) = plan(request, tmp_path, gpu=False).values()
    assert (config.network.space, config.hparams.epoch) == ("mobilenet_v3_large_64px", 240)
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["a CPU trains on large pictures at 40 to 48 pixels (recipe small-pictures-cpu); with --recipe "
                    "imagenet, at 128 to 224",
                    "18 training pictures get 240 epochs instead of the 30 of recipe small-pictures-cpu"]
    caplog.clear()
    assert [list(plan(asked, tmp_path, gpu=gpu)) for asked, gpu in (
        (request, True), (Request(str(photographs), recipe="imagenet"), False))] == 2 * [
            ["K7_E6_D4", "K357_E6_D4", "K357_E6_D34", "K357_E6_D234", "K357_E46_D234", "K357_E346_D234"]]
    assert not any(record.levelname == "WARNING" for record in caplog.records)
    (config,) = plan(Request(str(photographs), recipe="cifar10-cpu", epochs_scale=0.5), tmp_path, gpu=True).values()
    assert config.hparams.epoch == 13
