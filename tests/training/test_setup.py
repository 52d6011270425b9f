"""From a configuration to net, teacher, optimiser and evaluator: each part as the configuration says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import deep as config

from onceforall.data import DataSpec, load_data
from onceforall.errors import UserError
from onceforall.interop.nnabla import names
from onceforall.interop.nnabla.config import Config, no_decay_patterns
from onceforall.interop.nnabla.names import decay_names, names_of
from onceforall.interop.nnabla.settings import training_of
from onceforall.nn import Supernet, extract
from onceforall.space import search_space
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.training.setup import Options, learner_of, teacher_of
from onceforall.training.start import supernet_of
from onceforall.weights.nets import Trained, load, save


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec("digits"))


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """Weights after each stage that matters here: random, and of the spaces those stages train."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    full = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(depth=(4,), resolutions=(12, 16))
    for name, part in (("fullnet", {"kernel": (7,), "expand": (6,)}), ("kernel", {"expand": (6,)}),
                       ("expand", {"expand": (4, 6)})):
        paths[name] = folder / f"{name}.h5"
        space = full.restrict(**part)
        save(Trained(Supernet(space, 10, generator=torch.Generator().manual_seed(4)), space), paths[name])
    return paths


def importance(net: Supernet, stage: int, block: int) -> torch.Tensor:
    return net.stages[stage][block].project.conv.weight.abs().sum((0, 2, 3))


def test_the_first_expand_phase_starts_from_sorted_channels(files, digits):
    settings = config("expand", weights=files["kernel"], teacher=files["fullnet"])
    net = learner_of(training_of(settings), Options(), Evaluator(digits)).net
    for stage in range(5):
        for block in range(4):
            assert (importance(net, stage, block).diff() <= 0).all()
    assert not (importance(load(files["kernel"]), 0, 0).diff() <= 0).all()


def test_the_second_expand_phase_keeps_the_bands(files, digits):
    values = config("expand", weights=files["expand"], teacher=files["fullnet"]).to_dict()
    values["network"]["ofa"]["op_candidates"] = [f"MB{e} {k}x{k}" for e in (3, 4, 6) for k in (3, 5, 7)]
    net = made(values, digits)
    before = load(files["expand"])
    narrow = before.space.restrict(expand=(4,)).largest
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(net.eval()(images, narrow), before(images, narrow), rtol=1e-4, atol=1e-5)
    falls = importance(net, 4, 3).diff() <= 0
    assert not falls.all()  # in full it is not sorted
    assert falls.sum() == len(falls) - 1  # but within each of the two bands


@pytest.mark.slow
def test_channel_sorting_of_the_other_codes(files, digits):
    """The authors' keeps bands but sorts SE's squeeze channels in full; NNablaNAS's sorts all of it on every load."""
    def squeezed(net):
        return net.stages[4][3].se.excite.conv.weight.abs().sum((0, 2, 3))

    def started(task, weights, sorting):
        values = config(task, weights=files[weights], channel_sorting=sorting).to_dict()
        if task == "expand":
            values["network"]["ofa"]["op_candidates"] = [f"MB{e} {k}x{k}" for e in (3, 4, 6) for k in (3, 5, 7)]
        return made(values, digits)

    def falls(values):
        return bool((values.diff() <= 0).all())

    nets = {sorting: started("expand", "expand", sorting) for sorting in ("bands", "authors", "always")}
    assert {k: (falls(importance(net, 4, 3)), falls(squeezed(net))) for k, net in nets.items()} == {
        "bands": (False, False), "authors": (False, True), "always": (True, True)}
    assert falls(importance(started("kernel", "kernel", "always"), 4, 3))
    assert not falls(importance(started("kernel", "kernel", "bands"), 4, 3))


def made(values, digits):
    """The net at the start of the stage that a configuration describes."""
    settings = Config.from_dict(values)
    return learner_of(training_of(settings), Options(), Evaluator(digits)).net


def test_weight_decay_spares_norms_and_biases(files):
    net = supernet_of(training_of(config("kernel", weights=files["kernel"])))
    decayed, spared = training_of(config("kernel")).stage.optimizer.over(net).param_groups
    assert (len(decayed["params"]), len(spared["params"])) == (130, 153)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (3e-5, 0.0)
    assert any(p is net.stages[0][0].depthwise.conv.kernel_7to5 for p in decayed["params"])
    assert any(p is net.head.classifier.bias for p in spared["params"])
    assert len(names_of(net)) == 411


def test_weight_decay_spares_the_same_where_nnablanas_has_no_names(monkeypatch):
    net = supernet_of(training_of(config("kernel")))
    usual, patterns = decay_names(net), no_decay_patterns(config())
    monkeypatch.setattr(names, "entries", lambda *_: [])
    own = decay_names(net)
    assert own != usual and own.keys() == usual.keys()
    for ours in own:
        assert any(p.search(own[ours]) for p in patterns) == any(p.search(usual[ours]) for p in patterns), ours


@pytest.mark.slow
def test_the_teacher_is_the_largest_and_normalises_as_asked(files):
    for mode in ("train", "eval"):
        settings = config("kernel", weights=files["kernel"], teacher=files["fullnet"], teacher_mode=mode)
        teacher = teacher_of(training_of(settings), Compute(), tuple("0123456789"))
        assert teacher.training == (mode == "train")
        assert not any(p.requires_grad for p in teacher.parameters())
    largest = extract(load(files["fullnet"]), load(files["fullnet"]).space.largest)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(teacher(images), largest(images), rtol=1e-4, atol=1e-5)
    assert teacher_of(training_of(config()), Compute(), ()) is None


def test_a_teacher_of_other_classes_is_refused(tmp_path):
    net = supernet_of(training_of(config()))
    save(Trained(net, net.space, None, {"classes": tuple("abcdefghij")}), tmp_path / "weights.h5")
    settings = config("kernel", weights=tmp_path / "weights.h5", teacher=tmp_path / "weights.h5")
    assert teacher_of(training_of(settings), Compute(), tuple("abcdefghij")) is not None
    with pytest.raises(UserError, match="weights: is of a network for a, b, .*, and the pictures are of j, i, "):
        teacher_of(training_of(settings), Compute(), tuple("jihgfedcba"))


def test_weights_of_a_wider_space_are_refused(files):
    values = config("kernel", weights=files["expand"]).to_dict()
    with pytest.raises(UserError, match="was trained in a space that this one does not contain"):
        supernet_of(training_of(Config.from_dict(values)))


def test_the_stage_has_the_configurations_schedule():
    training = training_of(config(epoch=4, cosine_warmup_epoch=1, warmup_lr=0.01))
    rate = training.stage.rate(10)
    assert rate(0) == pytest.approx(0.01 + 0.04 / 10)
    assert rate(9) == pytest.approx(0.05)
    assert rate(39) < 0.001
    assert training.part.resolutions == (12, 16)


def test_an_evaluated_subnet_has_the_samples_statistics(files, digits):
    net = load(files["kernel"])
    evaluator = Evaluator(digits, calibration_images=200)
    arch = net.space.smallest
    plain = evaluator.subnet(net, arch)
    assert not torch.equal(plain.stem.norm.running_mean, net.stem.norm.running_mean)
    score = evaluator.score(net, arch, digits.test)
    assert score.images == len(digits.test)
    assert score == evaluator.score_net(plain, arch.resolution, digits.test)
    assert score.top1 <= score.top5


def test_a_broken_picture_costs_the_calibration_no_more_than_itself(tmp_path, monkeypatch):
    from PIL import Image
    for i in range(30):
        path = tmp_path / "train" / f"class{i % 2}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80 + i, 80), (8 * i, 0, 0)).save(path)  # of several sizes: kept as files
    (tmp_path / "train" / "class0" / "00.png").write_bytes(b"")
    data = load_data(DataSpec("folder", root=str(tmp_path), train_portion=1.0))
    monkeypatch.setattr("onceforall.training.evaluate.CALIBRATION_BATCH", 5)
    readable = len(data.train) - 1
    sizes = [len(batch) for batch in Evaluator(data, calibration_images=30)._sample(16)]
    assert sizes == [5] * (readable // 5)
