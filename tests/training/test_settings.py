"""Settings: what is refused where it is made, and any optimiser of torch, stopped and resumed to the bit."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F

from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.engine import checkpoint
from onceforall.training.engine.checkpoint import Position
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.optimizer import optimizer_of, spared
from onceforall.training.settings import OPTIMIZERS, Loss, Optimizer, Schedule
from onceforall.training.stage import Stage
from onceforall.training.strategy import Moment, progressive_shrinking

SPACE = search_space("mobilenet_v3_large_32px?width_mult=0.15")


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Optimizer(lr=0), "lr: 0 is not above 0"),
    (lambda: Optimizer(lr=0.1, name="adamv"), "name: 'adamv' is no optimizer here; known: .*adamw"),
    (lambda: Optimizer(lr=0.1, name="lbfgs"), "name: 'lbfgs' is no optimizer here"),
    (lambda: Optimizer(lr=0.1, momentun=0.9), "momentun: is no argument of torch.optim.sgd; did you mean momentum?"),
    (lambda: Optimizer(lr=0.1, name="adamw", momentum=0.9),
     "momentum: is no argument of torch.optim.adamw; known: .*betas"),
    (lambda: Optimizer(lr=0.1, name="adamw", betas=(0.9, 1.5)), "torch.optim.adamw does not take this: .*beta"),
    (lambda: Optimizer(lr=0.1, name="rprop", weight_decay=0.1), "weight_decay: torch.optim.rprop has none"),
    (lambda: Optimizer(lr=0.1, no_decay=("(",)), r"no_decay\[0\]: '\(' is not a regular expression"),
    (lambda: Schedule(shape="cosinus"), "shape"),
    (lambda: Schedule(warmup=3), "warmup: is not a known key; did you mean warmup_(lr|epochs)?"),
    (lambda: Loss(smoothing=1.0), "smoothing: 1.0 is not below 1"),
    (lambda: Loss(kd="alfa"), "kd"),
])
def test_what_breaks_a_rule_is_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert str(caught.value).count("\n") == 0


def test_functions_of_ones_own():
    rate = Schedule(shape=lambda step, steps: 1 - step / steps).rate(0.2, epochs=2, steps_per_epoch=5)
    assert [rate(step) for step in (0, 5, 9)] == pytest.approx([0.2, 0.1, 0.02])
    logits, labels, soft = torch.randn(4, 3), torch.tensor([0, 1, 2, 0]), torch.full((4, 3), 1 / 3)
    loss = Loss(labels=F.multi_margin_loss, kd=lambda logits, soft: (logits.softmax(1) - soft).square().mean())
    assert loss.of_labels(logits, labels) == F.multi_margin_loss(logits, labels)
    assert loss.of_teacher(logits, soft) == (logits.softmax(1) - soft).square().mean()


def test_what_has_no_decay():
    names = ["stem.conv.weight", "stem.norm.weight", "stem.norm.bias", "head.classifier.weight", "head.classifier.bias"]
    assert spared(names, ["norm"]) == {"stem.norm.weight", "stem.norm.bias"}
    assert spared(names, ["bias"]) == {"stem.norm.bias", "head.classifier.bias"}
    assert spared(names, ["^head", "bias"]) == {"head.classifier.weight", "head.classifier.bias", "stem.norm.bias"}
    net = Supernet(SPACE, 4)
    optimizer = optimizer_of(Optimizer(lr=0.1, weight_decay=0.2, no_decay=["bias"], no_decay_rate=0.01), net)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.01]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))


def learner(net, settings):
    return Learner(net, net, optimizer_of(settings, net), None, Compute(),
                   torch.amp.GradScaler("cpu", enabled=False), Processes())


def steps(learner, stage, numbers):
    generator = torch.Generator()
    for number in numbers:
        images = torch.rand(4, 3, 16, 16, generator=generator.manual_seed(number))
        terms = stage.strategy(SPACE, random.Random(number), Moment(number, 6))
        train_step(learner, stage, images, torch.arange(4), terms=terms, lr=stage.optimizer.lr)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_to_the_bit(name, tmp_path):
    """Three steps, a checkpoint, and three more, against six; parameters get first gradients in different steps."""
    settings = Optimizer(lr=1e-3, name=name)
    stage = Stage(space=SPACE, strategy=progressive_shrinking(1, teacher=False), epochs=1, batch=4, micro_batch=4,
                  optimizer=settings)
    start = Supernet(SPACE, 4, dropout=0.0, generator=torch.Generator().manual_seed(0)).train()
    start = start.to(memory_format=torch.channels_last)
    whole, before = (learner(copy.deepcopy(start), settings) for _ in range(2))
    steps(whole, stage, range(6))
    steps(before, stage, range(3))
    checkpoint.save(tmp_path, before.net, before.optimizer, position=Position(0, 3), extra={})
    after = learner(copy.deepcopy(start), settings)
    checkpoint.load(tmp_path, after.net, after.optimizer)
    steps(after, stage, range(3, 6))
    assert any(not torch.equal(value, start.state_dict()[key]) for key, value in whole.net.state_dict().items())
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, after.net.state_dict()[key]), key
