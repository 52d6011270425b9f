"""Training from Python, on the digits: what a newcomer would write."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from few_blocks import few_blocks
from torch.utils.data import TensorDataset

import onceforall as ofa
from onceforall.cost import predictor
from onceforall.data import load_data
from onceforall.data.given import give
from onceforall.recipes import RECIPES, fit, pick
from onceforall.searching.evolution import Evolution
from onceforall.searching.study import Plan
from onceforall.space import CATALOG
from onceforall.training import setup
from onceforall.training.engine.places import read_config
from onceforall.weights.nets import load_supernet

NAME = "mobilenet_v3_large_32px?width_mult=0.15"
QUICK = {"plan": Plan(20, 0), "evolution": Evolution(50, 10), "measure": 2}


def stage(**changes):
    return ofa.Stage(**{"choices": {"kernel": [3, 5], "expand": [3, 4], "depth": [2], "resolution": [12, 16]},
                        "epochs": 1, "optimizer": ofa.Optimizer(lr=0.05), "batches": ofa.Batches(size=256),
                        "validate_archs": ["largest"], **changes})


STAGES = {"full": stage(choices={"kernel": [5], "expand": [4], "depth": [2], "resolution": [12, 16]}),
          "kernel": stage(choices={"kernel": [3, 5], "expand": [4], "depth": [2], "resolution": [12, 16]},
                          optimizer=ofa.Optimizer(name="adamw", lr=1e-3)),
          "all": stage(teacher="full", loss=ofa.Loss(kd_weight=1), sort="bands", subnets_per_step=2)}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> ofa.Run:
    heard = []
    run = ofa.train(NAME, "digits", stages=STAGES, output=tmp_path_factory.mktemp("api") / "run", device="cpu",
                    listener=heard.append)
    assert {"stage", "step", "valid"} <= {record["kind"] for record in heard}
    return run


def test_stages_start_from_each_other(run):
    assert list(run.stages) == ["full", "kernel", "all"]
    assert [training.network.weights is None for training in run.stages.values()] == [True, False, False]
    assert run.stages["all"].teacher.network.space == run.stages["full"].network.space
    assert run.space.dimensions == ("kernel", "expand")
    assert [stage.choices for stage in run.space.stages] == 5 * [{"kernel": (3, 5), "expand": (3, 4)}]
    assert run.weights == run.folder / "all" / "weights.safetensors"
    # channels are sorted as they were trained before: in full
    importance = load_supernet(run.folder / "kernel").stages[0][0].project.conv.weight.abs().sum((0, 2, 3))
    assert not (importance.diff() <= 0).all()


def test_from_the_run_to_what_ships(run, tmp_path):
    front = run.search(max_macs=2e6, **QUICK)
    assert len(front) == len(list(front)) and (run.folder / "search" / "front.json").exists()
    best = front.best(macs=1.5e6)
    assert best.costs["macs"] <= 1.5e6 and run.space.free.contains(best.arch)
    assert all((row.measured or row.predicted) <= (best.measured or best.predicted)
               for row in front if row.costs["macs"] <= 1.5e6)
    with pytest.raises(ofa.UserError, match="best: no row of the front keeps {'macs': 1.0}; the smallest costs are "):
        front.best(macs=1.0)
    with pytest.raises(ofa.UserError, match="latency: is no cost of this front; it has macs, params"):
        front.best(latency=1.0)
    subnet = run.extract(best.arch)
    about = subnet.save(tmp_path / "subnet")
    assert (about.accuracy.top1, about.accuracy.images, about.classes) == (subnet.top1, 359, list("0123456789"))
    images = torch.rand(2, 3, best.arch.resolution, best.arch.resolution)
    torch.testing.assert_close(ofa.load_subnet(tmp_path / "subnet")(images), subnet.net(images))
    assert run.extract("smallest").arch == run.space.smallest
    again = ofa.Run(run.folder, device="cpu")
    assert again.extract(best.arch).top1 == subnet.top1
    assert repr(again) == f"Run('{run.folder}')"


def test_an_exported_file(run, tmp_path):
    pytest.importorskip("onnxruntime")
    subnet = run.extract("smallest")
    with pytest.raises(ofa.UserError, match="export: has no folder to write into; save the sub-network first"):
        subnet.export(to=["onnx"])
    subnet.save(tmp_path / "subnet")
    made = subnet.export(to=["onnx"])
    assert list(made) == ["model.onnx"] and made["model.onnx"].verification.pictures.same_top1 == 359


@pytest.mark.slow
def test_a_latency_table(run):
    table = run.profile(backend="torch", subnets=30, rounds=1)
    assert (run.folder / "latency-torch.json").exists()
    front = run.search(tables={"here": table}, objectives=("accuracy", "latency_ms"), **QUICK)
    assert front.best(latency_ms=1e3).costs["latency_ms"] > 0


def test_a_supernet_that_is_given(run, tmp_path):
    """Its weights are the start; the same call goes on, another supernet's weights are refused."""
    net = load_supernet(run.folder / "all")
    for _ in range(2):
        more = ofa.train(net, "digits", stages=[stage(choices={})], output=tmp_path / "more", device="cpu")
    assert list(more.stages) == ["stage1"] and more.space == net.space
    changed = load_supernet(run.folder / "all")
    with torch.no_grad():
        changed.head["classifier"].bias[0] += 1
    with pytest.raises(ofa.UserError, match=r"start.safetensors: holds the weights of another supernet than the one"):
        ofa.train(changed, "digits", stages=[stage(choices={})], output=tmp_path / "more", device="cpu")


def of_digits() -> tuple[TensorDataset, TensorDataset]:
    """The digits as torch Datasets, split as they are by name."""
    data = load_data(ofa.DataSpec("digits", train_portion=1.0))
    return tuple(TensorDataset(part.images, part.labels) for part in (data.train, data.test))


def test_pictures_from_python(run, tmp_path):
    """The same pictures as Datasets give the same weights to the bit."""
    plain = ofa.DataSpec("digits", augment=ofa.Augment(flip=False))
    named = ofa.train(NAME, plain, stages={"full": STAGES["full"]}, output=tmp_path / "named", device="cpu")
    spec = replace(give(of_digits()), augment=plain.augment)
    given = ofa.train(NAME, spec, stages={"full": STAGES["full"]}, output=tmp_path / "given", device="cpu")
    state = given.net.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in named.net.state_dict().items())
    subnets = [each.extract("largest") for each in (named, given)]
    assert subnets[0].top1 == subnets[1].top1 and subnets[0].net.plan == subnets[1].net.plan
    assert subnets[1].save(tmp_path / "subnet").data["source"].startswith("given:")


def test_a_data_set_from_python_in_another_process(tmp_path):
    heard = []
    run = ofa.train(NAME, of_digits(), stages=[stage()], output=tmp_path / "run", device="cpu", listener=heard.append)
    assert not run.training.data.augment.flip  # classes 0 to 9
    assert any("mirrored" in record.get("text", "") for record in heard)
    code = ("import sys, onceforall as ofa; sys.path.insert(0, sys.argv[1]); from test_api import of_digits\n"
            "run = ofa.Run(sys.argv[2], device='cpu')\n"
            "try: run.extract('largest')\n"
            "except ofa.UserError as error: print(error)\n"
            "run = ofa.Run(sys.argv[2], data=of_digits(), device='cpu')\n"
            "print(run.extract('largest').top1)")
    done = subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "run")],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, top1 = done.stdout.splitlines()
    assert "the pictures are those that a program gave from Python" in refused
    assert float(top1) == run.extract("largest").top1


def test_the_recipe_of_a_run(run, tmp_path):
    recipe = run.recipe
    assert list(recipe.stages) == ["full", "kernel", "all"] and recipe.stages["all"].teacher == "full"
    again = recipe.trainings(run.folder)
    assert {name: training.to_dict() for name, training in again.items()} == {
        name: read_config(run.folder / name).to_dict() for name in again}
    with pytest.raises(ofa.UserError, match=r"recipe.yaml"):
        ofa.Run(run.folder / "all").recipe  # noqa: B018  # a stage alone


def four_classes() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))


def a_sub_network() -> torch.nn.Module:
    net = ofa.Supernet(ofa.search_space(NAME), 4)
    return ofa.extract(net, net.space.largest)


class Pair(torch.nn.Module):
    def forward(self, images):
        return images, images


class OneSize(torch.nn.Linear):
    def __init__(self):
        super().__init__(7, 10)


def splits_anew() -> tuple[TensorDataset, TensorDataset]:
    """Other splits every time."""
    images, labels = torch.rand(60, 3, 12, 12), torch.randperm(60) % 3
    return TensorDataset(images[:40], labels[:40]), TensorDataset(images[40:], labels[40:])


def test_a_function_that_gives_other_pictures_every_time(tmp_path):
    run = ofa.train(NAME, f"{__name__}:splits_anew", stages=[stage()], output=tmp_path / "run", device="cpu")
    setup._kept.clear()  # as in another process
    with pytest.raises(ofa.UserError, match="splits_anew: gives other pictures than those that the run began with"):
        ofa.Run(run.folder, device="cpu").extract("largest")


def test_the_runs_own_pictures_given_again_are_split_as_before(tmp_path):
    spec = replace(give(of_digits()), train_portion=1.0)
    run = ofa.train(NAME, spec, stages=[stage()], output=tmp_path / "run", device="cpu")
    again = ofa.Run(run.folder, data=of_digits(), device="cpu")
    assert len(run.evaluator.data.held_out) == len(again.evaluator.data.held_out) == 0


def a_teacher() -> torch.nn.Module:
    """A module of the user's own, for pictures of every size."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 10, 3), torch.nn.BatchNorm2d(10), torch.nn.AdaptiveAvgPool2d(1),
                               torch.nn.Flatten())


def test_a_module_of_the_users_own_as_the_teacher(tmp_path):
    taught = {"teacher": ofa.Teacher(module=a_teacher), "loss": ofa.Loss(kd_weight=1)}
    assert not taught["teacher"].batch_statistics
    run = ofa.train(NAME, "digits", stages=[stage(**taught)], output=tmp_path / "run", device="cpu")
    assert run.training.teacher.module == f"{__name__}:a_teacher"
    alone = ofa.train(NAME, "digits", stages=[stage()], output=tmp_path / "alone", device="cpu")
    assert not torch.equal(run.net.head["classifier"].bias, alone.net.head["classifier"].bias)
    again = ofa.train(NAME, "digits", stages=[stage(**taught)], output=tmp_path / "run", device="cpu")
    assert torch.equal(run.net.head["classifier"].bias, again.net.head["classifier"].bias)
    for wrong, message in ((four_classes, r"gives \(2, 4\) for two pictures of 12 pixels; give logits \(2, 10\)"),
                           (a_sub_network, r"gives \(2, 4\) for two pictures of 12 pixels; give logits \(2, 10\)"),
                           (of_digits, "stage.teacher.module: returns a tuple; return a torch.nn.Module"),
                           (Pair, "stage.teacher.module: gives a tuple for two pictures of 12 pixels; give logits"),
                           (OneSize, "stage.teacher.module: cannot take pictures of 12 pixels \\(mat1 and mat2"),
                           (lambda: None, "stage.teacher.module: .*is not found again by its name")):
        taught["teacher"] = ofa.Teacher(module=wrong)
        with pytest.raises(ofa.UserError, match=message):
            ofa.train(NAME, "digits", stages=[stage(**taught)], output=tmp_path / "wrong", device="cpu")
    for values, message in (({}, "network: is missing, and so is module"),
                            ({"module": a_teacher()}, "module: is a Sequential, which another process cannot make"),
                            ({"module": "abc"}, "module: 'abc' is no function; give a function, in a file as module:n"),
                            ({"module": a_teacher, "network": run.training.network}, "module: stands beside network")):
        with pytest.raises(ofa.UserError, match=message):
            ofa.Teacher(**values)


@pytest.mark.parametrize(("call", "message"), [
    (lambda out: ofa.train(NAME, "digits", stages=[], output=out), "stages: is empty"),
    (lambda out: ofa.train(NAME, "digits", stages={"a/b": stage()}, output=out), "stages: 'a/b' is no name of a fold"),
    (lambda out: ofa.train(NAME, "digits", stages={"a": stage(teacher="b", loss=ofa.Loss(kd_weight=1))}, output=out),
     "teacher: 'b' is no stage before it; known: none"),
    (lambda out: ofa.train(NAME, "digits", stages=[stage(choices={"kernel": [9]})], output=out), "kernel: 9 is not"),
    (lambda out: ofa.train("mobilenet", "digits", stages=[stage()], output=out), "'mobilenet' is not in the catalogue"),
    (lambda out: ofa.train(NAME, "/no/such", stages=[stage()], output=out), "/no/such"),
    (lambda out: ofa.train(NAME, "digits", stages=[stage()], output=out, device="tpu"), "device: 'tpu' is not one of"),
    (lambda out: ofa.fit("digits", output=out, epoch_scale=1), "epoch_scale: is no argument of fit; known: "),
    (ofa.Run, "is neither a run folder nor a weights file"),
    (lambda out: stage(teacher="full"), "loss.kd_weight: is 0 beside a teacher; give 1, or leave the teacher out"),
])
def test_a_mistake_is_one_line(call, message, tmp_path):
    with pytest.raises(ofa.UserError, match=message) as error:
        call(tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("run/*/weights*"))


@pytest.mark.slow
def test_the_whole_pipeline(tmp_path, monkeypatch):
    monkeypatch.setitem(CATALOG, "few_blocks", few_blocks)
    monkeypatch.setitem(RECIPES, "digits", replace(RECIPES["digits"], space="few_blocks", width_mult=0.15, batch=256,
                                                   calibration_images=100))
    monkeypatch.setattr(predictor, "_EPOCHS", 10)
    monkeypatch.setattr(pick, "Evolution", lambda **more: Evolution(50, 10, **more))
    run = ofa.fit("digits", output=tmp_path / "run", device="cpu", epochs_scale=0.01, collect=20, elastic=2, budgets=1)
    assert len(run.stages) == 6 and run.training == run.stages["K357_E346_D234"]
    front = run.search(max_macs=1.2e6, **QUICK)
    assert run.extract(front.best(macs=8e5).arch).save(tmp_path / "subnet").accuracy.images == 359


def test_of_stages_that_are_equally_wide_the_last_counts(tmp_path):
    run = ofa.train(NAME, "digits", stages={"b": stage(), "a": stage(seed=1)}, output=tmp_path / "run", device="cpu")
    assert list(run.stages) == ["b", "a"]
    assert run.weights == ofa.Run(tmp_path / "run").weights == tmp_path / "run" / "a" / "weights.safetensors"
    assert not run.training.data.augment.flip  # a mirrored digit is another one


@pytest.mark.parametrize("name", ["..", "search", "a\0", "", "start.safetensors"])
def test_names_that_no_stage_may_have(name, tmp_path):
    with pytest.raises(ofa.UserError, match="stages: '.*' is "):
        ofa.train(NAME, "digits", stages={name: stage()}, output=tmp_path / "run", device="cpu")
    assert not list(tmp_path.glob("**/config.json"))


def test_arguments_that_are_not_known(run):
    for call in (lambda: run.search(max_mac=3), lambda: run.profile(thread=1)):
        with pytest.raises(ofa.UserError, match="(max_mac|thread): is no argument of (search|profile); known: "):
            call()


def test_fit_takes_the_pictures_of_a_recipes_file(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(fit, "fit", lambda request, *_: asked.append(fit.plan(request, gpu=False)))
    monkeypatch.setattr("onceforall.api.Run", lambda output, **_: output)
    spec = ofa.DataSpec("fashion-mnist", augment=ofa.Augment(flip=False))
    recipe = ofa.Recipe(data=spec, network=ofa.Network(space=NAME, num_classes=10), stages={"one": stage()})
    recipe.write(tmp_path / "run.yaml")
    ofa.fit(output=tmp_path, recipe=str(tmp_path / "run.yaml"), device="cpu")
    ofa.fit("digits", output=tmp_path, recipe=str(tmp_path / "run.yaml"), device="cpu")
    assert asked[0] == recipe
    assert [found.data.name for found in asked] == ["fashion-mnist", "digits"]
    assert asked[1].data.augment == spec.augment
