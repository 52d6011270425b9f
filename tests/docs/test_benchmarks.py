"""The comparisons with the authors' code run, print what they promise, and both sides compute the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from in_turn import rows_of
from PIL import Image

from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.weights.nets import Trained, save


def cases(*arguments: str) -> list[dict[str, float]]:
    found = rows_of(*arguments)
    for case in found:
        assert case["n"] == 1
        assert case["ratio"] == pytest.approx(case["reference_s"] / case["ours_s"])
    return found


@pytest.fixture(autouse=True)
def reference():
    pytest.importorskip("ofa.utils", reason="PyPI's ofa is not installed")


@pytest.mark.slow
def test_train_step():
    (case,) = cases("train_step.py", "--only", "full_net", "--threads", "1", "--size", "64")
    assert case["case"] == "full_net"
    assert case["first_loss_difference"] < 1e-5


@pytest.mark.slow
def test_extract_and_recalibrate():
    (extracted,) = cases("extract.py")
    (recalibrated,) = cases("recalibrate.py", "--pictures", "100", "--threads", "1")
    assert extracted["difference"] < 1e-5
    assert recalibrated["difference"] < 1e-5


def pictures(folder: Path, gradient: Image.Image, *, count: int, size: tuple[int, int]) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        gradient.rotate(7 * number).resize(size).save(folder / f"{number}.jpg")


@pytest.mark.slow
def test_evaluate(tmp_path):
    space = search_space("mobilenet_v3_large_32px", width_mult=0.15)
    net = Supernet(space, num_classes=2, generator=torch.Generator().manual_seed(1))
    save(Trained(net, space), tmp_path / "net.safetensors")
    for number, split in enumerate(("train", "val")):
        for name, gradient in (("a", Image.linear_gradient("L")), ("b", Image.radial_gradient("L"))):
            pictures(tmp_path / split / name, gradient, count=50 + number, size=(40 + number, 40))
    (scored,) = cases("evaluate.py", str(tmp_path / "net.safetensors"), str(tmp_path), "--threads", "1")
    assert scored["ours_top1"] == pytest.approx(scored["reference_top1"], abs=0.1)  # they decode and resize otherwise


@pytest.mark.slow
def test_data(tmp_path):
    pictures(tmp_path / "a", Image.linear_gradient("L"), count=64, size=(300, 280))
    small, large = cases("data.py", str(tmp_path))
    assert small["case"] == "pipeline_128"
    assert 0 < small["crops_decoded_smaller"] < 1
    assert large["mean_pixel_difference"] < small["mean_pixel_difference"] < 3
