"""The minutes that a run is expected to train."""

from __future__ import annotations

import time

import pytest
import torch

from onceforall.data import DataSpec
from onceforall.recipes import expected
from onceforall.recipes.expected import expected_minutes
from onceforall.space import search_space
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.network import Network
from onceforall.training.recipe import Recipe
from onceforall.training.settings import Loss, Optimizer
from onceforall.training.setup import data_of
from onceforall.training.stage import Batches, Stage

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=(12, 16), depth=(2,))


def stage(epochs: int, **changes: object) -> Stage:
    return Stage(epochs=epochs, optimizer=Optimizer(lr=0.01), batches=Batches(size=64), **changes)


def minutes(tmp_path, monkeypatch, stages: dict[str, Stage], seconds: dict[int, float]) -> float:
    """With steps of the largest sub-network that take so many seconds at each size."""
    monkeypatch.setattr(expected, "_seconds", lambda net, arch, batch, compute: seconds[arch.resolution])
    recipe = Recipe(data=DataSpec("digits"), network=Network(space=SPACE, num_classes=10), stages=stages)
    data = data_of(recipe.data)
    return expected_minutes(recipe.trainings(tmp_path), data, Compute(), Processes())


def test_the_largest_alone_takes_what_was_timed(tmp_path, monkeypatch):
    steps = len(data_of(DataSpec("digits")).train) // 64
    found = minutes(tmp_path, monkeypatch, {"full": stage(3, largest_share=1.0)}, {12: 1.9, 16: 2.0})
    assert found == pytest.approx(3 * steps * 1.95 / 60)


def test_smaller_ones_take_less_and_a_teacher_more(tmp_path, monkeypatch):
    def of(**changes: object) -> float:
        return minutes(tmp_path, monkeypatch, {"full": stage(1), "all": stage(10, **changes)}, {12: 1.9, 16: 2.0})

    some, largest = of(), of(largest_share=1.0)
    taught = of(teacher="full", loss=Loss(kd_weight=1.0))
    assert some < largest
    assert some < taught < some + 11 / 10 * largest / 3
    assert of(subnets_per_step=2) > 1.5 * some


def test_steps_are_timed(tmp_path, monkeypatch):
    before = torch.random.get_rng_state()
    recipe = Recipe(data=DataSpec("digits"), network=Network(space=SPACE, num_classes=10), stages={"full": stage(1)})
    began = time.perf_counter()
    found = expected_minutes(recipe.trainings(tmp_path), data_of(recipe.data), Compute(), Processes())
    steps = len(data_of(recipe.data).train) // 64
    assert 0 < found / steps * 60 < time.perf_counter() - began  # a step takes less than all that was timed
    assert torch.equal(torch.random.get_rng_state(), before)
