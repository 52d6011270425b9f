"""Statistics of batch normalisation that are kept while the largest sub-network is trained."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from onceforall.api import train
from onceforall.errors import UserError
from onceforall.nn import Supernet, extract, input_statistics
from onceforall.run import Run
from onceforall.space import search_space
from onceforall.training.engine.checkpoint import NEWEST
from onceforall.training.engine.journal import METRICS
from onceforall.training.evaluate import Evaluator
from onceforall.training.recipe import START
from onceforall.training.settings import Optimizer
from onceforall.training.setup import data_of
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Moment, often_largest, progressive_shrinking
from onceforall.weights.nets import load_supernet

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=(12, 16), depth=(2,))


def statistics(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in net.state_dict().items() if "running_" in name}


def trained(net: Supernet, folder: Path, bn: str) -> tuple[Supernet, Supernet]:
    """A supernet before and after a stage."""
    stage = Stage(epochs=1, optimizer=Optimizer(lr=0.002), bn=bn, largest_share=1.0, validate_archs=("largest",),
                  batches=Batches(size=128, calibration=200))
    run = train(net, "digits", stages=[stage], output=folder)
    assert run.stages["stage1"].stage.bn == bn
    return load_supernet(folder / START), load_supernet(folder / "stage1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Of a run whose statistics were measured first."""
    folder = tmp_path_factory.mktemp("measured")
    trained(Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)), folder, "measured")
    return folder


def as_trained(folder: Path) -> Supernet:
    """The supernet of a stage's last checkpoint, with the statistics that it was trained with."""
    net = Supernet(SPACE, 10)
    net.load_state_dict({name.removeprefix("net."): tensor for name, tensor in load_file(folder / NEWEST).items()
                         if name.startswith("net.")})
    return net


@pytest.mark.parametrize("bn", ["batch", "kept"])
def test_running_statistics_stay_where_they_are_kept(bn, folder, tmp_path):
    before, _ = trained(load_supernet(folder / "stage1"), tmp_path, bn)
    after = as_trained(tmp_path / "stage1")
    assert not torch.equal(before.stem.conv.weight, after.stem.conv.weight)
    assert not torch.equal(before.stem.norm.weight, after.stem.norm.weight)  # its scale is trained all the same
    same = [torch.equal(tensor, statistics(after)[name]) for name, tensor in statistics(before).items()]
    assert all(same) if bn == "kept" else not any(same)


def test_measured_statistics_are_those_of_the_pictures(folder):
    before, after = load_supernet(folder / START), as_trained(folder / "stage1")
    assert not torch.equal(before.stem.norm.weight, after.stem.norm.weight)
    data = data_of(Run(folder).stages["stage1"].data)
    expected = Evaluator(data, calibration_images=200).recalibrated(extract(before, SPACE.largest), 16)
    for name, tensor in statistics(expected).items():
        torch.testing.assert_close(statistics(after)[name], tensor, rtol=1e-5, atol=1e-6)


def test_what_a_stage_with_kept_statistics_leaves_can_be_recalibrated(folder, tmp_path):
    before, after = trained(load_supernet(folder / "stage1"), tmp_path, "kept")
    evaluator = Evaluator(data_of(Run(tmp_path).stages["stage1"].data), calibration_images=200)
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    trained_net = extract(as_trained(tmp_path / "stage1"), SPACE.largest).eval()
    wanted = trained_net(images)
    found = extract(after, SPACE.largest).eval()
    assert (found(images) - wanted).norm() < 1e-4 * wanted.norm()
    assert not any(torch.equal(tensor, statistics(after)[name]) for name, tensor in statistics(before).items())
    evaluated = input_statistics(trained_net, torch.nn.BatchNorm2d, evaluator._calibrating(16))
    for name, (mean, var) in evaluated.items():  # pictures of the middle size, 16 of 12 and 16
        torch.testing.assert_close(after.get_submodule(name).running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(after.get_submodule(name).running_var, var, rtol=1e-4, atol=1e-5)
    kept, lost = (evaluator.recalibrated(net, 16)(images) for net in (found, trained_net))
    assert (kept - wanted).norm() < 0.2 * (lost - wanted).norm()
    lines = map(json.loads, (tmp_path / "stage1" / METRICS).read_text().splitlines())
    told, = (line["top1"] for line in lines if line["kind"] == "valid")
    left = extract(after, SPACE.largest).eval()
    assert told == evaluator.score_net(left, 16, evaluator.data.held_out).top1
    shipped = Run(tmp_path / "stage1").extract("largest").net.eval()
    assert statistics(shipped).keys() == statistics(left).keys()
    for name, tensor in statistics(left).items():
        torch.testing.assert_close(statistics(shipped)[name], tensor, rtol=0, atol=0)
    smaller = Run(tmp_path / "stage1").extract("smallest").net
    assert not torch.equal(smaller.stem.norm.running_mean, after.stem.norm.running_mean)


@pytest.mark.parametrize("bn", ["kept", "measured"])
def test_smaller_sub_networks_have_other_statistics(bn):
    with pytest.raises(UserError, match=f"bn: {bn} stands beside smaller sub-networks"):
        Stage(epochs=1, optimizer=Optimizer(lr=0.1), bn=bn, largest_share=0.9)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_a_share_of_the_steps_trains_the_largest(share):
    strategy = often_largest(progressive_shrinking(2, teacher=True), share, teacher=True)
    steps = [strategy(SPACE, random.Random(step), Moment(step, 1000)) for step in range(1000)]
    alone = [terms for terms in steps if len(terms) == 1]
    assert len(alone) / 1000 == pytest.approx(share, abs=0.04)
    assert {(terms[0].arch, terms[0].target) for terms in alone} == {(SPACE.largest, "teacher")}
    assert all(len(terms) == 2 for terms in steps if terms not in alone)


@pytest.mark.parametrize("settings", [{"sampling": "authors"}, {"strategy": "onceforall.testing:check_space"}])
def test_a_share_beside_what_draws_by_itself_is_refused(settings):
    with pytest.raises(UserError, match="other settings beside it draw too"):
        Stage(epochs=1, optimizer=Optimizer(lr=0.1), largest_share=0.5, **settings)
