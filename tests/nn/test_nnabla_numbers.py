"""Logits that NNablaNAS itself computed, for eight sub-networks, unsorted, sorted and recalibrated."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from onceforall.interop.nnabla.names import entries
from onceforall.interop.nnabla.weights import read, to_ours
from onceforall.nn import Supernet, extract, recalibrate, sort_channels
from onceforall.space import Arch, search_space

SPACE = search_space("mobilenet_v3_large")


@pytest.fixture(scope="module")
def net(oracle):
    net = Supernet(SPACE, 10).eval()
    arrays = read(oracle / "weights10.h5").arrays
    names = entries(net.plan(SPACE.largest), SPACE)
    assert [e.theirs for e in names] == [line.split()[0] for line in (oracle / "params10.txt").read_text().splitlines()]
    net.load_state_dict({e.ours: to_ours(e.ours, arrays[e.theirs]) for e in names}, strict=False)
    return net


@pytest.fixture(scope="module")
def images(oracle):
    return torch.from_numpy(np.load(oracle / "input_a_2x3x64x64.npy"))


def genotypes(oracle):
    return {name: Arch.from_genotype(SPACE, genes) for name, genes in
            json.loads((oracle / "genotypes.json").read_text()).items()}


def relative_error(ours, theirs):
    theirs = torch.from_numpy(theirs)
    return float((ours.detach() - theirs).norm() / theirs.norm())


def test_logits(net, images, oracle):
    expected = np.load(oracle / "logits10.npz")
    for name, arch in genotypes(oracle).items():
        assert relative_error(net(images, arch), expected[f"C_train/{name}/a"]) < 1e-5
        assert relative_error(extract(net, arch)(images), expected[f"C_train/{name}/a"]) < 1e-5


def test_logits_after_channel_sorting(net, images, oracle):
    expected = np.load(oracle / "logits10.npz")
    sorted_net = copy.deepcopy(net)
    sort_channels(sorted_net, SPACE.restrict(expand=(6,)))
    for name, arch in genotypes(oracle).items():
        assert relative_error(sorted_net(images, arch), expected[f"B_search_sorted/{name}/a"]) < 1e-5


def test_logits_after_recalibration(net, images, oracle):
    expected = np.load(oracle / "logits10_calibrated.npz")
    batches = torch.from_numpy(np.load(oracle / "calib_batches_3x8x3x64x64.npy"))
    archs = genotypes(oracle)
    for name in ("tutorial", "smallest", "largest", "random0"):
        plain = recalibrate(extract(net, archs[name]), batches)
        assert relative_error(plain(images), expected[f"{name}/a"]) < 1e-5
