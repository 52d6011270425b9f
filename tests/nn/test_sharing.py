"""What sub-networks share gives the same logits, gradients and statistics as one pass each."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from onceforall.errors import UserError
from onceforall.nn import Shared, Supernet
from onceforall.space import search_space
from onceforall.space.rows import elastic

SPACE = search_space("mobilenet_v3_large_32px?width_mult=0.25")
NARROW = SPACE.restrict(expand=(3,), kernel=(3,)).largest
DEEP = SPACE.restrict(expand=(4, 6), kernel=(5,))


def subnets(kind):
    rng = random.Random(3)
    return {"random": [SPACE.sample(rng) for _ in range(5)], "twice the same": [SPACE.middle] * 2,
            "one kernel, two widths": [DEEP.largest, DEEP.smallest, DEEP.smallest],
            "narrow first": [NARROW, SPACE.largest], "one": [SPACE.smallest]}[kind]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["random", "twice the same", "one kernel, two widths", "narrow first", "one"])
def test_sharing_changes_nothing(kind, training):
    net = Supernet(SPACE, 5, dropout=0.0, generator=torch.Generator().manual_seed(1)).double().train(training)
    alone = copy.deepcopy(net)
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()
    labels = torch.arange(6) % 5
    shared = Shared(net, images, subnets(kind))
    kernels = [arch.stages[0][0]["kernel"] for arch in subnets(kind)]
    for arch in sorted(subnets(kind), key=lambda arch: kernels.index(arch.stages[0][0]["kernel"])):
        logits, expected = shared(arch), alone(images, arch)
        torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
        F.cross_entropy(logits, labels).backward()
        F.cross_entropy(expected, labels).backward()
    shared.backward()
    for (name, p), q in zip(net.named_parameters(), alone.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if q.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=name)
    for (name, a), b in zip(net.named_buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


def test_a_first_stage_that_may_be_empty():
    row = replace(SPACE.stages[0], width=0, depth=(0, 1), stride=1)
    space = replace(SPACE, stages=(row, *SPACE.stages))
    net, images = Supernet(space, 5, dropout=0.0).double().eval(), torch.rand(2, 3, 16, 16).double()
    for archs in ([space.largest, space.smallest], [space.largest]):
        shared = Shared(net, images, archs)
        for arch in archs:
            torch.testing.assert_close(shared(arch), net(images, arch), rtol=1e-12, atol=1e-12)


def test_a_layer_that_only_some_have():
    space = replace(SPACE, stages=tuple(replace(row, elastic=elastic({"kernel": (3, 5), "expand": (1, 4)}))
                                        for row in SPACE.stages))
    with pytest.raises(UserError, match="stages.0.0.expand: is there at some choices only"):
        Supernet(space)


def test_what_is_shared_runs_once(monkeypatch):
    net = Supernet(SPACE, 5, dropout=0.0)
    counted = {"stem": 0, "expand": 0, "depthwise": 0}
    block = net.stages[0][0]
    for name, module in (("stem", net.stem), ("expand", block.expand), ("depthwise", block.depthwise)):
        module.register_forward_hook(lambda *_, name=name: counted.update({name: counted[name] + 1}))
    archs = subnets("random")
    shared = Shared(net, torch.rand(2, 3, 16, 16), archs)
    for arch in archs:
        shared(arch)
    kernels = {arch.stages[0][0]["kernel"] for arch in archs}
    assert 1 < len(kernels) < len(archs)
    assert counted == {"stem": 1, "expand": 1, "depthwise": len(kernels)}
