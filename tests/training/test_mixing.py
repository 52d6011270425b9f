"""Mixing: pictures by hand, labels in the shares of the pictures, what a teacher sees."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.mixing import mixed
from onceforall.training.settings import Loss, Mixing, Optimizer
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Term, progressive_shrinking

SPACE = search_space("mobilenet_v3_large_32px?width_mult=0.15")
LABELS = torch.tensor([0, 1, 2, 3])


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(2)).double()


def by_seed(images, mixing, seed=0):
    torch.manual_seed(seed)
    return mixed(images, LABELS, mixing)


def test_nothing_is_mixed_by_default(images):
    state = torch.get_rng_state()
    made = mixed(images, LABELS, Mixing())
    assert made.images is images
    assert (made.labels[:, 0].tolist(), made.shares) == ([0, 1, 2, 3], (1.0,))
    assert torch.equal(state, torch.get_rng_state())


def test_mixup_adds_up_two_pictures(images):
    made = by_seed(images, Mixing(mixup=1))
    share, rest = made.shares
    assert 0 < share < 1
    assert share + rest == 1
    assert made.labels.tolist() == [[0, 3], [1, 0], [2, 1], [3, 2]]
    for b, (own, other) in enumerate(made.labels.tolist()):
        torch.testing.assert_close(made.images[b], share * images[own] + rest * images[other], rtol=1e-6, atol=1e-7)


def test_cutmix_has_a_box_of_another_picture(images):
    shares = set()
    for seed in range(8):
        made = by_seed(images, Mixing(cutmix=1), seed)
        for b, (own, other) in enumerate(made.labels.tolist()):
            kept = (made.images[b] == images[own]).all(0)
            assert torch.equal(kept, ~(made.images[b] == images[other]).all(0))
            assert float(kept.double().mean()) == pytest.approx(made.shares[0], abs=1e-6)
            gone = (~kept).nonzero()
            if len(gone):
                height, width = (gone.amax(0) - gone.amin(0) + 1).tolist()
                assert len(gone) == height * width
        shares.add(made.shares[0])
    assert len(shares) > 4


def test_a_step_draws_one_of_both_kinds(images):
    made = [by_seed(images, Mixing(mixup=1, cutmix=1), seed).images[0] for seed in range(20)]
    added = [bool((picture != images[0]).all()) for picture in made]
    assert 4 <= sum(added) <= 16


def test_a_micro_batch_keeps_its_pictures_and_labels(images):
    made = by_seed(images, Mixing(mixup=1))
    parts = made.split(2)
    assert [part.labels.tolist() for part in parts] == [[[0, 3], [1, 0]], [[2, 1], [3, 2]]]
    assert torch.equal(torch.cat([part.images for part in parts]), made.images)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("unlabelled", [False, True])
def test_the_loss_of_a_step_by_hand(images, weight, unlabelled):
    """Cross entropy with soft labels; of a picture without a label its share of the label is 0."""
    net = Supernet(SPACE, 5, dropout=0.0, generator=torch.Generator().manual_seed(1)).double().eval()
    seen = []

    def teacher(pictures):
        seen.append(pictures)
        return pictures[:, :, :1, :1].flatten(1) @ torch.ones(3, 5).double().triu()

    mixing, loss = Mixing(mixup=1), Loss(smoothing=0.0, kd_weight=2, label_weight=weight)
    stage = Stage(epochs=1, batches=Batches(size=4), optimizer=Optimizer(lr=0.1), loss=loss, teacher="a", mixing=mixing)
    course = Course(space=SPACE, strategy=progressive_shrinking(1, teacher=True), stage=stage, unlabelled=unlabelled)
    learner = Learner(copy.deepcopy(net), None, torch.optim.SGD(net.parameters(), lr=0.1), teacher, Compute(),
                      torch.amp.GradScaler("cpu", enabled=False), Processes())
    learner.forward = learner.net
    labels = torch.where(LABELS == 2, -1, LABELS) if unlabelled else LABELS
    torch.manual_seed(0)
    found = train_step(learner, course, images, labels, terms=[Term(SPACE.middle, "teacher")], lr=0.0)

    made = by_seed(images, mixing)
    assert torch.equal(seen[0], made.images)
    one_hot = F.one_hot(LABELS, 5).double()
    if unlabelled:
        one_hot[2] = 0
    soft = made.shares[0] * one_hot + made.shares[1] * one_hot.roll(1, 0)
    logs = net(made.images, SPACE.middle).log_softmax(1)
    taught = torch.softmax(teacher(made.images), 1)
    by_hand = -(weight * (soft * logs).sum(1) + 2 * (taught * logs).sum(1)).mean()
    assert float(found) == pytest.approx(float(by_hand.detach()), rel=1e-6)
