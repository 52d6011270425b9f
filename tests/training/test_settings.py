"""Settings: what is refused where it is made, and any optimiser of torch, stopped and resumed to the bit."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from onceforall.data import DataSpec
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.course import Course
from onceforall.training.engine import checkpoint
from onceforall.training.engine.checkpoint import Position
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.network import Network
from onceforall.training.optimizer import OPTIMIZERS, spared
from onceforall.training.settings import Loss, Optimizer, Schedule
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Moment, progressive_shrinking

SPACE = search_space("mobilenet_v3_large_32px?width_mult=0.15")


def stage(**changes):
    return Stage(**{"epochs": 1, "batches": Batches(size=4), "optimizer": Optimizer(lr=1e-3), **changes})


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Optimizer(lr=0), "lr: 0 is not above 0"),
    (lambda: Optimizer(lr=0.1, name="adamv"), "name: 'adamv' is no optimizer here; known: .*adamw"),
    (lambda: Optimizer(lr=0.1, name="lbfgs"), "name: 'lbfgs' is no optimizer here"),
    (lambda: Optimizer(lr=0.1, momentun=0.9), r"momentun: is no argument of torch.optim.sgd; did you mean momentum\?"),
    (lambda: Optimizer(lr=0.1, name="adamw", momentum=0.9),
     "momentum: is no argument of torch.optim.adamw; known: .*betas"),
    (lambda: Optimizer(lr=0.1, name="adamw", betas=(0.9, 1.5)), "optimizer: torch.optim.adamw does not take .*beta"),
    (lambda: Optimizer(lr=0.1, name="adam", betas=(0.9,)), "optimizer: torch.optim.adam does not take "),
    (lambda: Optimizer(lr=0.1, foreach=True), "optimizer: torch.optim.sgd does not take .*fused"),
    (lambda: Optimizer(lr=0.1, momentum=float("nan")), "optimizer: .*nan.* holds a number that is not finite"),
    (lambda: Optimizer(name="adam"), "lr: is missing"),
    (lambda: Optimizer(lr=0.1, name="rprop", weight_decay=0.1), "weight_decay: torch.optim.rprop has no weight decay"),
    (lambda: Optimizer(lr=0.1, name="rprop", no_decay_rate=0.1), "no_decay_rate: torch.optim.rprop has no weight"),
    (lambda: Optimizer(lr=0.1, no_decay=("(",)), r"no_decay\[0\]: '\(' is not a regular expression"),
    (lambda: Optimizer(lr=0.1, no_decay=("a{99999999999999}",)), r"no_decay\[0\]: .* is not a regular expression"),
    (lambda: Schedule(shape="cosinus"), "^shape: 'cosinus' is no schedule; did you mean cosine\\?$"),
    (lambda: Schedule(shape="stairs", warmup_epochs=2), "^warmup_epochs: has no effect on stairs; leave it out$"),
    (lambda: Schedule(shape=lambda step, steps: 1.0, factor=0.5), "^factor: has no effect on a function; leave"),
    (lambda: Schedule(warmup_epochs=2, warmup_share=0.1), "^warmup_share: stands beside warmup_epochs; leave one of"),
    (lambda: Schedule(warmup=3), r"warmup: is not a known key; did you mean warmup_(lr|epochs)\?"),
    (lambda: Loss(smoothing=1.0), "smoothing: 1.0 is not below 1"),
    (lambda: Loss(kd="alfa"), "^kd: 'alfa' is no loss; did you mean alpha\\?$"),
    (lambda: stage(batches={"size": 6, "micro": 4}), "^batches.size: 6 is not a multiple of micro, 4$"),
    (lambda: Network(space=replace(SPACE, in_channels=1), num_classes=2), "space: takes pictures of 1 channels"),
    (lambda: DataSpec("digits", mean=(0.5,), std=(0.5,)), "mean: and std have three channels"),
    (lambda: DataSpec("digits", mean=(0.5,) * 3, std=(0.5, 0.5, 0.0)), "mean: and std go together, and std is above 0"),
    (lambda: stage(schedule=Schedule(warmup_epochs=2)), "schedule.warmup_epochs: 2 is above epochs, 1"),
])
def test_what_breaks_a_rule_is_one_line(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert str(caught.value).count("\n") == 0


def test_momentum_is_nesterovs_unless_it_is_given():
    usual = {"momentum": 0.9, "nesterov": True}
    assert Optimizer(lr=0.1).arguments == usual
    assert Optimizer(lr=0.1, nesterov=True).arguments == usual
    assert Optimizer(lr=0.1, fused=False).arguments == {**usual, "fused": False}
    assert Optimizer(lr=0.1, momentum=0.0).arguments == {"momentum": 0.0, "nesterov": False}
    assert Optimizer(lr=0.1, momentum=0.5, dampening=0.1).arguments["nesterov"] is False


def test_a_value_comes_back_from_json():
    given = Optimizer(lr=0.1, name="adamw", betas=(0.9, 0.98), no_decay=["bias"])
    assert Optimizer(**json.loads(given.model_dump_json())) == given


def test_state_goes_where_the_parameter_is():
    """Adafactor's state has other shapes than its parameter."""
    parameter = torch.empty(3, 2, device="meta")
    assert checkpoint._like(parameter, torch.zeros(3, 1)).is_meta
    assert checkpoint._like(parameter, torch.zeros(3, 2)).is_meta


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
    optimizer = Optimizer(lr=0.1, weight_decay=0.2, no_decay=["bias"], no_decay_rate=0.01).over(net)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.01]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(net.parameters()))


def learner(net, settings):
    return Learner(net, net, settings.over(net), None, Compute(),
                   torch.amp.GradScaler("cpu", enabled=False), Processes())


def steps(learner, settings, numbers):
    generator = torch.Generator()
    course = Course(space=SPACE, strategy=progressive_shrinking(1, teacher=False), stage=stage(optimizer=settings))
    for number in numbers:
        images = torch.rand(4, 3, 16, 16, generator=generator.manual_seed(number))
        terms = course.strategy(SPACE, random.Random(number), Moment(number, 6))
        train_step(learner, course, images, torch.arange(4), terms=terms, lr=settings.lr)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_on_to_the_bit(name, tmp_path):
    """Three steps, a checkpoint, and three more, against six; parameters get first gradients in different steps."""
    settings = Optimizer(lr=1e-3, name=name)
    start = Supernet(SPACE, 4, dropout=0.0, generator=torch.Generator().manual_seed(0)).train()
    start = start.to(memory_format=torch.channels_last)
    whole, before = (learner(copy.deepcopy(start), settings) for _ in range(2))
    steps(whole, settings, range(6))
    steps(before, settings, range(3))
    checkpoint.save(tmp_path, before.net, before.optimizer, position=Position(0, 3), extra={})
    after = learner(copy.deepcopy(start), settings)
    checkpoint.load(tmp_path, after.net, after.optimizer)
    steps(after, settings, range(3, 6))
    assert any(not torch.equal(value, start.state_dict()[key]) for key, value in whole.net.state_dict().items())
    for key, value in whole.net.state_dict().items():
        assert torch.equal(value, after.net.state_dict()[key]), key
