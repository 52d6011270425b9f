"""Strategies: which sub-networks a step trains, what they learn from, and how these choices combine."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import config
from test_step import SMALL, batch, course, learner, net  # noqa: F401  fixtures

from onceforall.cost.population import macs_table, tabulate
from onceforall.cost.predictor_file import save
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config, checked
from onceforall.interop.nnabla.settings import training_of
from onceforall.nn import Supernet, extract
from onceforall.searching.evolution import Evolution
from onceforall.searching.search import Request, search
from onceforall.space import Arch, SearchSpace, search_space
from onceforall.training.course import course_of
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Compute
from onceforall.training.loop import train_step
from onceforall.training.losses import alpha_divergence, distillation
from onceforall.training.sampling import attentive, spread
from onceforall.training.settings import Loss
from onceforall.training.setup import Options, teacher_of
from onceforall.training.strategy import STRATEGIES as REGISTERED
from onceforall.training.strategy import Moment, Term, authors_order, delayed, only, progressive_shrinking, sandwich
from onceforall.weights.nets import Trained, load_supernet, open_weights, weights_file
from onceforall.weights.nets import save as save_weights

START, HALF, END = Moment(0, 100), Moment(50, 100), Moment(99, 100)
KERNELS = tabulate(SMALL, lambda plan, block: block["depthwise"].kernel, lambda plan: 0.0)  # likes large kernels
STRATEGIES = {
    "shrinking": progressive_shrinking(4, teacher=True), "random": progressive_shrinking(2, teacher=False),
    "authors": authors_order(3, teacher=True), "sandwich": sandwich(4),
    "best-up": sandwich(3, sampler=attentive(SearchSpace.sample, KERNELS, best=True, candidates=5)),
    "spread": progressive_shrinking(2, teacher=True, sampler=spread),
    "worst-up": progressive_shrinking(2, teacher=False,
                                      sampler=attentive(SearchSpace.sample, KERNELS, best=False, candidates=5)),
    "delayed": delayed(sandwich(4), until=0.5, rise=0.25), "only": only(SMALL.middle, teacher=False),
    **{f"{name}, teacher {teacher}": strategy(3, teacher=teacher, sampler=SearchSpace.sample)
       for name, strategy in REGISTERED.items() for teacher in (False, True)}}


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("moment", [START, HALF, END])
def test_every_strategy(name, moment):
    """A pure function of its randomness, within the space, the largest before those that learn from it."""
    strategy = STRATEGIES[name]
    terms = strategy(SMALL, random.Random(3), moment)
    assert terms == strategy(SMALL, random.Random(3), moment)
    assert terms and all(SMALL.contains(term.arch) and 0 < term.weight <= 1 for term in terms)
    learning = [i for i, term in enumerate(terms) if term.target == "largest"]
    assert not learning or terms[0] == Term(SMALL.largest, "labels")
    narrow = SMALL.restrict(kernel=(7,), expand=(6,), depth=(4,))
    assert {t.arch.at(32) for t in STRATEGIES["sandwich"](narrow, random.Random(1), moment)} == {narrow.largest}


def test_which_terms():
    terms = STRATEGIES["shrinking"](SMALL, random.Random(0), START)
    assert [term.target for term in terms] == ["teacher"] * 4
    assert {term.target for term in STRATEGIES["random"](SMALL, random.Random(0), START)} == {"labels"}
    largest, smallest, *others = sandwich(4)(SMALL, random.Random(0), START)
    assert (largest.arch, smallest) == (SMALL.largest, Term(SMALL.smallest, "largest"))
    assert [term.target for term in others] == ["largest"] * 2
    assert len({term.arch for term in others}) == 2
    assert only(SMALL.middle, teacher=True)(SMALL, random.Random(0), START) == [Term(SMALL.middle, "teacher")]


@pytest.mark.parametrize("best", [True, False])
def test_attentive_takes_the_best_or_the_worst_of_equals(best):
    drawn = []

    def noting(space, rng):
        drawn.append(space.sample(rng))
        return drawn[-1]

    chosen = attentive(noting, KERNELS, best=best, candidates=10)(SMALL, random.Random(2))
    assert len(drawn) == 40
    codes = np.array([SMALL.encode(arch.at(32)) for arch in drawn])
    macs, liked = macs_table(SMALL).of(codes), KERNELS.of(codes)
    near = sorted(range(40), key=lambda i: abs(macs[i] - macs[0]))[:10]
    assert 0 in near
    assert liked[drawn.index(chosen)] == (max if best else min)(liked[near])


def test_a_spread_sample_is_often_small_or_large():
    """And each value of every choice is as probable as the others."""
    rng, table, count = random.Random(0), macs_table(SMALL), 3000
    ends = table.of(np.array([SMALL.encode(SMALL.smallest.at(32)), SMALL.encode(SMALL.largest.at(32))]))

    def shares(sampler) -> tuple[list[Arch], np.ndarray]:
        """Where drawn sub-networks lie between the smallest and the largest, from 0 to 1."""
        drawn = [sampler(SMALL, rng).at(32) for _ in range(count)]
        return drawn, (table.of(np.array([SMALL.encode(arch) for arch in drawn])) - ends[0]) / (ends[1] - ends[0])

    drawn, spreading = shares(spread)
    _, alone = shares(SearchSpace.sample)
    for low, high in ((0, 0.1), (0.8, 1)):
        assert np.mean((spreading >= low) & (spreading <= high)) > 0.1
        assert np.mean((alone >= low) & (alone <= high)) < 0.01
    for chosen, values in (([len(arch.stages[1]) for arch in drawn], (2, 3, 4)),
                           ([arch.stages[0][0]["kernel"] for arch in drawn], (3, 5, 7))):
        found = {value: chosen.count(value) / count for value in values}
        assert found == pytest.approx(dict.fromkeys(values, 1 / 3), abs=0.04)


def test_delayed():
    strategy = delayed(sandwich(3), until=0.5, rise=0.2)
    alone = [Term(SMALL.largest, "labels")]
    found = {step: strategy(SMALL, random.Random(0), Moment(step, 100)) for step in (0, 49, 50, 54, 69, 99)}
    assert [terms == alone for terms in found.values()] == [True, True, False, False, False, False]
    taught = delayed(progressive_shrinking(2, teacher=True), until=0.5, teacher=True)
    assert taught(SMALL, random.Random(0), START) == [Term(SMALL.largest, "teacher")]
    weights = [[term.weight for term in found[step]] for step in (54, 69, 99)]
    assert weights == [pytest.approx([1, 0.25, 0.25]), pytest.approx([1, 1, 1]), [1, 1, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("choice", [
    {"strategy": "sandwich", "subnets_per_step": 3, "delay": 0.5, "rise": 0.5, "kd_loss": "alpha"},
    {"compound": True, "fixed_kernel": True}, {"sampling": "best_up", "candidates": 4},
    {"strategy": "sandwich", "subnets_per_step": 4, "sampling": "worst_up", "candidates": 4, "compound": True}],
    ids=lambda choice: "-".join(map(str, choice.values())))
def test_training(choice, tmp_path):
    """A short stage by each choice, from its configuration; stopped in between, it ends with the same bits."""
    space = search_space("mobilenet_v3_large_32px?width_mult=0.15")
    likes = tabulate(space, lambda plan, block: block["depthwise"].kernel, lambda plan: 0.0)
    save(likes, tmp_path / "kernels.safetensors", about={"regressor": "table"})
    values = config("expand", epoch=2, batch_size_train=256).to_dict()
    network, hparams = values["network"]["ofa"], values["hparams"]
    del network["op_candidates"], network["depth_candidates"]
    for key, value in choice.items():
        (network if key in ("compound", "fixed_kernel") else hparams)[key] = value
    if choice.get("compound"):  # NNablaNAS validates sub-networks that are none of CompOFA's
        hparams["valid_genotypes"] = [[6, 6, 9, 9, 7, 7, 9, 9, 6, 6, 9, 9, 6, 6, 9, 9, 7, 7, 9, 9]]
    if "sampling" in choice:
        hparams["predictor"] = str(tmp_path / "kernels.safetensors")
    settings = checked(Config.from_dict(values), "OFASearcher", search=True)
    assert settings.ignored("OFASearcher") == []
    course = course_of(training_of(settings, search=True))
    for step in (0, 7):
        terms = course.strategy(course.space, random.Random(1), Moment(step, 8))
        kernels = [{block["kernel"] for block in blocks} for term in terms for blocks in term.arch.stages]
        assert "fixed_kernel" not in choice or kernels == [{3}, {5}, {3}, {3}, {5}]
    train(training_of(settings, search=True), tmp_path / "whole", Options())

    def stop(record):
        if record["kind"] == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(training_of(settings, search=True), tmp_path / "stopped", Options(listener=stop))
    train(training_of(settings, search=True), tmp_path / "stopped", Options())
    whole, stopped = (load_supernet(tmp_path / name / "weights.h5").state_dict() for name in ("whole", "stopped"))
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in whole.items())


def test_configurations_reach_their_strategies(tmp_path):
    """What the terms of a step are by each choice: not what they were without it."""
    space = search_space("mobilenet_v3_large_32px?width_mult=0.15")
    likes = tabulate(space, lambda plan, block: block["depthwise"].kernel, lambda plan: 0.0)
    save(likes, tmp_path / "kernels.safetensors", about={"regressor": "table"})

    def made(network=None, **hparams):
        values = config("expand", predictor=str(tmp_path / "kernels.safetensors"), **hparams).to_dict()
        del values["network"]["ofa"]["op_candidates"], values["network"]["ofa"]["depth_candidates"]
        values["network"]["ofa"] |= {"space": "mobilenet_v3_large_32px", "width_mult": 0.15} | (network or {})
        return course_of(training_of(Config.from_dict(values), search=True))

    def terms(step=0, network=None, **hparams):
        course = made(network, **hparams)
        return [term for seed in range(20)
                for term in course.strategy(course.space, random.Random(seed), Moment(step, 100))]

    def kernels(**hparams):
        return np.mean([block["kernel"] for term in terms(**hparams) for stage in term.arch.stages for block in stage])

    found = [kernels(sampling="worst_up", candidates=50), kernels(), kernels(sampling="best_up", candidates=2),
             kernels(sampling="best_up", candidates=50)]
    assert all(b - a > 0.1 for a, b in pairwise(found))
    sandwiches = {"strategy": "sandwich", "subnets_per_step": 3, "delay": 0.5, "rise": 0.2}
    assert [len(terms(step, **sandwiches)) for step in (0, 49, 50)] == [20, 20, 60]
    assert [term.weight for term in terms(59, **sandwiches)[:3]] == pytest.approx([1, 0.5, 0.5])
    (tmp_path / "full.h5").touch()
    taught = {"lambda_kd": 1.0, "teacher_network": {"ofa": {
        "space": "mobilenet_v3_large_32px", "num_classes": 10, "weights": str(tmp_path / "full.h5")}}}
    assert [term.target for term in terms(delay=0.5, **taught)] == ["teacher"] * 20
    assert (made(kd_loss="alpha").stage.loss.kd, made().stage.loss.kd) == ("alpha", "cross_entropy")
    ratios = {len(blocks): {block["expand"] for block in blocks}
              for term in terms(network={"compound": True}) for blocks in term.arch.stages}
    assert ratios == {2: {3}, 3: {4}, 4: {6}}


@pytest.mark.slow
def test_fixed_kernels_are_those_of_the_weights(tmp_path):
    """The supernet that is trained, what is read back from its file, and a teacher: the same kernels in all."""
    values = config("expand").to_dict()
    network = values["network"]["ofa"]
    del network["op_candidates"], network["depth_candidates"]
    network["fixed_kernel"] = True
    train(training_of(Config.from_dict(values), search=True), tmp_path, Options())

    def kernels(plan):
        return [{block["depthwise"].kernel for block in blocks} for blocks in plan.stages]

    trained = load_supernet(tmp_path / "weights.h5")
    assert kernels(trained.plan(trained.space.largest)) == [{3}, {5}, {3}, {3}, {5}]
    values["hparams"] |= {"lambda_kd": 1.0, "teacher_network": {
        "ofa": {**network, "weights": str(tmp_path / "weights.h5")}}}
    teacher = teacher_of(training_of(Config.from_dict(values), search=True), Compute(), tuple("0123456789"))
    assert kernels(teacher.plan) == [{3}, {5}, {3}, {3}, {5}]
    network["genotype"] = [8] * 20
    with pytest.raises(UserError, match="network.ofa.genotype: arch stage 1 block 1: kernel 7 is not one of 3"):
        checked(Config.from_dict(values), "OFATrainer", search=True)


@pytest.mark.slow
def test_a_compound_supernet_is_searched_where_it_was_trained(tmp_path):
    """From weights of another tie; it runs, and hands out for training alone, the other sub-networks as well."""
    values = config("expand").to_dict()
    network = values["network"]["ofa"]
    network |= {"compound": True, "depth_candidates": [2, 3, 4]}  # over expand ratios 4 and 6
    train(training_of(Config.from_dict(values), search=True), tmp_path / "first", Options())
    first = load_supernet(tmp_path / "first").space
    assert {b["expand"] for blocks in first.smallest.stages for b in blocks} == {4}
    del network["op_candidates"]
    network["weights"] = str(tmp_path / "first" / "weights.h5")
    train(training_of(Config.from_dict(values), search=True), tmp_path / "second", Options())
    trained = open_weights(tmp_path)  # the wider one of the two
    shutil.copytree(tmp_path / "second", tmp_path / "third")
    assert weights_file(tmp_path) == tmp_path / "third" / "weights.safetensors"  # of equals the last
    assert trained.space.count == (3 ** 2 + 3 ** 3 + 3 ** 4) ** 5
    found = search(trained.space, Request(("macs", "params"), evolution=Evolution(population=50, generations=5)))
    ratios = {(len(blocks), block["expand"]) for row in found.front for blocks in row.arch.stages for block in blocks}
    assert ratios <= {(2, 3), (3, 4), (4, 6)} and found.front[0].arch.at(16) == trained.space.smallest.at(16)
    part = first.restrict(depth=(2, 3))  # where nothing that is tied has ratio 6
    extract(Supernet(part), part.free.largest)
    wide = Arch.parse(trained.space, str(trained.space.free.restrict(depth=(2,)).largest))
    assert wide == Arch.from_genotype(trained.space, wide.to_genotype(trained.space)) != trained.space.smallest
    save_weights(Trained(extract(trained.net, wide), trained.space, wide, {}), tmp_path / "wide.h5")
    assert open_weights(tmp_path / "wide.h5").arch == wide
    network |= {"genotype": [8, 8, 9, 9] * 5, "weights": str(tmp_path / "second" / "weights.h5")}
    values["hparams"]["epoch"] = 1
    train(training_of(Config.from_dict(values), "OFATrainer"), tmp_path / "alone", Options())
    alone = open_weights(tmp_path / "alone" / "weights.h5").arch
    assert {(len(blocks), block["expand"]) for blocks in alone.stages for block in blocks} == {(2, 6)}


def test_a_step_of_the_sandwich(net, batch):  # noqa: F811
    """Loss and gradients as added up by hand, over micro-batches too."""
    images, labels = batch
    archs = [SMALL.largest, SMALL.smallest, SMALL.middle]
    terms = [Term(archs[0], "labels"), Term(archs[1], "largest", 0.5), Term(archs[2], "largest")]
    ours = learner(net)
    loss = train_step(ours, course(), images, labels, terms=terms, lr=0.0)
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    logits = net(images, archs[0])
    soft = torch.softmax(logits.detach(), 1)
    wanted = (Loss(smoothing=0.1).of_labels(logits, labels) + 0.5 * distillation(net(images, archs[1]), soft)
              + distillation(net(images, archs[2]), soft))
    wanted.backward()
    assert float(loss) == pytest.approx(float(wanted.detach()), rel=1e-9)
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == (name not in found), name
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-7, atol=1e-9)


def test_the_distillation_of_a_stage(net, batch):  # noqa: F811
    """Another loss takes the place of cross entropy against the teacher, and against the largest."""
    images, labels = batch

    def nothing(logits, probabilities):
        return 0 * logits.sum()

    plain = train_step(learner(net), course(), images, labels, terms=[Term(SMALL.largest, "labels")], lr=0.0)
    for terms in ([Term(SMALL.largest, "labels"), Term(SMALL.smallest, "largest")], [Term(SMALL.largest, "teacher")]):
        taught = replace(learner(net), teacher=lambda images: torch.zeros(len(images), 5).double())
        loss = train_step(taught, course(loss=Loss(kd=nothing, kd_weight=1)), images, labels, terms=terms, lr=0.0)
        assert float(loss) == pytest.approx(float(plain), rel=1e-9)


@pytest.mark.parametrize("alpha", [-1.0, 0.5, 1.0, 2.0])
def test_alpha_divergence(alpha):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator).double().requires_grad_()
    p = torch.softmax(2 * torch.randn(6, 5, generator=generator).double(), 1)
    q = torch.softmax(logits, 1)
    exact = (p * (p / q).log()).sum(1).mean() if alpha == 1 else \
        (((p ** alpha) * q ** (1 - alpha)).sum(1) - 1).mean() / (alpha * (alpha - 1))
    found = alpha_divergence(logits, p, alphas=(alpha, alpha), clip=float("inf"))
    assert float(found) == pytest.approx(float(exact), rel=1e-9)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, exact)), rtol=1e-7, atol=1e-9)


def test_alpha_divergence_takes_the_larger_of_each_picture():
    generator = torch.Generator().manual_seed(1)
    logits, p = torch.randn(30, 4, generator=generator), torch.softmax(torch.randn(30, 4, generator=generator), 1)
    low, high = (torch.stack([alpha_divergence(a[None], b[None], alphas=(alpha, alpha)) for a, b in zip(
        logits, p, strict=True)]) for alpha in (-1.0, 1.0))
    assert (low > high).any() and (high > low).any()
    assert float(alpha_divergence(logits, p)) == pytest.approx(float(torch.maximum(low, high).mean()))


def test_alpha_divergence_is_zero_at_the_teacher_and_bounded_far_from_it():
    logits = torch.tensor([[2.0, -1.0, 0.5]], requires_grad=True)
    assert float(alpha_divergence(logits, torch.softmax(logits.detach(), 1))) == pytest.approx(0, abs=1e-6)
    far = torch.tensor([[60.0, -60.0, -60.0]], requires_grad=True)
    loss = alpha_divergence(far, torch.tensor([[0.0, 0.0, 1.0]]))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(far.grad).all() and far.grad.abs().max() <= 5
    kl = F.kl_div(torch.log_softmax(logits, 1), torch.tensor([[0.1, 0.2, 0.7]]), reduction="batchmean")
    assert float(alpha_divergence(logits, torch.tensor([[0.1, 0.2, 0.7]]))) != pytest.approx(float(kl))
