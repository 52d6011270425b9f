"""The comparison of ways to train: its budgets, what it switches off, its records and their tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from onceforall.cost import macs, predictor
from onceforall.interop.nnabla.settings import training_of
from onceforall.recipes import RECIPES, STAGES
from onceforall.training.course import course_of
from onceforall.weights.nets import load_supernet

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import recipe_macs
import strategies
import strategies_chart
import strategies_table


def setting(budget: float) -> strategies.Setting:
    return strategies.Setting("digits", None, 0.1, budget, 0.15, (12, 12))


@pytest.fixture(scope="module")
def costs_once():
    """What a leg costs is computed once for all ways that have it; neither its epochs nor its rate matter."""
    known: dict[str, float] = {}
    cost = strategies.Setting.cost

    def once(self, leg, *, arch=None):
        key = repr((self, replace(leg, epochs=1, lr=0.05), arch))
        if key not in known:
            known[key] = cost(self, leg, arch=arch)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies.Setting, "cost", once)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("way", strategies.WAYS)
def test_budgets(way, costs_once):
    legs, given = strategies.WAYS[way], setting(100)
    epochs, spent = given.epochs(legs)
    assert len(epochs) == len(legs)
    assert 90 < spent <= 100
    unit = 3 * given.macs(given.space.largest)
    share = (100 * unit - given.learning(legs)) / sum(leg.epochs * given.cost(leg) for leg in legs)
    assert all(count >= 1 and (count == 1 or abs(count - leg.epochs * share) < 1)
               for count, leg in zip(epochs, legs, strict=True))
    if "sampling" not in legs[-1].hparams:  # which needs a predictor first
        assert course_of(training_of(given.config(legs[-1], epochs=1, seed=0))).space.free == given.space


def test_what_a_leg_costs():
    given = setting(10)
    largest = given.macs(given.space.largest)
    assert largest == macs(given.space, given.space.largest, num_classes=10)  # not the thousand of ImageNet
    first, kernel = strategies.SHRINKING[:2]
    assert given.cost(first) == 3 * largest
    assert given.cost(strategies.Leg(strategies.WHOLE, 1, 0.05), arch=given.space.smallest) == 3 * given.macs(
        given.space.smallest)
    assert 2 * largest < given.cost(kernel) < 4 * largest  # a smaller sub-network, and the teacher
    both = [given.macs(arch) for arch in (given.space.largest, given.space.smallest)]
    assert given.cost(strategies.WAYS["sandwich"][0]) > 3 * sum(both)
    assert given.cost(strategies.WAYS["delayed"][0]) < given.cost(strategies.WAYS["sandwich"][0])


@pytest.mark.slow
def test_a_way_is_trained_once(tmp_path, monkeypatch):
    for name, few in (("POPULATION", 2), ("OTHERS", 1), ("MEASURED", 10), ("CALIBRATED", 100)):
        monkeypatch.setattr(strategies, name, few)
    monkeypatch.setattr(predictor, "_EPOCHS", 10)
    given = setting(6)
    records = tmp_path / "records.jsonl"

    def trained(way):
        return strategies.trained(given, tmp_path, records, way, 0)

    made = trained("shrinking, kernels cropped")
    assert made["levels"].keys() == {"smallest", "lower", "upper", "largest", "random 0"}
    assert len(made["population"]) == 2
    (weights,) = tmp_path.glob("*cropped-0/5/weights.h5")
    matrices = [p for name, p in load_supernet(weights).named_parameters() if "kernel_" in name]
    assert matrices
    assert all(torch.equal(p, torch.eye(len(p))) for p in matrices)
    attentive = trained("best up")
    assert attentive["spent"] > sum(attentive["epochs"]) * given.cost(strategies.WAYS["sandwich"][0]) / (
        3 * given.macs(given.space.largest))  # the predictor's rows count
    assert list(tmp_path.glob("*best-up-0/predictor.safetensors"))
    alone = trained("alone smallest")
    assert 0 <= alone["top1"] <= 1
    monkeypatch.setattr(strategies.runs, "train", None)  # nothing is trained again
    assert [trained(way) for way in ("shrinking, kernels cropped", "best up", "alone smallest")] == [
        made, attentive, alone] == strategies_table.read(records)


def record(way: str, seed: int, **more: object) -> dict[str, object]:
    return {**setting(9).to_dict(), "way": way, "seed": seed, "epochs": [2, 1], "spent": 8.97, "seconds": 90.0, **more}


def some_records() -> list[dict[str, object]]:
    names = [*strategies_table.LEVELS, "random 0"]
    up, down = ({name: (50 + sign * 10 * i) / 100 for i, name in enumerate(names)} for sign in (1, -1))
    return [record("shrinking", 0, levels=up, population=[0.1, 0.2, 0.4]),
            record("shrinking", 1, levels=down, population=[0.3, 0.4, 0.6], seconds=30.0),
            record("random", 0, levels=up, population=[0.5, 0.7, 0.9]),
            *(record(f"alone {name}", seed, top1=up[name] + 0.01 * seed) for name in names for seed in (0, 1))]


def test_tables():
    records = some_records()
    ((title, text),) = strategies_table.tables(records).items()
    assert title == "digits, 10 % of the training pictures, budget 9, width 0.15, sizes 12 to 12"
    rows = text.splitlines()
    assert rows[2:5] == [
        "| *trained alone* | 2/2/2/2 | 50.5 ± 0.7 | 60.5 ± 0.7 | 70.5 ± 0.7 | 80.5 ± 0.7 |",
        "| random | 1 | 50.0 | 60.0 | 70.0 | 80.0 |",
        "| shrinking | 2 | 50.0 ± 0.0 | 50.0 ± 14.1 | 50.0 ± 28.3 | 50.0 ± 42.4 |"]
    assert rows[8:10] == ["| random | 50.0 | 70.0 | 90.0 | 50.0 | 1.00 | 2 + 1 | 9.0 | 1.5 |",
                          "| shrinking | 20.0 ± 14.1 | 30.0 ± 14.1 | 50.0 ± 14.1 |  | 0.00 | 2 + 1 | 9.0 | 1.0 |"]
    assert rows[10] == "| *smallest alone* |  |  |  |  |  | 2 + 1 | 9.0 | 1.5 |"
    assert strategies_table.pair(records[::-1], "shrinking", "random") == [
        "digits, median: -50.0", *(f"digits, {level}: +0.0" for level in strategies_table.LEVELS)]
    second = record("random", 1, levels=records[0]["levels"], population=[0.5, 0.6, 0.7])
    assert strategies_table.pair([second, *records], "random", "shrinking")[0] == "digits, median: +50.0 +20.0"
    assert strategies_table.pair(records, "shrinking", "sandwich")[0] == "digits, median: -"
    ((_, text),) = strategies_table.tables(records[:3]).items()
    assert "| *trained alone* | 0/0/0/0 | - | - | - | - |" in text
    assert "| random | 50.0 | 70.0 | 90.0 | 50.0 | - |" in text


def test_the_documents_tables_are_those_of_the_records():
    text = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    records = strategies_table.read(strategies_table.RECORDS)
    found = strategies_table.tables(records)
    assert found
    for title, table in found.items():
        assert f"{title}\n\n{table}\n" in text, title
    keys = [json.dumps([record[key] for key in (*setting(1).to_dict(), "way", "seed")]) for record in records]
    assert len(set(keys)) == len(keys)


def test_the_picture(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(strategies_chart.plt, "close", drawn.append)
    strategies_chart.draw(some_records(), tmp_path / "ways.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["trained alone", "random", "shrinking"]
    lines = [(line.get_marker(), line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines]
    assert [x for sign, x, y in lines if sign == "D"] == pytest.approx([50.5, 60.5, 70.5, 80.5])
    assert [x for sign, x, y in lines if (sign, y) == ("o", 1)] == pytest.approx([50, 60, 70, 80])
    assert [x for bar in axes.patches for x in (bar.get_x(), bar.get_width())] == pytest.approx([50, 40, 20, 30])
    with Image.open(tmp_path / "ways.png") as picture:
        assert picture.text["Source"] == strategies_chart.checksum(some_records()[::-1])
    with Image.open(strategies_chart.PICTURE) as picture:
        assert picture.text["Source"] == strategies_chart.checksum(strategies_table.read(strategies_table.RECORDS)), (
            "run benchmarks/strategies_chart.py")


def test_what_a_recipe_costs():
    full, kernel = STAGES[:2]
    recipe = replace(RECIPES["digits"], stages=(full,), epochs=(7,))
    assert recipe_macs.epochs(recipe) == pytest.approx(7)
    both = recipe_macs.epochs(replace(recipe, stages=(full, kernel), epochs=(7, 3)))
    assert 7 + 3 * (1 / 3 + 0.5) < both < 7 + 3 * (1 / 3 + 1)  # smaller kernels, and the teacher's forward pass
