"""The same numbers as the authors' own code, for the same weights."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from reference import ours_of, theirs_of

from onceforall.cost import macs, params
from onceforall.interop.mit.weights import key
from onceforall.interop.nnabla.names import entries, names_of
from onceforall.nn import extract, recalibrate, sort_channels
from onceforall.space import Arch
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.losses import distillation
from onceforall.training.schedule import CosineWarmup
from onceforall.training.settings import Loss, Optimizer
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Moment, Term, authors_order

pytestmark = pytest.mark.filterwarnings("ignore:Implicit dimension choice")  # theirs
SIZES = (128, 132, 160)  # of 132, the last strides round up; 224 is the largest net's, which is extracted
RANDOM_ARCHS = 150  # for each pair of nets


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.detach() - theirs.detach()).norm() / theirs.detach().norm())


def active(theirs, space, arch: Arch):
    """Their net with that sub-network set."""
    theirs.set_active_subnet(**{k: v for k, v in arch.to_dict(space).items() if k != "image_size"})
    return theirs


def images_of(size: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@torch.no_grad()
def test_logits_of_random_subnets(pair, rng):
    theirs, ours = pair
    extremes = [ours.space.smallest, ours.space.largest, ours.space.middle]
    for i, drawn in enumerate([*extremes, *(ours.space.sample(rng) for _ in range(RANDOM_ARCHS))]):
        arch = drawn.at(SIZES[i % 3])
        images = images_of(arch.resolution)
        expected = active(theirs, ours.space, arch)(images)
        assert relative(ours(images, arch), expected) < 1e-5, arch


@pytest.mark.slow
@torch.no_grad()
def test_extracted_nets_and_their_costs(pair, rng):
    theirs, ours = pair
    from ofa.utils.flops_counter import profile
    for arch in (ours.space.smallest, ours.space.largest, *(ours.space.sample(rng).at(128) for _ in range(4))):
        reference = active(theirs, ours.space, arch).get_active_subnet(preserve_weight=True).eval()
        mine, state = extract(ours, arch), reference.state_dict()
        for entry in entries(mine.plan):
            torch.testing.assert_close(mine.state_dict()[entry.ours], state[key(entry.theirs)], rtol=1e-6, atol=1e-6)
        assert len(entries(mine.plan)) == sum(not k.endswith("num_batches_tracked") for k in state)
        images = images_of(arch.resolution)
        assert relative(mine(images), reference(images)) < 1e-5
        assert params(ours.space, arch, num_classes=10) == sum(p.numel() for p in reference.parameters())
        torch.set_default_dtype(torch.float64)  # their counter adds up in the default type, and float32 rounds
        try:
            counted, _ = profile(reference.double(), (1, 3, arch.resolution, arch.resolution))
        finally:
            torch.set_default_dtype(torch.float32)
        assert macs(ours.space, arch, num_classes=10) == counted


@pytest.mark.slow
@pytest.mark.parametrize("subnets", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_shrinking_step(authors, tmp_path, subnets, dtype):
    """Loss, and in float64 every gradient; sub-networks in their order of sampling, teacher in training mode."""
    from ofa.utils import cross_entropy_loss_with_soft_target, cross_entropy_with_label_smoothing
    step, theirs = 1234, theirs_of(authors, 1.0)
    ours = ours_of(theirs, tmp_path).to(dtype).train()
    theirs = theirs.to(dtype).train()
    images, labels = images_of(128, 4).to(dtype), torch.tensor([1, 7, 3, 3])
    theirs.set_max_net()
    their_teacher = copy.deepcopy(theirs)
    teacher = extract(ours, ours.space.largest).requires_grad_(False)

    soft = torch.softmax(their_teacher(images).detach(), 1)
    expected, archs = 0.0, []
    for k in range(subnets):
        random.seed(int(f"{step}{k:03d}000"))
        archs.append(Arch.from_dict(ours.space, {**theirs.sample_active_subnet(), "image_size": 224}))
        logits = theirs(images)
        loss = cross_entropy_loss_with_soft_target(logits, soft) + cross_entropy_with_label_smoothing(logits, labels)
        loss.backward()
        expected += loss.item()

    terms = authors_order(subnets, teacher=True)(ours.space, random.Random(0), Moment(step, 10_000))
    assert [t.arch for t in terms] == archs
    course = Course(space=ours.space, strategy=authors_order(subnets, teacher=True), stage=Stage(
        epochs=1, batches=Batches(size=4), optimizer=Optimizer(lr=0.1), loss=Loss(kd_weight=1)))
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    learner = Learner(ours, ours, optimizer, teacher, Compute(), torch.amp.GradScaler("cpu", enabled=False),
                      Processes())
    loss = train_step(learner, course, images, labels, terms=terms, lr=0.0)
    assert float(loss) == pytest.approx(expected, rel=1e-7 if dtype == torch.float64 else 1e-5)
    reference = dict(theirs.named_parameters())
    trained = [e for e in names_of(ours) if e.trained]
    assert {key(e.theirs) for e in trained} == reference.keys()
    largest = max(float(p.grad.norm()) for p in reference.values() if p.grad is not None)
    for entry in trained:
        grad, wanted = ours.get_parameter(entry.ours).grad, reference[key(entry.theirs)].grad
        assert (grad is None) == (wanted is None), entry.ours
        if grad is not None:
            error = (grad - wanted).norm() / max(float(wanted.norm()), 1e-6 * largest)
            assert error < 1e-6 or dtype == torch.float32, entry.ours


@torch.no_grad()
@pytest.mark.parametrize(("expand", "trained", "stage"), [((4, 6), (6,), 0), ((3, 4, 6), (4, 6), 1)])
def test_channel_sorting_in_both_expand_phases(authors, tmp_path, rng, expand, trained, stage):
    theirs = theirs_of(authors, 1.0, expand=expand)
    ours = ours_of(theirs, tmp_path, expand=expand)
    banded, images = copy.deepcopy(ours), images_of(128, 2)
    theirs.re_organize_middle_weights(expand_ratio_stage=stage)
    sort_channels(ours, ours.space.restrict(expand=trained), keep_squeeze=False)
    sort_channels(banded, banded.space.restrict(expand=trained))
    moved = []
    for arch in (ours.space.smallest, ours.space.largest, *(ours.space.sample(rng) for _ in range(6))):
        expected = active(theirs, ours.space, arch)(images)
        assert relative(ours(images, arch), expected) < 1e-5, arch
        moved.append(relative(banded(images, arch), expected))
    assert (max(moved) > 1e-5) == (stage == 1)  # what keeping SE's trained bands changes


@pytest.mark.slow
@torch.no_grad()
def test_recalibration(pair, rng):
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
    theirs, ours = pair
    batches = [images_of(128, 8, seed).double() for seed in range(3)]
    for arch in (ours.space.smallest, ours.space.sample(rng)):
        reference = active(theirs, ours.space, arch).get_active_subnet(preserve_weight=True).double()
        set_running_statistics(reference, [(images, None) for images in batches])
        mine, state = recalibrate(extract(ours, arch).double(), batches), reference.state_dict()
        for entry in entries(mine.plan):
            if not entry.trained:
                assert relative(mine.state_dict()[entry.ours], state[key(entry.theirs)]) < 1e-9
        images = images_of(128, 2, 9).double()
        assert relative(mine(images), reference.eval()(images)) < 1e-9


def test_learning_rates(authors):
    from ofa.imagenet_classification.run_manager.run_config import RunConfig
    config = RunConfig(n_epochs=6, init_lr=0.26, lr_schedule_type="cosine", lr_schedule_param=None, dataset=None,
                       train_batch_size=1, test_batch_size=1, valid_size=None, opt_type="sgd", opt_param=None,
                       weight_decay=0, label_smoothing=0.1, no_decay_keys=None, mixup_alpha=None, model_init="",
                       validation_frequency=1, print_frequency=1)
    optimizer, steps, warmup = torch.optim.SGD([torch.zeros(1)], lr=1.0), 7, 2
    ours = CosineWarmup(0.26, 0.03, warmup=warmup * steps, total=(warmup + 6) * steps)
    for epoch in range(warmup + 6):
        for i in range(steps):
            expected = (config.warmup_adjust_learning_rate(optimizer, warmup * steps, steps, epoch, i, 0.03)
                        if epoch < warmup else config.adjust_learning_rate(optimizer, epoch - warmup, i, steps))
            assert ours(epoch * steps + i) == pytest.approx(expected, rel=1e-12)


def test_losses(authors):
    from ofa.utils import cross_entropy_loss_with_soft_target, cross_entropy_with_label_smoothing
    generator = torch.Generator().manual_seed(3)
    logits, other = (3 * torch.randn(16, 10, generator=generator) for _ in range(2))
    labels = torch.arange(16) % 10
    soft = torch.softmax(other, 1)
    assert float(Loss(smoothing=0.1).of_labels(logits, labels)) == pytest.approx(
        float(cross_entropy_with_label_smoothing(logits, labels, 0.1)), rel=1e-6)
    assert float(distillation(logits, soft)) == pytest.approx(
        float(cross_entropy_loss_with_soft_target(logits, soft)), rel=1e-6)


def test_parameters_without_weight_decay(pair):
    """Their keys `bn#bias` exempt the parameters that NNablaNAS's expressions do."""
    from onceforall.interop.nnabla.config_hparams import Hparams, decay_exemptions
    theirs, ours = pair
    decayed = {id(p) for p in theirs.get_parameters(["bn", "bias"], mode="exclude")}
    names = {name for name, p in theirs.named_parameters() if id(p) not in decayed}
    for keys in (Hparams().no_decay_keys, "bn#_b", "bn#bias"):
        patterns = decay_exemptions(keys)
        exempt = {key(e.theirs) for e in names_of(ours) if e.trained and any(p.search(e.theirs)
                                                                                    for p in patterns)}
        assert exempt == names
    assert len(names) == {"proxyless_nas": 135, "resnet50d": 123}.get(ours.space.name, 153)


@pytest.mark.parametrize("expand", [(3, 4, 6), (4, 6)])
def test_the_order_of_sampling(authors, tmp_path, expand):
    theirs = theirs_of(authors, 1.0, expand=expand)
    ours = ours_of(theirs, tmp_path, expand=expand)
    strategy = authors_order(3, teacher=False)
    for step in (0, 1, 99_999):
        expected = []
        for k in range(3):
            random.seed(int(f"{step}{k:03d}000"))
            expected.append(Arch.from_dict(ours.space, {**theirs.sample_active_subnet(), "image_size": 224}))
        found = strategy(ours.space, random.Random(1), Moment(step, 100_000))
        assert found == [Term(arch, "labels") for arch in expected]
