"""Training described in our own words: from Python, to JSON and back, and from a run's folder."""

from __future__ import annotations

import json
import random

import pytest
import torch
import torch.nn.functional as F
from small import config
from torch import Tensor

from onceforall.cli import main
from onceforall.data import DataSpec
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import own_key, training_of
from onceforall.space import SearchSpace, search_space
from onceforall.training.course import course_of
from onceforall.training.engine.places import read_config, read_run
from onceforall.training.engine.run import train
from onceforall.training.network import Network, Teacher
from onceforall.training.settings import Loss, Mixing, Optimizer, Schedule
from onceforall.training.setup import Options
from onceforall.training.stage import Batches, Safety, Stage, Training
from onceforall.training.strategy import Moment, Term
from onceforall.weights.nets import load_supernet

NAME = "mobilenet_v3_large_32px?width_mult=0.15"


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """A loss of the user's own."""
    return F.multi_margin_loss(logits, labels)


def smallest_first(space: SearchSpace, rng: random.Random, moment: Moment) -> list[Term]:
    """A strategy of the user's own."""
    return [Term(space.smallest, "labels"), Term(space.sample(rng), "labels")]


def linear(step: int, steps: int) -> float:
    """A schedule of the user's own."""
    return 1 - step / steps


def training(**stage) -> Training:
    return Training(
        data=DataSpec("digits"), network=Network(space=NAME, num_classes=10, dropout=0.0),
        stage=Stage(**{"choices": {"kernel": [3, 5], "expand": [3], "depth": [2], "resolution": [12, 16]}, "epochs": 1,
                       "optimizer": Optimizer(name="adamw", lr=1e-3), "batches": Batches(size=256),
                       "validate_archs": ["smallest", "largest"], **stage}))


def test_from_python_with_what_is_the_users_own(tmp_path):
    """Optimiser, loss, schedule and strategy, of mixed pictures; stopped, and continued by what config.json says."""
    whole = training(loss=Loss(labels=margin), schedule=Schedule(shape=linear), strategy=smallest_first,
                     mixing=Mixing(mixup=1, cutmix=1))
    train(whole, tmp_path / "whole")

    def stop(record):
        if record["kind"] == "step" and record["step"] == 2:
            raise KeyboardInterrupt

    often = Options(listener=stop, every=(None, 2))
    with pytest.raises(KeyboardInterrupt):
        train(whole, tmp_path / "stopped", often)
    said = read_config(tmp_path / "stopped")
    assert (said.stage.loss.labels, said.stage.schedule.shape) == (f"{__name__}:margin", f"{__name__}:linear")
    train(said, tmp_path / "stopped")
    nets = [load_supernet(tmp_path / name) for name in ("whole", "stopped")]
    assert nets[0].space.resolutions == (12, 16)
    state = nets[1].state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in nets[0].state_dict().items())
    assert not any(torch.equal(a, b) for a, b in zip(nets[0].stages[0][0].parameters(), load_of(whole), strict=True)
                   if a.dim() == 4)
    with pytest.raises(UserError, match='stage.loss.labels is ".*:margin" there, and "cross_entropy" is asked for'):
        train(training(schedule=Schedule(shape=linear), strategy=smallest_first, mixing=whole.stage.mixing),
              tmp_path / "stopped")


def load_of(given: Training) -> list[Tensor]:
    """The first block's parameters at the start."""
    from onceforall.training.start import supernet_of
    return list(supernet_of(given).stages[0][0].parameters())


@pytest.mark.parametrize("made", [
    training, lambda: training_of(config("kernel"), search=True),
    lambda: training_of(Config.from_dict({**(v := config().to_dict()), "network": {"ofa": {
        **v["network"]["ofa"], "genotype": [0] * 10}}, "hparams": {**v["hparams"], "img_size": 16}}), "OFATrainer"),
    lambda: training(teacher=Teacher(network=Network(space=NAME, num_classes=10, weights="full.h5")),
                     loss=Loss(kd_weight=1), sampling="best_up", predictor="p.safetensors",
                     safety=Safety(checkpoint_minutes=None)),
    lambda: training(strategy=smallest_first, optimizer=Optimizer(lr=0.1, name="adam", betas=[0.8, 0.9]))])
def test_json_there_and_back(made):
    """Functions come back as their names, everything else as it was; a second time nothing changes."""
    given = made()
    text = json.dumps(given.to_dict())
    again = Training.from_dict(json.loads(text))
    assert json.dumps(again.to_dict()) == text
    if given.stage.strategy is not smallest_first:
        assert again == given
    assert (again.part, again.validated) == (given.part, given.validated)


@pytest.mark.parametrize(("values", "message"), [
    ({"stage": {"epoch": 3}}, r"stage.epoch: is not a known key; did you mean epochs\?"),
    ({"stage": {"optimizer": {"momentun": 1}}}, r"stage.optimizer.momentun: is no argument of torch.optim.adamw"),
    ({"stage": {"batches": {"size": "64"}}}, 'stage.batches.size: "64" is not a whole number; write 64'),
    ({"stage": {"choices": {"kernel": 3}}}, "stage.choices.kernel: 3 is not a list"),
    ({"stage": {"sampling": "best_up"}}, "stage.predictor: is missing, and sampling best_up chooses by it"),
    ({"stage": {"strategy": "sandwitch"}}, r"stage.strategy: 'sandwitch' is no strategy; did you mean sandwich\?"),
    ({"data": {"rooot": "x"}}, r"data.rooot: is not a known key; did you mean root\?"),
    ({"data": {"train_portion": 2.0}}, r"^data.train_portion: 2.0 is not within 0 < portion <= 1"),
    ({"stage": {"teacher": {"network": {"space": NAME}}}}, "^stage.teacher.network.num_classes: is missing"),
    ({"data": {"augment": {"crop_scale": [0.5, 0.1]}}}, "^data.augment.crop_scale: 0.5..0.1 is not within 0 < low"),
    ({"data": {"augment": {"flip": 1}}}, "data.augment.flip: 1 is not true or false"),
    ({"network": {"space": "mobilenet_v3_larg"}}, "network.space.*mobilenet_v3_larg.*did you mean mobilenet_v3_large"),
    ({"network": {"space": {"stages": 3}}}, "network.space.*stages"),
    ({"network": {"arch": "12:k3"}}, "network.arch"),
    ({"stage": 3}, "stage: 3 is not an object"),
])
def test_what_is_wrong_in_json_is_one_line(values, message):
    whole = training().to_dict()
    for section, more in values.items():
        if isinstance(more, dict):
            for key, value in more.items():
                there = whole[section].get(key)
                nested = isinstance(value, dict) and isinstance(there, dict)
                whole[section][key] = {**there, **value} if nested else value
        else:
            whole[section] = more
    with pytest.raises(UserError, match=message) as error:
        Training.from_dict(whole)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nowhere:loss", "torch:no_such_loss", "tests.training:"])
def test_a_function_that_is_not_there(name):
    with pytest.raises(UserError, match=rf"(loss.labels|labels): '{name}' is no"):
        Loss(labels=name).of_labels(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


def test_dimensions_that_are_trained_at_their_largest():
    part = training(choices={}, at_largest=["kernel", "depth", "resolution"]).part
    whole = training(choices={}).part
    assert part.largest == whole.largest
    assert part.resolutions == (max(whole.resolutions),)
    for stage, full in zip(part.stages, whole.stages, strict=True):
        assert stage.depth == full.depth[-1:]
        assert stage.choices == {"kernel": full.choices["kernel"][-1:], "expand": full.choices["expand"]}
    with pytest.raises(UserError, match="at_largest.gate: is no elastic dimension of mobile"):
        course_of(training(at_largest=["gate"]))


def test_choices_that_the_space_lacks():
    for choices in ({"kernel": [9]}, {"gate": [1]}, {"depth": [7]}, {"resolution": [15]}):
        with pytest.raises(UserError, match=f"{next(iter(choices))}"):
            course_of(training(choices=choices))


def test_a_run_of_a_space_that_is_not_in_the_catalogue(tmp_path):
    """Its rows are in config.json."""
    space = search_space(NAME)
    given = training().to_dict()
    given["network"]["space"] = {**space.to_dict(), "name": "mine"}
    train(Training.from_dict(given), tmp_path)
    assert read_run(tmp_path).network.space.name == load_supernet(tmp_path).space.name == "mine"


def test_a_forward_pass_of_a_whole_batch_is_written_in_one_way():
    assert Batches(size=512, micro=512) == Batches(size=512) and Batches(micro=64) == Batches()
    assert Batches(size=512, micro=64).each == 64


@pytest.mark.parametrize(("space", "message"), [
    ({"name": 3}, r"network.space.name: is not the description of a search space"),
    ("mobilenet", "network.space: 'mobilenet' is not in the catalogue"), (3, "network.space: is no search space")])
def test_the_place_of_a_space_that_is_none(space, message):
    given = training().to_dict()
    given["network"]["space"] = space
    with pytest.raises(UserError, match=message) as error:
        Training.from_dict(given)
    assert "space.space" not in str(error.value)


def test_keys_of_both_forms():
    assert [own_key(key) for key in ("dataloader.imagenet.train_file", "network.ofa_mbv3.weights", "hparams.predictor",
                                     "hparams.teacher_network.ofa.weights")] == [
        "data.train_file", "network.weights", "stage.predictor", "stage.teacher.network.weights"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: training(strategy="sandwich"), "subnets_per_step: 1 is below 2, the least of strategy sandwich: "),
    (lambda: training(strategy="sandwich", subnets_per_step=3, teacher="a"), "teacher: stands beside strategy"),
    (lambda: training(loss=Loss(kd_weight=1)), "stage.loss.kd_weight: is 1 without a teacher"),
    (lambda: training(loss=Loss(label_weight=0)), "^loss.label_weight: is 0 without a teacher, so that there"),
    (lambda: training(delay=0.9, rise=1.0), "rise: 1 after a delay of 0.9 is longer than the stage; give at most 0.1"),
    (lambda: training(sampling="authors", delay=0.5), "sampling: authors draws as their code does, and other settings"),
    (lambda: training(strategy=smallest_first, delay=0.5), "strategy: a function draws by itself, and other settings"),
    (lambda: Teacher(network=Network(space=NAME, num_classes=10)), "network.weights: is missing; a teacher comes"),
    (lambda: training(teacher=Teacher(network=Network(space=NAME, num_classes=7, weights="f")), loss=Loss(kd_weight=1)),
     "stage.teacher.network.num_classes: 7 is not 10, as the network has"),
    (lambda: training(teacher="first", loss=Loss(kd_weight=1)), "stage.teacher: 'first' names a stage, and there is"),
    (lambda: training(loss=Loss(labels=torch.nn.CrossEntropyLoss())), "stage.loss.labels: .*is not found again by its"),
    (lambda: training(schedule=Schedule(shape=lambda step, steps: 1.0)), "stage.schedule.shape: .*<lambda> is not"),
    (lambda: course_of(training(loss=Loss(labels="nowhere:loss"))), "loss.labels: 'nowhere:loss' is no function that"),
    (lambda: course_of(training(loss=Loss(kd="math:pi", kd_weight=0))), "loss.kd: 'math:pi' is no function; give a"),
    (lambda: course_of(training(strategy=".a:b")), "stage.strategy: '.a:b' is no function that can be imported"),
    (lambda: course_of(training(choices={"resolutions": [12]})), "choices.resolutions: is no elastic dimension of"),
    (lambda: course_of(training(choices={"self": [1]})), "choices.self: is no elastic dimension of mobile"),
])
def test_settings_that_do_not_go_together(make, message):
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_stopped_run_of_an_older_version_is_refused(tmp_path):
    def stop(record):
        if record["kind"] == "step":
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(training_of(config(), search=True), tmp_path, Options(listener=stop))
    config().write(tmp_path / "config.json")
    with pytest.raises(UserError, match="was stopped by an older version of this program; finish it with that one, or"):
        train(training_of(config(), search=True), tmp_path)


def test_config_json_is_enough_to_repeat_the_run(tmp_path, capsys):
    train(training(), tmp_path / "run")
    with pytest.raises(SystemExit) as end:
        main(["train", "-f", str(tmp_path / "run" / "config.json"), "-o", str(tmp_path / "again"), "-c", "cpu"])
    assert end.value.code == 0
    first, second = (load_supernet(tmp_path / name).state_dict() for name in ("run", "again"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    for words in (["--search"], ["--algorithm", "OFATrainer"]):
        with pytest.raises(SystemExit) as end:
            main(["train", "-f", str(tmp_path / "run" / "config.json"), *words, "-o", str(tmp_path / "more")])
        assert end.value.code == 2
        assert f"{words[0]}: stands beside" in capsys.readouterr().err
