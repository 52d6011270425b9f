"""The comparison of ways to train: its budgets, what it switches off, and that it keeps what it made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from onceforall.cost import macs
from onceforall.interop.weights import load_supernet
from onceforall.train.stage import stage_of

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import strategies


def setting(folder: Path, budget: float) -> strategies.Setting:
    return strategies.Setting(folder, "digits", None, 0.1, budget, 0.15, (12, 12))


@pytest.mark.parametrize("way", strategies.WAYS)
def test_budgets(way, tmp_path):
    legs, given = strategies.WAYS[way], setting(tmp_path, 100)
    epochs, spent = given.epochs(legs)
    assert len(epochs) == len(legs)
    assert 90 < spent <= 100
    assert min(epochs) >= 1
    if "sampling" not in legs[-1].hparams:  # which needs a predictor first
        assert stage_of(given.config(legs[-1], epochs=1, seed=0)).space == given.space


def test_what_a_leg_costs(tmp_path):
    given = setting(tmp_path, 10)
    largest = macs(given.space, given.space.largest)
    first, kernel = strategies.SHRINKING[:2]
    assert given.cost(first) == 3 * largest
    assert given.cost(strategies.Leg(strategies.WHOLE, 1, 0.05), arch=given.space.smallest) == 3 * macs(
        given.space, given.space.smallest)
    assert 2 * largest < given.cost(kernel) < 4 * largest  # a smaller sub-network, and the teacher
    both = [macs(given.space, arch) for arch in (given.space.largest, given.space.smallest)]
    assert given.cost(strategies.WAYS["sandwich"][0]) > 3 * sum(both)
    assert given.cost(strategies.WAYS["delayed"][0]) < given.cost(strategies.WAYS["sandwich"][0])


@pytest.mark.slow
def test_a_way_is_trained_once(tmp_path, monkeypatch):
    monkeypatch.setattr(strategies, "POPULATION", 2)
    monkeypatch.setattr(strategies, "OTHERS", 1)
    given = setting(tmp_path, 6)
    made = strategies.trained(given, "shrinking, kernels cropped", 0)
    assert made["levels"].keys() == {"smallest", "lower", "upper", "largest", "random 0"}
    assert len(made["population"]) == 2
    net = load_supernet(tmp_path / "shrinking-kernels-cropped" / "0" / "5" / "weights.h5")
    matrices = [p for name, p in net.named_parameters() if "kernel_" in name]
    assert matrices
    assert all(torch.equal(p, torch.eye(len(p))) for p in matrices)
    attentive = strategies.trained(given, "best up", 0)
    assert attentive["spent"] > sum(attentive["epochs"]) * given.cost(strategies.WAYS["sandwich"][0]) / (
        3 * macs(given.space, given.space.largest))  # the predictor's rows count
    assert (tmp_path / "best-up" / "0" / "predictor.safetensors").exists()
    alone = strategies.trained(given, "alone smallest", 0)
    assert 0 <= alone["top1"] <= 1
    monkeypatch.setattr(strategies.runs, "train", None)  # nothing is trained again
    assert strategies.trained(given, "shrinking, kernels cropped", 0) == made
    assert strategies.trained(given, "alone smallest", 0) == alone
