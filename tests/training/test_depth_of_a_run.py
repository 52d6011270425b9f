"""A run keeps the depth that it found its pictures to have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deep import KINDS
from small import config

from onceforall.data import Depth, Known
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import pictures_of, training_of
from onceforall.training import setup
from onceforall.training.engine import checkpoint
from onceforall.training.engine.run import train
from onceforall.training.setup import Options, data_of
from onceforall.weights.nets import open_weights

TWELVE_BITS, KIND = Depth(uint16=4095), KINDS["12 in 16 bits"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 20), ("val", 4)):
        for label in range(2):
            (root / split / str(label)).mkdir(parents=True)
            for i in range(count):
                KIND.write(rng.integers(0, 256, (16, 16), dtype=np.uint8), root / split / str(label) / f"{i}.png")
    return root


@pytest.fixture
def on_pictures(pictures: Path) -> Config:
    values = config(epoch=1, batch_size_train=16, calibration_images=16).to_dict()
    return Config.from_dict({**values, "dataloader": {"folder": {"root": str(pictures)}}})


def test_a_stopped_run_goes_on_at_its_depth(on_pictures: Config, tmp_path, caplog, monkeypatch) -> None:
    """Even where its pictures would say another one by now."""
    def stop(record):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), caplog.at_level("INFO", "onceforall"):
        train(training_of(on_pictures, search=True), tmp_path / "run", Options(listener=stop))
    assert Depth(**checkpoint.read_extra(tmp_path / "run")["depth"]) == TWELVE_BITS
    assert "4095" in (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    monkeypatch.setattr("onceforall.data.sources.decided_depth", lambda *_: Depth(uint16=16383))
    setup._kept.clear()
    assert data_of(pictures_of(on_pictures, search=True)).depth == Depth(uint16=16383)
    train(training_of(on_pictures, search=True), tmp_path / "run", Options())
    setup._kept.clear()
    assert Depth(**open_weights(tmp_path / "run").pictures["depth"]) == TWELVE_BITS


def test_pictures_are_kept_by_their_depth(on_pictures: Config) -> None:
    spec = pictures_of(on_pictures, search=True)
    decided = data_of(spec)
    assert decided.depth == TWELVE_BITS
    assert data_of(spec, Known(depth=TWELVE_BITS)) is decided
    assert data_of(spec) is decided
    other = data_of(spec, Known(depth=Depth()))
    assert other.depth == Depth() and other.train.images.max() < 20
    assert data_of(spec).depth == TWELVE_BITS
