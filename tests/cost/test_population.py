"""Costs of populations equal those of single sub-networks; memory equals what a run of the net holds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from onceforall.cost import macs, params
from onceforall.cost.memory import block_memory, peak_memory
from onceforall.cost.population import CostTable, canonical, macs_table, memory_table, params_table
from onceforall.nn import Supernet, extract
from onceforall.nn.subnet import PlainBlock, SqueezeExcite
from onceforall.space import CATALOG, search_space

COMPOUND = search_space("mobilenet_v3_large_32px").compound()


@pytest.mark.parametrize("name", [*CATALOG, "compound"])
def test_tables_equal_the_single_functions(name):
    space, rng = COMPOUND if name == "compound" else search_space(name, width_mult=0.6), random.Random(3)
    space = space.each("depth", [sorted({stage.depth[0], stage.depth[-1]}) for stage in space.stages])
    space = space.restrict(resolutions=space.resolutions[::3])
    archs = [space.smallest, space.largest, space.middle, *(space.sample(rng) for _ in range(300))]
    codes = np.array([space.encode(arch) for arch in archs])
    assert macs_table(space, num_classes=7).of(codes).tolist() == [macs(space, a, num_classes=7) for a in archs]
    assert params_table(space, num_classes=7).of(codes).tolist() == [params(space, a, num_classes=7) for a in archs]
    assert memory_table(space).of(codes).tolist() == [peak_memory(space, a) for a in archs]


@pytest.mark.parametrize("space", [search_space("mobilenet_v3_large_32px").restrict(expand=(3,), depth=(2, 3)),
                                   COMPOUND.restrict(kernel=(3, 5))], ids=["all", "compound"])
def test_the_least_is_the_smallest_of_all(space):
    """Costs without a pattern, where the cheapest choices are anywhere."""
    space = space.restrict(resolutions=(12, 16))
    macs_, rng = macs_table(space), np.random.default_rng(0)
    codes = np.array([space.encode(a) for a in {space.sample(random.Random(i)) for i in range(3000)}])
    for largest in (False, True):
        table = CostTable(space, rng.normal(size=2), rng.normal(size=macs_.blocks.shape), largest)
        assert table.smallest <= table.of(codes).min()
        assert table.smallest == table.of(table.least[None])[0]
        assert space.contains(space.decode(table.least.tolist()))
        assert table.at([16]).smallest >= table.smallest


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50d", "attentive_nas"])
def test_the_least_with_elastic_widths(name):
    """Costs without a pattern, of sub-networks around the cheapest: none of its neighbours costs less."""
    space, rng = search_space(name), np.random.default_rng(0)
    space = space.restrict(resolutions=space.resolutions[:2])
    macs_ = macs_table(space)
    for largest in (False, True):
        table = CostTable(space, rng.normal(size=2), rng.normal(size=macs_.blocks.shape), largest)
        least = table.least
        assert table.smallest == table.of(least[None])[0]
        near = np.repeat(least[None], sum(space.cardinalities), axis=0)
        near[np.arange(len(near)), np.repeat(np.arange(len(least)), space.cardinalities)] = [
            i for n in space.cardinalities for i in range(n)]
        codes = [space.encode(space.sample(random.Random(i))) for i in range(2000)]
        assert table.smallest <= min(table.of(canonical(space, near)).min(), table.of(np.array(codes)).min())


@pytest.mark.parametrize("name", CATALOG)
def test_the_smallest_is_the_smallest(name):
    space = search_space(name)
    space = space.restrict(resolutions=space.resolutions[:1])
    assert macs_table(space).smallest == macs(space, space.smallest)
    assert params_table(space).smallest == params(space, space.smallest)
    assert memory_table(space).smallest == peak_memory(space, space.smallest)


class Live:
    """Counts activations while a net runs: of each layer its input and output, and what its block keeps."""

    def __init__(self, net: nn.Module) -> None:
        self.peaks: list[int] = [0]  # outside blocks, then block by block
        self.kept, self.source = 0, None
        for module in net.modules():
            if isinstance(module, PlainBlock):
                module.register_forward_pre_hook(self._enter_block)
                module.register_forward_hook(self._leave_block)
            elif isinstance(module, SqueezeExcite):
                module.register_forward_hook(self._gate)
            elif isinstance(module, nn.Conv2d):
                module.register_forward_hook(self._layer)

    def _enter_block(self, module, inputs):
        self.source = inputs[0]
        self.kept = inputs[0].numel() if module.residual else 0
        self.peaks.append(0)

    def _leave_block(self, module, inputs, output):
        self.kept = 0

    def _gate(self, module, inputs, output):
        self._hold(inputs[0].numel() + output.numel() + output.shape[1] + self.kept)

    def _layer(self, module, inputs, output):
        kept = 0 if inputs[0] is self.source else self.kept
        self._hold(inputs[0].numel() + output.numel() + kept)

    def _hold(self, count):
        self.peaks[-1] = max(self.peaks[-1], count)


@torch.no_grad()
def test_peak_memory_is_what_a_run_holds():
    space, rng = search_space("mobilenet_v3_large", width_mult=0.5), random.Random(1)
    net = Supernet(space, 10).eval()
    for arch in (space.smallest, space.largest, *(space.sample(rng) for _ in range(5))):
        plain = extract(net, arch)
        live = Live(plain)
        plain(torch.zeros(1, 3, arch.resolution, arch.resolution))
        assert peak_memory(space, arch) == 4 * max(live.peaks)
        blocks = list(net.plan(arch).blocks())
        assert [block_memory(b) for b in blocks[:-1]] == [4 * peak for peak in live.peaks[1:-1]]  # the last: with head
