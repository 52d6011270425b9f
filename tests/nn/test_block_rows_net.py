"""A supernet of rows whose blocks differ: its kernels, what is taken out of it, and its sorting."""

from __future__ import annotations

import random

import pytest
import torch
from torch.nn import functional as F

from onceforall.nn import Shared, Supernet, extract, sort_channels
from onceforall.space import BlockRow, Head, SearchSpace, StageSpace, Stem
from onceforall.space.rows import elastic
from onceforall.testing.space import random_supernet

SPACE = SearchSpace("blocks", (16,), Stem(8, 1, "relu"), (
    StageSpace(16, (2, 3), 2, "relu", se=False, elastic=elastic({"kernel": (3, 5, 7), "expand": (2, 4)}), blocks=(
        BlockRow(), BlockRow(elastic({"kernel": (5,)})), BlockRow(elastic({"kernel": (3, 7), "expand": (1.5, 3, 6)})))),
    StageSpace(24, (1, 2), 2, "hswish", se=True, elastic=elastic({"fraction": (0.5, 2 / 3, 1)}), fixed=(("kernel", 3),),
               blocks=(BlockRow(fixed=(("expand", 6),)), BlockRow(fixed=(("hidden", 60),))))), Head(48, 32, "relu"))


@pytest.fixture
def net() -> Supernet:
    net = random_supernet(SPACE, 5).double().train()
    net.dropout = 0.0
    return net


def archs():
    rng = random.Random(2)
    return [SPACE.smallest, SPACE.middle, SPACE.largest, *(SPACE.sample(rng) for _ in range(4))]


def test_each_block_has_the_kernels_of_its_own_choices(net):
    found = [name.replace(".depthwise.conv.kernel_", " ") for name in net.state_dict() if "kernel_" in name]
    assert found == ["stages.0.0 7to5", "stages.0.0 5to3", "stages.0.2 7to3"]


@pytest.mark.parametrize("training", [False, True])
def test_forward_equals_extract(net, training):
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    for arch in archs():
        plain = extract(net.train(training), arch)
        assert torch.equal(net(images, arch), plain(images))


def test_sharing_changes_nothing(net):
    images, labels = torch.rand(4, 3, 16, 16, dtype=torch.float64), torch.arange(4)
    shared = Shared(net.eval(), images, archs())
    for arch in archs():
        torch.testing.assert_close(shared(arch), net(images, arch), rtol=1e-12, atol=1e-12)
        F.cross_entropy(shared(arch), labels).backward()
    shared.backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_sorting_keeps_what_was_trained(net):
    """All blocks with each of their own narrower widths answer as before."""
    images = torch.rand(3, 3, 16, 16, dtype=torch.float64)
    net.eval()
    trained = SPACE.restrict(expand=(2, 3, 4, 6), fraction=(2 / 3, 1))
    kept = [trained.smallest, trained.largest, *(trained.sample(random.Random(i)) for i in range(6))]
    before = [net(images, arch) for arch in kept]
    weight = net.stages[0][2].project.conv.weight.clone()
    sort_channels(net, trained)
    for arch, logits in zip(kept, before, strict=True):
        torch.testing.assert_close(net(images, arch), logits, rtol=1e-9, atol=1e-9)
    assert not torch.equal(net.stages[0][2].project.conv.weight, weight)
