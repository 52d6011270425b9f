"""The comparisons with the authors' code run, print what they promise, and both sides compute the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def cases(*arguments: str) -> list[dict[str, float]]:
    out = subprocess.run([sys.executable, *arguments, "--json", "--rounds", "1"], cwd=BENCHMARKS, check=True,
                         capture_output=True, text=True).stdout
    found = json.loads(out)
    for case in found:
        assert case["n"] == 1
        assert case["ratio"] == pytest.approx(case["reference_s"] / case["ours_s"])
    return found


@pytest.fixture(autouse=True)
def reference():
    pytest.importorskip("ofa.utils", reason="PyPI's ofa is not installed")


def test_train_step():
    (case,) = cases("train_step.py", "--only", "full_net", "--threads", "1")
    assert case["case"] == "full_net"
    assert case["first_loss_difference"] < 1e-5


def test_extract_and_recalibrate():
    (extracted,) = cases("extract.py")
    (recalibrated,) = cases("recalibrate.py", "--pictures", "100", "--threads", "1")
    assert extracted["difference"] < 1e-5
    assert recalibrated["difference"] < 1e-5


def test_data(tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(64):
        Image.linear_gradient("L").rotate(number).resize((300, 280)).save(tmp_path / "a" / f"{number}.jpg")
    small, large = cases("data.py", str(tmp_path))
    assert small["case"] == "pipeline_128"
    assert 0 < small["crops_decoded_smaller"] < 1
    assert large["mean_pixel_difference"] < small["mean_pixel_difference"] < 3
