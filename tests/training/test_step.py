"""One training step: NNablaNAS's own numbers, sums over sub-networks and micro-batches, what unused parameters do."""

from __future__ import annotations

import copy
import json
import random

import numpy as np
import pytest
import torch
from few_blocks import few_blocks

from onceforall.interop.nnabla.names import names_of
from onceforall.interop.nnabla.weights import to_file
from onceforall.nn import Supernet, extract
from onceforall.space import Arch, search_space
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.losses import distillation
from onceforall.training.optimizer import sgd
from onceforall.training.schedule import CosineWarmup
from onceforall.training.settings import Loss, Optimizer
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Term, progressive_shrinking
from onceforall.weights.nets import load_weights

SMALL = search_space("mobilenet_v3_large_32px?width_mult=0.25")


def course(space=SMALL, size=8, micro=None, **changes):
    stage = Stage(**{"epochs": 1, "batches": Batches(size=size, micro=micro), "optimizer": Optimizer(lr=0.1),
                     "loss": Loss(kd_weight=1), **changes})
    return Course(space=space, strategy=progressive_shrinking(2, teacher=False), stage=stage)


def learner(net, teacher=None):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2)
    return Learner(net, net, optimizer, teacher, Compute(), torch.amp.GradScaler("cpu", enabled=False), Processes())


@pytest.fixture
def net():
    return Supernet(SMALL, 5, dropout=0.0, generator=torch.Generator().manual_seed(1)).double().train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    return torch.rand(8, 3, 16, 16, generator=generator).double(), torch.arange(8) % 5


def test_the_step_of_nnablanas(oracle):
    """Loss, every gradient and the running statistics of one step with a teacher in training mode."""
    expected = np.load(oracle / "trainstep10_tutorial_teacher_train.npz")
    space = search_space("mobilenet_v3_large")
    net = Supernet(space, 10, dropout=0.0).double()
    load_weights(net, oracle / "weights10.h5")
    net.train()
    teacher = extract(net, space.largest).requires_grad_(False)
    images = torch.from_numpy(np.load(oracle / "input_a_2x3x64x64.npy")).double()
    labels = torch.from_numpy(expected["targets"]).flatten()
    arch = Arch.from_genotype(space, json.loads((oracle / "genotypes.json").read_text())["tutorial"])
    probabilities = torch.softmax(copy.deepcopy(teacher)(images), 1)
    logits = copy.deepcopy(net)(images, arch)
    smoothed = Loss(smoothing=0.1).of_labels(logits, labels)
    assert smoothed.item() == pytest.approx(float(expected["loss_ce_ls"]), rel=1e-5)
    assert distillation(logits, probabilities).item() == pytest.approx(float(expected["loss_kd"]), rel=1e-5)
    ours = learner(net, teacher)
    loss = train_step(ours, course(space, size=2), images, labels, terms=[Term(arch, "teacher")], lr=0.0)
    assert loss.item() == pytest.approx(float(expected["loss_total"]), rel=1e-5)
    largest = max(np.linalg.norm(expected[k]) for k in expected.files if k.startswith("grad/"))
    compared = 0
    for entry in names_of(net):
        if entry.trained:
            theirs = torch.from_numpy(expected[f"grad/{entry.theirs}"]).double()
            grad = net.get_parameter(entry.ours).grad
            grad = torch.zeros_like(theirs) if grad is None else to_file(entry.ours, grad)
            error = (grad - theirs).norm() / max(float(theirs.norm()), 1e-3 * largest)  # theirs is float32
            assert error < 1e-3, entry.theirs
        elif f"stat_after/{entry.theirs}" in expected.files:
            theirs = torch.from_numpy(expected[f"stat_after/{entry.theirs}"]).double()
            ours_after = to_file(entry.ours, net.get_buffer(entry.ours))
            torch.testing.assert_close(ours_after, theirs, rtol=1e-4, atol=1e-5, msg=entry.theirs)
            compared += 1
    assert compared > 100


def test_gradients_of_a_steps_subnets_add_up(net, batch):
    archs = [SMALL.largest, SMALL.smallest]
    singles = []
    for arch in archs:
        one = learner(copy.deepcopy(net))
        train_step(one, course(), *batch, terms=[Term(arch, "labels")], lr=0.0)
        singles.append({n: p.grad for n, p in one.net.named_parameters()})
    both = learner(copy.deepcopy(net))
    train_step(both, course(), *batch, terms=[Term(arch, "labels") for arch in archs], lr=0.0)
    for name, parameter in both.net.named_parameters():
        parts = [s[name] for s in singles if s[name] is not None]
        if parts:
            torch.testing.assert_close(parameter.grad, sum(parts), rtol=1e-9, atol=1e-12)
        else:
            assert parameter.grad is None


def test_distillation_is_weighted_and_reaches_no_teacher(net, batch):
    teacher = extract(net, SMALL.largest).requires_grad_(False)
    plain, taught = learner(copy.deepcopy(net), teacher), learner(copy.deepcopy(net), copy.deepcopy(teacher))
    terms = [Term(SMALL.middle, "teacher")]
    without = train_step(plain, course(loss=Loss(kd_weight=0)), *batch, terms=terms, lr=0.0)
    with_it = train_step(taught, course(loss=Loss(kd_weight=2)), *batch, terms=terms, lr=0.0)
    logits = copy.deepcopy(net)(batch[0], SMALL.middle)
    soft = distillation(logits, torch.softmax(copy.deepcopy(teacher)(batch[0]), 1))
    assert with_it.item() == pytest.approx(without.item() + 2 * soft.item(), rel=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


def test_a_parameter_no_subnet_used_keeps_its_value(net, batch):
    """Neither weight decay nor momentum touches it (torch's optimisers skip a gradient of None)."""
    ours = learner(net)
    train_step(ours, course(), *batch, terms=[Term(SMALL.largest, "labels")], lr=0.1)
    deep = net.stages[2][3].project.conv.weight
    before = deep.detach().clone()
    used = net.stages[2][0].project.conv.weight.detach().clone()
    train_step(ours, course(), *batch, terms=[Term(SMALL.smallest, "labels")], lr=0.1)
    assert torch.equal(deep, before)
    assert not torch.equal(net.stages[2][0].project.conv.weight, used)


def test_micro_batches_average_without_batch_norm_the_same(net, batch):
    """With BN in evaluation mode the split of a batch does not matter."""
    whole, split = learner(copy.deepcopy(net).eval()), learner(copy.deepcopy(net).eval())
    terms = [Term(SMALL.middle, "labels")]
    a = train_step(whole, course(), *batch, terms=terms, lr=0.1)
    b = train_step(split, course(micro=2), *batch, terms=terms, lr=0.1)
    assert a.item() == pytest.approx(b.item(), rel=1e-6)
    for p, q in zip(whole.net.parameters(), split.net.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("update_unused", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_parameters_that_a_step_does_not_use(net, batch, update_unused, momentum):
    """They rest; or, as with gradients that Horovod zeroes, decay and momentum move them too."""
    images, labels = batch
    ours, theirs = learner(copy.deepcopy(net)), copy.deepcopy(net)
    ours.optimizer, optimizer = (torch.optim.SGD(n.parameters(), lr=0.1, momentum=momentum, nesterov=momentum > 0,
                                                 weight_decay=1e-2) for n in (ours.net, theirs))
    for arch in (SMALL.middle, SMALL.smallest, SMALL.largest, SMALL.smallest):
        train_step(ours, course(update_unused=update_unused), images, labels, terms=[Term(arch, "labels")], lr=0.1)
        for parameter in theirs.parameters():
            parameter.grad = torch.zeros_like(parameter) if update_unused else None
        Loss(smoothing=0.1).of_labels(theirs(images, arch), labels).backward()
        optimizer.step()
    for (name, p), q in zip(ours.net.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.slow
def test_twenty_steps_are_those_of_a_plain_loop():
    """One pass, one backward a sub-network and torch's own SGD: the losses agree to 1e-9."""
    few = few_blocks(0.25)
    net = Supernet(few, 5, dropout=0.0, generator=torch.Generator().manual_seed(1)).double().train()
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(2)).double()
    labels = torch.arange(8) % 5
    teacher = extract(net, few.largest).requires_grad_(False)
    plain, theirs = copy.deepcopy(net), copy.deepcopy(teacher)
    reference = torch.optim.SGD(plain.parameters(), lr=0.002, momentum=0.9, nesterov=True, weight_decay=1e-2)
    ours = learner(net, teacher)
    ours.optimizer = sgd([{"params": list(net.parameters()), "weight_decay": 1e-2}], lr=0.002, momentum=0.9,
                         nesterov=True)
    rng = random.Random(4)
    for _ in range(20):
        archs = [few.sample(rng) for _ in range(3)]
        loss = train_step(ours, course(few), images, labels, lr=0.002,
                          terms=[Term(arch, "teacher") for arch in archs])
        reference.zero_grad()
        probabilities, total = torch.softmax(theirs(images), 1), 0.0
        for arch in archs:
            logits = plain(images, arch)
            one = Loss(smoothing=0.1).of_labels(logits, labels) + distillation(logits, probabilities)
            one.backward()
            total += one.item()
        reference.step()
        assert loss.item() == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_sgd_takes_first_gradients_in_any_step(memory, momentum):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator) for s in ((8, 3, 3, 3), (8, 8, 1, 1), (8, 1, 5, 5), (6,))]
    start = [p.to(memory_format=memory) if p.dim() == 4 else p for p in start]
    ours, theirs = ([p.clone().requires_grad_() for p in start] for _ in range(2))
    fused = sgd([{"params": ours, "weight_decay": 0.01}], lr=0.1, momentum=momentum, nesterov=momentum > 0)
    plain = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=0.01)
    for used in ((0, 1), (0, 2), (3,), (0, 1, 2, 3), (1,)):
        for n, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = q.grad = None
            if n in used:
                p.grad = torch.randn(p.shape, generator=generator).to(memory_format=memory) if p.dim() == 4 else \
                    torch.randn(p.shape, generator=generator)
                q.grad = p.grad.clone()
        fused.step()
        plain.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)


def test_schedule():
    schedule = CosineWarmup(lr=0.65, warmup_lr=0.08125, warmup=5, total=25)
    assert schedule(0) == pytest.approx(0.08125 + (0.65 - 0.08125) / 5)
    assert schedule(4) == pytest.approx(0.65)
    assert schedule(5) == pytest.approx(0.65)
    assert schedule(15) == pytest.approx(0.325)
    rates = [schedule(i) for i in range(5, 25)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.01
    assert CosineWarmup(0.02, 0.0025, 0, 10)(0) == pytest.approx(0.02)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_cross_entropy_by_hand(smoothing):
    logits, labels = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 5, 2, 2])
    target = torch.full((4, 6), smoothing / 6, dtype=torch.float64)
    target[torch.arange(4), labels] += 1 - smoothing
    by_hand = -(target * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Loss(smoothing=smoothing).of_labels(logits, labels), by_hand)
