"""Supernets of others that have other classes, as the start of a run: `ofa fit --from FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from onceforall.recipes.fit import Request, fit, plan, write_start
from onceforall.training.engine.distributed import Processes
from onceforall.training.recipe import START
from onceforall.training.setup import Options
from onceforall.weights.nets import load_supernet, open_weights

SETTINGS = ("stages.tuned.batches.calibration=100", "stages.shrunk.batches.calibration=100")


def asked(file: Path, data: str = "digits") -> Request:
    return Request(data, start=str(file), sizes=(32,), epochs_scale=0.01, collect=20, budgets=1, elastic=2,
                   changes=SETTINGS)


@pytest.fixture
def theirs(authors: Any, tmp_path: Path) -> Path:
    """A file of the authors' form with random weights for 1,000 classes."""
    torch.manual_seed(0)
    net = authors.OFAMobileNetV3(n_classes=1000, width_mult=1.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6],
                                 depth_list=[2, 3, 4])
    torch.save({"state_dict": net.state_dict()}, tmp_path / "ofa_mbv3_d234_e346_k357_w1.0")
    return tmp_path / "ofa_mbv3_d234_e346_k357_w1.0"


def test_the_authors_net_of_1000_classes(theirs, tmp_path):
    """All weights but the classifier's are theirs, and the kernel matrices, too."""
    recipe, was = plan(asked(theirs), gpu=False), open_weights(theirs).net
    write_start(recipe, tmp_path / "run", Processes())
    start = load_supernet(tmp_path / "run" / START)
    assert (was.num_classes, start.num_classes) == (1000, 10)
    there = start.state_dict()
    kept = [name for name in was.state_dict() if not name.startswith("head.classifier")]
    assert len(kept) > 300 and all(torch.equal(was.state_dict()[name], there[name]) for name in kept)
    assert start.space.largest.at(32).depths == was.space.largest.depths


@pytest.mark.slow
def test_a_whole_run_on_the_digits(theirs, tmp_path):
    """Of the authors' net of 1,000 classes, an epoch of each stage."""
    summary = fit(asked(theirs), tmp_path / "run", Options())
    assert [row["name"] for row in summary["stages"]] == ["tuned", "shrunk"]
    assert load_supernet(tmp_path / "run/shrunk").num_classes == 10
    assert all(0 <= row["top1"] <= 1 for row in summary["subnets"])
    assert summary["subnets"][0]["macs"] < summary["subnets"][-1]["macs"]


@pytest.mark.slow
def test_a_whole_run_from_a_file_of_nnabla(oracle, tmp_path):
    for i in range(80):  # few, since the network is large
        path = tmp_path / "pictures" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (3 * i, 100 + i, 255 * (i % 2))).save(path)
    summary = fit(asked(oracle / "weights10.h5", str(tmp_path / "pictures")), tmp_path / "run", Options())
    assert [row["name"] for row in summary["stages"]] == ["tuned", "shrunk"]
    assert summary["subnets"][0]["macs"] < summary["subnets"][-1]["macs"]
    config = json.loads((tmp_path / "run/tuned/config.json").read_text())
    assert config["network"]["num_classes"] == 2
