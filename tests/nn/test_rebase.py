"""Statistics of what layers read: BN that is moved to them, and channels that are sorted by them."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from onceforall.nn import (
    Supernet,
    extract,
    input_spread,
    input_statistics,
    rebase,
    recalibrate,
    sort_channels,
    take_norms,
)
from onceforall.space import search_space
from onceforall.testing.space import random_supernet

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=(16,), depth=(2,))


@pytest.fixture
def net() -> Supernet:
    """A supernet whose statistics are those of no pictures."""
    return random_supernet(SPACE)


def test_a_rebased_net_answers_as_before_and_can_be_recalibrated(net):
    torch.manual_seed(0)
    images = torch.randn(64, 3, 16, 16)
    before = extract(net, SPACE.largest).eval()
    wanted = before(images)
    lost = recalibrate(deepcopy(before), [images])(images)
    after = rebase(deepcopy(before), [images])
    torch.testing.assert_close(after(images), wanted, rtol=1e-3, atol=1e-3)
    kept = recalibrate(deepcopy(after), [images])(images)
    assert (kept - wanted).norm() < 1e-3 * wanted.norm() < 1e-1 * (lost - wanted).norm()


def test_statistics_of_what_convolutions_read(net):
    images = torch.randn(8, 3, 16, 16) * torch.tensor([1.0, 2.0, 0.0])[:, None, None] + 5
    mean, var = input_statistics(extract(net, SPACE.largest).eval(), torch.nn.Conv2d, images.split(4))["stem.conv"]
    torch.testing.assert_close(mean, images.mean((0, 2, 3)))
    parts = [part.var((0, 2, 3), correction=0) for part in images.split(4)]
    torch.testing.assert_close(var, torch.stack(parts).mean(0))
    assert var[2] == 0


def test_batches_of_one_shape_are_needed(net):
    largest = extract(net, SPACE.largest).eval()
    for batches in ([], [torch.zeros(2, 3, 16, 16), torch.zeros(3, 3, 16, 16)]):
        with pytest.raises(ValueError, match="need batches of one shape"):
            rebase(largest, batches)


def test_what_is_constant_counts_where_no_norm_follows(net):
    """A gate's convolutions have none, and a large constant moves them."""
    images = [torch.randn(16, 3, 16, 16)]
    largest = extract(net, SPACE.largest).eval()
    spread, found = input_spread(largest, images), input_statistics(largest, torch.nn.Conv2d, images)
    excite = next(name for name in found if name.endswith("excite.conv"))
    mean, var = found[excite]
    assert mean.abs().max() > 0
    torch.testing.assert_close(spread[excite], (mean.square() + var).sqrt())
    torch.testing.assert_close(spread["stem.conv"], found["stem.conv"][1].sqrt())


def test_the_norms_of_a_narrower_sub_network_are_taken_into_the_first_channels(net):
    narrow = extract(net, SPACE.smallest)
    before = net.stages[0][0].expand.norm.weight.clone()  # type: ignore[index]
    with torch.no_grad():
        for module in narrow.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.fill_(7)
    take_norms(net, narrow)
    after = net.stages[0][0].expand.norm.weight  # type: ignore[index]
    width = narrow.get_submodule("stages.0.0.expand.norm").num_features
    assert 0 < width < len(after)
    assert (after[:width] == 7).all() and torch.equal(after[width:], before[width:])


def test_channels_that_hardly_vary_are_sorted_to_the_end(net):
    project = net.stages[0][0].project.conv  # type: ignore[index]
    with torch.no_grad():
        project.weight.copy_(torch.rand_like(project.weight) + 0.5)
    largest = extract(net, SPACE.largest)
    spread = {name: torch.ones(conv.in_channels) for name, conv in largest.named_modules()
              if isinstance(conv, torch.nn.Conv2d)}
    spread["stages.0.0.project.conv"][[0, 2]] = torch.tensor([0.0, 1e-3])
    before = project.weight.clone()
    images = torch.randn(4, 3, 16, 16)
    wanted = largest.eval()(images)
    sort_channels(net, SPACE.top, spread=spread)
    assert torch.equal(project.weight[:, -1], before[:, 0])
    assert torch.equal(project.weight[:, -2], before[:, 2])
    norms = project.weight.square().sum((0, 2, 3))
    assert norms[:-2].equal(norms[:-2].sort(descending=True).values)
    torch.testing.assert_close(extract(net, SPACE.largest).eval()(images), wanted, rtol=1e-3, atol=1e-4)
