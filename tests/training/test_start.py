"""What OFATrainer begins with: a sub-network's own weights as they are, or one cut out of a supernet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import deep as config

from onceforall.data import DataSpec, load_data
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.nn import Subnet, Supernet, extract
from onceforall.space import search_space
from onceforall.training.evaluate import Evaluator
from onceforall.training.stage import Training
from onceforall.training.start import subnet_of
from onceforall.weights.nets import Trained, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(depth=(4,))
ARCH = SPACE.smallest.at(16)  # all MB3 3x3


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    return Evaluator(load_data(DataSpec("digits")), calibration_images=100)


@pytest.fixture(scope="module")
def subnet() -> Subnet:
    net = extract(Supernet(SPACE, 10, generator=torch.Generator().manual_seed(7)), ARCH)
    net.stem.norm.running_mean.fill_(0.25)  # statistics that no recalibration would measure
    return net


def settings(weights: Path, *, operators: tuple[str, ...] = ("MB3 3x3",), img_size: int = 16, **network) -> Training:
    values = config(weights=weights, img_size=img_size).to_dict()
    values["network"]["ofa"] |= {"op_candidates": list(operators), "genotype": [0] * 20, **network}
    return training_of(Config.from_dict(values), "OFATrainer")


@pytest.fixture(params=["net.h5", "net.safetensors", "net.pth"])
def weights(request, subnet, tmp_path) -> Path:
    save(Trained(subnet, SPACE, ARCH), tmp_path / request.param)
    return tmp_path / request.param


def test_a_sub_network_is_taken_as_it_is(subnet, weights, evaluator):
    net = subnet_of(settings(weights, drop_rate=0.3, bn_param=[0.8, 1e-5]), evaluator)
    state = net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in subnet.state_dict().items())
    assert net.head.dropout.p == 0.3
    assert net.stem.norm.momentum == pytest.approx(0.2)


@pytest.mark.slow
def test_a_new_classifier_and_nothing_else_is_new(subnet, weights, evaluator):
    nets = [subnet_of(settings(weights, num_classes=4, new_classifier=True), evaluator) for _ in range(2)]
    assert nets[0].head.classifier.weight.shape[0] == 4
    for name, tensor in nets[0].state_dict().items():
        assert torch.equal(tensor, nets[1].state_dict()[name])
        assert name.startswith("head.classifier.") or torch.equal(tensor, subnet.state_dict()[name])


@pytest.mark.parametrize(("network", "message"), [
    ({"operators": ("MB3 5x5",)}, r"network.weights: .* is of the sub-network 16:k3e3.*, not of 16:k5e3.*; give that"),
    ({"img_size": 12}, "not of 12:k3e3"),
    ({"width_mult": 0.5}, r"is of .*width_mult=0.15, not of .*width_mult=0.5; give its space"),
    ({"num_classes": 11}, "network.num_classes: 11 is not 10, as .* tells apart; give 10, or new_classifier true"),
])
def test_another_sub_network_is_one_line(subnet, tmp_path, evaluator, network, message):
    save(Trained(subnet, SPACE, ARCH), tmp_path / "net.h5")
    with pytest.raises(UserError, match=message):
        subnet_of(settings(tmp_path / "net.h5", **network), evaluator)


@pytest.mark.slow
def test_a_supernet_is_still_cut_and_recalibrated(tmp_path, evaluator):
    full = SPACE.restrict(kernel=(7,), expand=(6,))
    supernet = Supernet(full, 10, generator=torch.Generator().manual_seed(7))
    save(Trained(supernet, full), tmp_path / "supernet.h5")
    save(Trained(extract(supernet, full.largest), full, full.largest), tmp_path / "largest.h5")
    net = subnet_of(settings(tmp_path / "supernet.h5", operators=("MB6 7x7", "MB6 5x5")), evaluator)
    assert torch.equal(net.head.classifier.weight, supernet.head["classifier"].weight)
    assert net.stem.norm.running_mean.any()
    wider = subnet_of(settings(tmp_path / "largest.h5", operators=("MB6 5x5", "MB6 7x7")), evaluator)
    assert wider.stages[0][0].depthwise.conv.kernel_size == (5, 5)  # the largest is a supernet's weights too
    with pytest.raises(UserError, match=r"new_classifier: is true without the weights of an extracted sub-network"):
        subnet_of(settings(tmp_path / "supernet.h5", operators=("MB6 7x7",), new_classifier=True), evaluator)
