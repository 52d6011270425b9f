"""A whole `ofa fit` that is killed at some moment and started again ends with the same bits as one that was not.

A small version; `python benchmarks/kills.py` kills 25, reliability.md has the figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import kills

FEWER_STEPS = f"""
import sys
from dataclasses import replace
from onceforall.cost import predictor
from onceforall.recipes import RECIPES
from onceforall.space import CATALOG
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from few_blocks import few_blocks
CATALOG["few_blocks"] = few_blocks
predictor._EPOCHS = 10
known = RECIPES["digits"]
ends = {{name: (getattr(known, name)[0], getattr(known, name)[-1])
        for name in ("stages", "epochs", "lr", "warmup", "subnets", "strategy")}}
RECIPES["digits"] = replace(known, space="few_blocks", batch=128, calibration_images=100, **ends)
from functools import partial
from onceforall.recipes import pick
pick.Evolution = partial(pick.Evolution, population=100, generations=50)
"""


@pytest.mark.slow
def test_a_killed_fit_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    """Killed while a file is written; `tests/training/test_run.py` kills at other moments. Batches are large, so that
    an epoch has few steps."""
    monkeypatch.setattr(kills, "FIT", kills.FIT.replace("me, request", FEWER_STEPS + "me, request"))
    (kill,) = kills.kills(tmp_path, 1, seed=5)
    assert kill.differences == []
    assert (tmp_path / "whole" / "summary.json").exists()


def test_a_file_that_is_gone_before_it_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept.json").touch()
    monkeypatch.setattr(kills, "files", lambda folder: [folder / "x.partial", folder / "run" / "kept.json"])
    assert kills.phase(tmp_path) == "run/kept.json"


def test_the_comparison_sees_one_bit(tmp_path):
    from safetensors.torch import save_file
    from torch import ones
    for name, value in (("a", 1.0), ("b", 1.0000001)):
        (tmp_path / name).mkdir()
        save_file({"w": ones(3), "v": ones(2) * value}, tmp_path / name / "x.safetensors")
        (tmp_path / name / "m.jsonl").write_text(json.dumps({"top1": value, "seconds": len(name) * value, "of": name}))
    (tmp_path / "b" / "log.txt").write_text("a log may differ")
    (tmp_path / "b" / "more.json").write_text("{}")
    assert list(kills.differences(tmp_path / "a", tmp_path / "b")) == [
        "more.json is in one only", "m.jsonl: rows differs", "x.safetensors: v differs"]
    assert list(kills.differences(tmp_path / "a", tmp_path / "a")) == []
