"""A run that starts from a pretrained network: tuned, shrunk, searched, saved; and what cannot be a start."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from onceforall.api import train
from onceforall.cli import main
from onceforall.cli.progress import closing_table
from onceforall.cost import macs
from onceforall.cost.measured import Measured
from onceforall.cost.memory import peak_memory
from onceforall.data import DataSpec, Framing
from onceforall.deploy.description import read_description
from onceforall.deploy.export import Request as Export
from onceforall.deploy.export import export
from onceforall.deploy.folder import load_subnet
from onceforall.errors import UserError
from onceforall.nn import Supernet, extract
from onceforall.pretrained import sources
from onceforall.pretrained.reading import fitted, from_pretrained
from onceforall.pretrained.sources import Source
from onceforall.pretrained.table import Choices
from onceforall.recipes.fit import Request, fit, plan, write_start
from onceforall.recipes.polish import polishing
from onceforall.report.gather import gather
from onceforall.run import Run
from onceforall.searching.record import read_record
from onceforall.space import Arch, SearchSpace
from onceforall.testing.module import randomise
from onceforall.training.course import course_of
from onceforall.training.engine.distributed import Processes
from onceforall.training.loop import _of_known
from onceforall.training.network import Network
from onceforall.training.recipe import START, Recipe
from onceforall.training.settings import Loss, Mixing, Optimizer
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Batches, Stage
from onceforall.weights.nets import Trained, load_supernet, save

FRAMING = Framing(0.8, "bicubic")
SETTINGS = ("stages.tuned.batches.calibration=100", "stages.shrunk.batches.calibration=100")


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, 32, 5, padding=2, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.Conv2d(32, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Tiny(nn.Module):
    """Two blocks, for six classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.last = nn.Linear(16, 6)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(F.adaptive_avg_pool2d(self.blocks(self.stem(images)), 1).flatten(1))


def source_of(module: nn.Module) -> Source:
    return Source("tiny", module, (0.4,) * 3, (0.3,) * 3, 16, FRAMING)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A source called tiny."""
    module = Tiny()
    randomise(module)
    monkeypatch.setitem(sources.PRETRAINED, "tiny", lambda *_: source_of(module))
    return module


def request(**changes: object) -> Request:
    return replace(Request(start="tiny", sizes=(12, 16), epochs_scale=0.01, collect=20, budgets=1, elastic=2,
                           changes=SETTINGS), **changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    with pytest.MonkeyPatch.context() as patch:
        module = Tiny()
        randomise(module)
        patch.setitem(sources.PRETRAINED, "tiny", lambda *_: source_of(module))
        fit(request(), folder, Options())
    return folder


def test_the_recipe():
    recipe = plan(request(epochs_scale=1.0), gpu=False)
    assert list(recipe.stages) == ["tuned", "shrunk"]
    assert (recipe.start, recipe.network.num_classes, recipe.network.space.name) == ("tiny", 10, "tiny")
    assert (recipe.data.mean, recipe.data.std) == ((0.4,) * 3, (0.3,) * 3)
    assert recipe.data.framing == FRAMING
    assert not recipe.data.augment.flip  # of digits
    tuned, shrunk = recipe.stages.values()
    assert (tuned.largest_share, tuned.teacher, shrunk.teacher, shrunk.sort) == (1.0, None, "tuned", "pictures")
    assert (tuned.bn, shrunk.bn) == ("kept", "batch")
    assert 2 <= tuned.epochs < shrunk.epochs == 120
    rate = tuned.rate(steps_per_epoch=10)
    assert [rate(0) < 1e-4, rate(tuned.epochs - 1)] == [True, pytest.approx(5e-4)]  # a tenth of the steps
    assert plan(request(changes=("stages.shrunk.epochs=1",)), gpu=False).stages["shrunk"].epochs == 1
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_pictures_that_are_seen_often_are_mixed_and_then_the_teacher_alone_is_learned_from():
    for scale, mixup, weight in ((1.0, 1.0, 0.0), (0.1, 0.0, 1.0)):
        tuned, shrunk = plan(request(epochs_scale=scale), gpu=False).stages.values()
        assert (shrunk.mixing.mixup, shrunk.loss.label_weight, shrunk.loss.kd_weight) == (mixup, weight, 1.0)
        assert (tuned.mixing.mixup, tuned.loss.label_weight) == (0.0, 1.0)


@pytest.mark.parametrize(("own", "gpu", "sizes"), [
    (16, False, (16,)), (128, False, (128,)), (224, False, (64, 80, 96, 112, 128)), (224, True, (128, 160, 192, 224)),
    (240, True, (144, 176, 208, 240))])
def test_the_usual_sizes(tiny, monkeypatch, own, gpu, sizes):
    monkeypatch.setitem(sources.PRETRAINED, "tiny", lambda *_: Source("tiny", tiny, (0.4,) * 3, (0.3,) * 3, own))
    recipe = plan(request(sizes=None), gpu=gpu)
    assert recipe.network.space.resolutions == sizes
    assert recipe.stages["shrunk"].validate_at == sizes[-1:]


def test_a_network_without_choices(tmp_path):
    """Its sizes alone are elastic: too few sub-networks to learn from, and each is measured."""
    few = request(choices=Choices(kernels=5, ratios=(1.0,), depth=2))
    summary = fit(few, tmp_path, Options())
    front = read_record(tmp_path / "search")["front"]
    assert {row["resolution"] for row in front} <= {12, 16}
    assert [row["resolution"] for row in summary["subnets"]] == [12, 16]


def test_it_starts_with_the_networks_weights(run):
    start, first = load_supernet(run / START), json.loads((run / "tuned/config.json").read_text())
    assert start.num_classes == 10
    module = Tiny()
    randomise(module)
    assert torch.equal(start.stem.conv.weight, module.stem[0].weight)
    assert torch.equal(start.get_submodule("stages.0.1.depthwise").conv.weight, module.blocks[1].layers[3].weight)
    assert first["network"]["weights"].endswith(START)
    trained = load_supernet(run / "tuned")
    assert not torch.equal(trained.stem.conv.weight, start.stem.conv.weight)
    assert torch.equal(trained.get_submodule("stages.0.0.depthwise").conv.kernel_5to3, torch.eye(9))  # not used


def test_pictures_are_framed_as_the_sources_wherever_they_are_scored(run, tmp_path, capsys):
    evaluator = Run(run).evaluator
    assert evaluator.data.framing == FRAMING
    about = read_description(run / "subnets" / "smallest")
    side = about.preprocessing.crop
    assert (about.preprocessing.resize_shorter_side, about.preprocessing.framing) == (round(side / 0.8), FRAMING)
    assert from_pretrained(str(run / "shrunk")).framing == FRAMING
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(run / "subnets" / "smallest"), "--data", "digits", "--json"])
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["top1"] == about.accuracy.top1
    other = evaluator.score_net(load_subnet(run / "subnets" / "smallest"), side, evaluator.data.test).top1
    assert other == about.accuracy.top1
    copy = shutil.copytree(run / "subnets" / "smallest", tmp_path / "smallest")
    (made,) = export(copy, Export("onnx", max_loss=100), evaluator.data).values()
    assert made.verification.top1 == about.accuracy.top1


def test_all_of_the_space_is_trained_and_found(run):
    net = load_supernet(run / "shrunk")
    assert not torch.equal(net.get_submodule("stages.0.0.depthwise").conv.kernel_5to3, torch.eye(9))
    summary = json.loads((run / "summary.json").read_text())
    assert [row["name"] for row in summary["stages"]] == ["tuned", "shrunk"]
    macs = [row["macs"] for row in summary["subnets"]]
    assert macs == sorted(macs) and len(macs) >= 2
    assert Run(run).recipe.start == "tiny"


def test_the_summary_says_what_shrinking_keeps(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    tuned, shrunk = (row["curve"] for row in summary["stages"])
    assert (tuned[0]["epoch"], [row["epoch"] for row in shrunk[:2]]) == (1, [0, 1])
    assert shrunk[0]["largest"] == pytest.approx(tuned[-1]["largest"], abs=0.02)  # sorting changes the last bits alone
    teacher = Run(run).stages["shrunk"].teacher
    assert teacher is not None and not teacher.batch_statistics  # it normalises as it was trained
    closing_table(summary, run)
    out = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in out if line.startswith(("before the first", "after the first", "at the end"))]
    assert [float(row[-2]) for row in rows] == [
        pytest.approx(100 * row["largest"], abs=0.05) for row in (shrunk[0], shrunk[1], shrunk[-1])]


def test_the_tuned_network_is_scored_at_every_size_and_can_be_shipped(run, tmp_path, capsys):
    records = [json.loads(line) for line in (run / "tuned/metrics.jsonl").read_text().splitlines()]
    last = [record["tag"] for record in records if record["kind"] == "valid"][-2:]
    assert [tag.split("_")[0] for tag in last] == ["12px", "16px"]
    folder = tmp_path / "tuned-12"
    with pytest.raises(SystemExit) as ended:
        main(["extract", str(run / "tuned"), "--arch", "largest", "--resolution", "12", "-o", str(folder)])
    assert ended.value.code == 0 and "on 359 test pictures" in capsys.readouterr().out
    supernet = load_supernet(run / "tuned")
    assert read_description(folder).arch == str(supernet.space.largest.at(12))
    assert torch.equal(load_subnet(folder).stem.norm.running_mean, supernet.stem.norm.running_mean)  # not measured anew


def test_the_tuned_network_is_saved_at_every_size(run, capsys):
    evaluator, supernet = Run(run).evaluator, load_supernet(run / "tuned")
    summary = json.loads((run / "summary.json").read_text())
    assert [row["path"] for row in summary["tuned"]] == ["subnets/tuned-12", "subnets/tuned-16"]
    for row in summary["tuned"]:
        arch = supernet.space.largest.at(row["resolution"])
        score = evaluator.score(supernet, arch, evaluator.data.test, kept=True)
        assert row["top1"] == read_description(run / row["path"]).accuracy.top1 == score.top1
        assert (row["arch"], row["macs"]) == (str(arch), macs(supernet.space, arch, num_classes=10))
    closing_table(summary, run)
    out = capsys.readouterr().out
    shown = [line.split()[0] for line in out.splitlines() if "/subnets/" in line and " M " in line]
    assert len(shown) == len(summary["subnets"]) + 2 and shown == sorted(shown, key=float)
    assert "tuned-: the full network as it was before shrinking" in out


def test_the_table_says_what_a_board_needs(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    space = load_supernet(run / "shrunk").space
    for row in summary["subnets"]:
        assert row["memory"] == peak_memory(space, Arch.parse(space, row["arch"]))
    closing_table(summary, run)
    out = capsys.readouterr().out
    largest = summary["subnets"][-1]
    assert f"{4 * largest['params'] / 1e6:.2f} MB" in out and f"{largest['memory'] / 1e6:.2f} MB" in out


def test_the_search_begins_with_the_largest_at_every_size(run):
    measured = {row["arch"] for row in read_record(run / "search")["sampled"]}
    space = load_supernet(run / "shrunk").space
    assert {str(space.largest.at(size)) for size in (12, 16)} <= measured


def test_a_recipe_needs_no_weights(monkeypatch, tiny):
    """So that a run that goes on does not need them again."""
    asked = []

    def source(_name, _file, weights):
        asked.append(weights)
        return Source("tiny", tiny, (0.4,) * 3, (0.3,) * 3, 16)

    monkeypatch.setitem(sources.PRETRAINED, "tiny", source)
    plan(request(), gpu=False)
    assert asked == [False]


def test_the_same_command_goes_on(run, caplog):
    fit(request(), run, Options())
    assert "is finished: nothing to do" in caplog.text


def test_another_start_in_the_same_folder_is_refused(tmp_path, tiny, monkeypatch):
    recipe = plan(request(), gpu=False)
    recipe.write(tmp_path / "recipe.yaml")
    monkeypatch.setitem(sources.PRETRAINED, "tinier", lambda *_: Source("tiny", tiny, (0.4,) * 3, (0.3,) * 3, 16))
    with pytest.raises(UserError, match="holds a run that starts from tiny, not from tinier; take another output"):
        fit(request(start="tinier"), tmp_path, Options())
    for seed in (1, 2):
        net = Tiny()
        torch.manual_seed(seed)
        nn.init.normal_(net.last.weight)
        nn.init.normal_(net.stem[0].weight)
        save(Trained(from_pretrained(net, sizes=[12, 16]).net, recipe.network.space), tmp_path / f"{seed}.safetensors")
    file, place = tmp_path / "a.safetensors", tmp_path / "run"
    (tmp_path / "1.safetensors").rename(file)
    again = request(start=str(file), sizes=None)
    write_start(plan(again, gpu=False), place, Processes())
    write_start(plan(again, gpu=False), place, Processes())
    (tmp_path / "2.safetensors").rename(file)
    with pytest.raises(UserError, match="holds the weights of another supernet"):
        write_start(plan(again, gpu=False), place, Processes())


def test_stages_of_ones_own(tmp_path, tiny):
    """The start's classifier and colours become those of the pictures and of the source."""
    stage = Stage(epochs=1, optimizer=Optimizer(lr=0.01), batches=Batches(size=128, calibration=100), largest_share=1.0)
    start = from_pretrained(tiny, sizes=[12, 16], mean=(0.4,) * 3, std=(0.3,) * 3)
    run = train(start, "digits", stages=[stage], output=tmp_path)
    assert run.recipe.data.mean == (0.4,) * 3
    assert load_supernet(tmp_path / START).num_classes == 10


def test_a_recipe_with_a_start_says_the_colours():
    values = plan(request(), gpu=False).to_dict()
    values["data"] |= {"mean": None, "std": None}
    with pytest.raises(UserError, match="data.mean: is missing, and so is data.std"):
        Recipe.from_dict(values)


def test_from_a_supernet_of_other_classes(tmp_path, tiny):
    """A weights file of any form that is read, with its own choices."""
    net = from_pretrained(tiny, sizes=[12, 16]).net
    save(Trained(net, net.space), tmp_path / "old.safetensors")
    found = from_pretrained(str(tmp_path / "old.safetensors"))
    assert isinstance(found.net, Supernet)
    assert found.net.space == net.space
    recipe = plan(request(start=str(tmp_path / "old.safetensors"), sizes=None), gpu=False)
    assert recipe.network.space == net.space
    wide = replace(net.space, resolutions=(128, 160, 224))
    save(Trained(fitted(net, wide, 6), wide), tmp_path / "wide.safetensors")
    for gpu, sizes in ((False, (64, 80, 96, 112, 128)), (True, wide.resolutions)):
        found = plan(request(start=str(tmp_path / "wide.safetensors"), sizes=None), gpu=gpu)
        assert found.network.space.resolutions == sizes
    assert recipe.stages["tuned"].bn == "batch"  # a supernet's statistics are those of no sub-network
    write_start(recipe, tmp_path, Processes())
    start = load_supernet(tmp_path / START)
    assert start.num_classes == 10
    assert torch.equal(start.stem.conv.weight, net.stem.conv.weight)


@pytest.mark.parametrize(("words", "message"), [
    (["--from", "tinny"], "source: 'tinny' is no source of a pretrained network; did you mean tiny?"),
    (["--from", "tiny", "--recipe", "digits"], "--recipe: digits stands beside --from"),
    (["--from", "tiny", "--sizes", "16,x"], "--sizes: '16,x' is not a list of sizes"),
    (["--from", "tiny", "--sizes", ""], "--sizes: '' is not a list of sizes"),
    (["--from", "tiny", "--sizes", "4"], "--sizes: 4 is not a whole number from 8 to 4096"),
    (["--from", "tiny", "--ratios", "half"], "--ratios: 'half' is not a list of shares"),
    (["--from", "tiny", "--ratios", "0"], "--ratios: 0 is not a share above 0, at most 1"),
    (["--from", "tiny", "--kernels", "4"], "--kernels: 4 is not an odd number"),
    (["--from", "tiny", "--dump-recipe", "recipe.yaml", "--dump-configs", "configs"],
     "--dump-configs: stands beside a pretrained start"),
    (["--sizes", "16"], "--sizes: has no effect without --from"),
])
def test_what_cannot_be_a_start(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["fit", "-o", str(tmp_path / "run"), *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_space_is_refused(tmp_path):
    recipe = plan(request(), gpu=False)
    other = replace(recipe.network.space, stem=replace(recipe.network.space.stem, width=24))
    with pytest.raises(UserError, match="network.space: does not fit the network that it starts from, which has anot"):
        write_start(recipe.model_copy(update={"network": recipe.network.model_copy(update={"space": other})}), tmp_path,
                    Processes())
    assert not (tmp_path / START).exists()


def test_saved_subnetworks_are_polished(run, capsys):
    before = json.loads((run / "summary.json").read_text())
    summary = fit(request(polish=1), run, Options())
    assert [{**row, "polished": None} for row in summary["subnets"]] == [
        {**row, "polished": None} for row in before["subnets"]]
    for row in summary["subnets"]:
        polished = row["polished"]
        assert (polished["epochs"], Path(polished["path"]).parts[0]) == (1, "polished")
        was, now = load_subnet(run / row["path"]), load_subnet(run / polished["path"])
        assert was.plan == now.plan and not torch.equal(was.stem.conv.weight, now.stem.conv.weight)
        config = json.loads((run / polished["path"] / "config.json").read_text())
        assert config["stage"]["teacher"]["network"]["weights"].endswith("tuned/weights.safetensors")
        assert config["data"]["mean"] == [0.4] * 3
    closing_table(summary, run)
    largest = summary["subnets"][-1]["polished"]
    out = capsys.readouterr().out
    assert str(run / largest["path"]) in out and f"{100 * largest['top1']:.2f} %" in out
    assert fit(request(polish=1), run, Options()) == summary  # done is done
    with pytest.raises(UserError, match="polished.*epochs is 1 there, and 2 is asked for; delete .* to polish it anew"):
        fit(request(polish=2), run, Options())


def test_a_moved_run_is_polished(run, tmp_path):
    """What it starts from is found in the folder that it was moved to."""
    fit(request(polish=1), run, Options())
    for folder in (tmp_path / "copied", tmp_path / "moved"):
        shutil.copytree(run, folder)
    names = [path.name for path in (run / "polished").iterdir()]
    (tmp_path / "moved/polished" / names[0] / "model.json").unlink()
    away = run.rename(run.with_name("away"))
    try:
        for folder in ("copied", "moved"):
            summary = fit(request(polish=1), tmp_path / folder, Options())
            assert all(row["polished"]["epochs"] == 1 for row in summary["subnets"])
    finally:
        away.rename(run)


def test_polish_is_for_one_process(run):
    with pytest.raises(UserError, match="--polish: is for one process, and there are 2"):
        fit(request(polish=1), run, Options(processes=Processes(0, 2, 0, 2)))


def test_without_a_teacher_the_largest_sub_network_teaches(tmp_path):
    recipe = Recipe(data=DataSpec("digits"), network=Network(space=from_pretrained(Tiny(), sizes=[16]).net.space,
                                                             num_classes=10, dropout=0.2),
                    stages={"all": Stage(epochs=1, optimizer=Optimizer(lr=0.01), mixing=Mixing(mixup=0.5))})
    last = recipe.trainings(tmp_path)["all"]
    net = Supernet(last.network.space, 10)
    (tmp_path / "all").mkdir()
    save(Trained(net, net.space), tmp_path / "all/weights.safetensors")
    made = polishing(last, tmp_path / "all", net.space.smallest, epochs=3)
    assert (made.stage.epochs, made.stage.loss.kd_weight, made.stage.optimizer.lr) == (3, 1.0, 0.005)
    assert made.teacher.network.dropout == 0 and made.network.dropout == 0.2
    assert made.stage.mixing == last.stage.mixing


def test_polish_is_a_number_of_epochs():
    with pytest.raises(UserError, match="--polish: -1 is not a whole number from 0"):
        request(polish=-1)


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Forty pictures without labels."""
    folder = tmp_path / "more"
    folder.mkdir()
    for i in range(40):
        Image.new("RGB", (16, 16), (6 * i, 255 - 6 * i, 100)).save(folder / f"{i}.png")
    return folder


def test_pictures_without_labels_train_under_the_teacher(unlabelled, tmp_path):
    asked = request(unlabelled=str(unlabelled))
    recipe = plan(asked, gpu=False)
    tuned, shrunk = (course_of(training) for training in recipe.trainings(tmp_path / "run").values())
    assert (tuned.unlabelled, shrunk.unlabelled) == (False, True)
    images, notes = dict[str, int](), list[str]()

    def hear(record: Mapping[str, Any]) -> None:
        if record["kind"] == "stage":
            images[Path(record["output"]).name] = record["steps"]
        elif record["kind"] == "note":
            notes.append(record["text"])

    fit(asked, tmp_path / "run", Options(listener=hear))
    labelled = len(data_of(recipe.data).train)
    assert images == {"tuned": labelled // 32, "shrunk": (labelled + 40) // 32}
    assert "training will take about 1 min, and the search some more" in notes
    about = json.loads((tmp_path / "run/subnets/largest/model.json").read_text())
    assert "unlabelled" not in about["data"]
    with pytest.raises(UserError, match="holds a run of another configuration"):
        fit(request(), tmp_path / "run", Options())


def test_a_picture_without_a_label_has_no_loss_by_labels():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels, loss = torch.tensor([2, -1, 0, -1]), Loss(smoothing=0.1)
    expected = F.cross_entropy(logits[[0, 2]], labels[[0, 2]], label_smoothing=0.1) / 2
    assert torch.allclose(_of_known(loss, logits, labels), expected)
    none = _of_known(loss, logits, torch.full((4,), -1))
    none.backward()
    assert none.item() == 0 and torch.equal(logits.grad, torch.zeros(4, 3))


def test_other_pictures_without_labels_than_before(unlabelled, tmp_path):
    """A stopped run does not go on with them; a finished one is scored without them."""
    asked, place = request(unlabelled=str(unlabelled)), tmp_path / "run"

    def halt(record: Mapping[str, Any]) -> None:
        if record["kind"] == "step" and Path(place / "shrunk").exists():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(asked, place, Options(listener=halt))
    Image.new("RGB", (16, 16)).save(unlabelled / "0.png")
    (unlabelled / "1.png").rename(unlabelled / "one.png")
    with pytest.raises(UserError, match="goes on with other unlabelled pictures"):
        fit(asked, place, Options())
    (unlabelled / "one.png").rename(unlabelled / "1.png")
    fit(asked, place, Options())
    shutil.rmtree(unlabelled)
    assert Run(place).extract("smallest").top1 >= 0


@pytest.mark.parametrize(("given", "said"), [
    (".", "share pictures"), ("train/a", "share pictures"), ("..", "share pictures"), ("", "'' is not a folder")])
def test_the_test_pictures_are_not_among_them(given, said, tmp_path):
    for i in range(12):
        path = tmp_path / "data" / ("test" if i > 7 else "train") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (20 * i, 0, 0)).save(path)
    folder = given and str(tmp_path / "data" / given)
    with pytest.raises(UserError, match=f"data.unlabelled: .*{said}"):
        plan(request(data=str(tmp_path / "data"), unlabelled=folder), gpu=False)


@pytest.mark.parametrize(("changes", "said"), [
    ({"balanced": True}, "--balanced: stands beside --unlabelled"),
    ({"start": None, "sizes": None, "changes": (), "recipe": "cifar10-cpu"},
     "data.unlabelled: has no effect, since no stage has a teacher"),
])
def test_what_does_not_go_with_them(changes, said, unlabelled):
    with pytest.raises(UserError, match=said):
        plan(request(unlabelled=str(unlabelled), **changes), gpu=False)


def test_a_run_is_scored_and_drawn(run, tmp_path, monkeypatch, capsys):
    """`benchmarks/transfer.py`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    script = import_module("transfer")
    records, picture = tmp_path / "found.json", tmp_path / "found.png"
    words = ["transfer", str(run), "--records", str(records), "--picture", str(picture), "--count", "3", "--below", "9",
             "--milliseconds", "1"]
    for _ in range(2):  # the second time from the records
        monkeypatch.setattr("sys.argv", words)
        script.main()
        found = json.loads(capsys.readouterr().out)
        assert found == json.loads(records.read_text())
    assert [row["pixels"] for row in found["tuned"]] == [12, 16] and len(found["front"]) <= 3
    tuned, summary = load_supernet(run / "tuned"), json.loads((run / "summary.json").read_text())
    evaluator = Run(run).evaluator
    for row in found["tuned"]:  # with the statistics that it was trained with
        net = extract(tuned, tuned.space.largest.at(row["pixels"]))
        top1 = evaluator.score_net(net, row["pixels"], evaluator.data.test).top1
        assert row["top1"] == pytest.approx(100 * top1, abs=0.01) and row["ms"] > 0
    assert [row["macs"] for row in found["largest"]] == [row["macs"] for row in found["tuned"]]
    below, = found["below"]
    assert found["front"][0]["macs"] <= below["macs"] < 9
    assert found["middle"][0]["pixels"] == 16
    assert [row["arch"] for row in found["saved"]] == [row["arch"] for row in summary["subnets"]]
    assert Image.open(picture).width > 500


def test_a_report_has_the_stages_in_their_order(run, tmp_path, caplog):
    """In that of the recipe, and not of their names."""
    assert list(gather(run).stages) == ["tuned", "shrunk"]
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/recipe.yaml").write_text("stages: 3")
    assert list(gather(tmp_path / "run").stages) == ["shrunk", "tuned"]
    assert "left out: " in caplog.text


def test_ways_to_shrink_are_compared(run, monkeypatch, capsys):
    """`benchmarks/shrinking.py` on the run's own settings reaches what the run has."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    script, net, evaluator = import_module("shrinking"), load_supernet(run / "shrunk"), Run(run).evaluator
    own, other = script.shrunk(run, []), script.shrunk(run, ["epochs=3", "sort=none"])
    exact = {name: 100 * evaluator.score(net, arch, evaluator.data.test).top1
             for name, arch in (("smallest", net.space.smallest.at(16)), ("largest", net.space.largest.at(16)))}
    assert {name: own[name] for name in exact} == pytest.approx(exact, abs=0.051)
    assert own.keys() == other.keys() and own != other
    grown = script.shrunk(run, [], epochs=[1, 1, 2])
    assert grown.keys() == own.keys() and grown != own
    stages = script.growing(Recipe.read(run / "recipe.yaml"), [1, 1, 2])
    parts = [stage.part(net.space) for stage in stages.values()]
    assert parts[1].largest == net.space.largest and parts[3] == net.space
    assert {row.depth[0] for row in parts[1].stages} == {2} and {row.depth[0] for row in parts[2].stages} == {1}
    assert sorted(path.name for path in run.iterdir() if path.is_dir() and path.name != "polished") == [
        "search", "shrunk", "subnets", "tuned"]


def test_what_a_run_competes_with_costs_as_much(run, tmp_path, monkeypatch):
    """`benchmarks/yardsticks.py`."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    script, records = import_module("yardsticks"), tmp_path / "rows.jsonl"
    budget = sum(map(script.cost, Recipe.read(run / "recipe.yaml").trainings(run).values()))
    (all_sizes, archs), = script.yardsticks(run, "all-sizes")
    each = list(script.yardsticks(run, "each-size"))
    one_epoch = script.cost(all_sizes) / all_sizes.stage.epochs
    assert abs(script.cost(all_sizes) - budget) <= one_epoch / 2
    assert [arch.resolution for arch in archs] == [12, 16] == [archs[0].resolution for _, archs in each]
    assert all(script.cost(training) <= budget for training, _ in each)
    saved = json.loads((run / "summary.json").read_text())["subnets"]
    alone = list(script.yardsticks(run, "alone"))
    assert [str(arch) for _, (arch,) in alone] == [row["arch"] for row in saved]
    assert {training.network.weights for training, _ in alone} == {str(run / "tuned/weights.safetensors")}
    (_, one), = script.yardsticks(run, "alone", subnets=["smallest"])
    (_, size), = script.yardsticks(run, "each-size", sizes=[16])
    assert size == each[1][1]
    assert [str(arch) for arch in one] == [saved[0]["arch"]]
    monkeypatch.setattr("sys.argv", ["yardsticks", str(run), "--records", str(records)])
    script.main()
    rows = [json.loads(line) for line in records.read_text().splitlines()]
    assert [row["kind"] for row in rows] == ["all-sizes"] * 2 + ["each-size"] * 2 + ["alone"] * len(saved)
    assert all(0 <= row["top1"] <= 100 for row in rows)
    monkeypatch.setattr(script, "train", None)  # nothing is trained twice
    script.main()
    assert len(records.read_text().splitlines()) == len(rows)


def test_what_each_dimension_adds(run, monkeypatch):
    """`benchmarks/dimensions.py`: what is not elastic stays at its largest, and the best below a limit is below it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    script, net = import_module("dimensions"), load_supernet(run / "shrunk")
    largest, smallest = (macs(net.space, arch, num_classes=10) / 1e6
                         for arch in (net.space.largest, net.space.smallest))
    rows = list(script.measured(run, [smallest / 2, 1.01 * smallest, 2 * largest]))
    assert [row["elastic"] for row in rows] == [["resolution", *some] for some in (
        (), ("fraction",), ("kernel",), ("depth",), ("fraction", "kernel"), ("fraction", "depth"), ("kernel", "depth"),
        ("fraction", "kernel", "depth"))]
    assert rows[0]["best"][:2] == [None, None] and rows[-1]["best"][0] is None
    assert rows[-1]["best"][1][0] == pytest.approx(smallest, abs=0.1)
    assert all(best[0] <= 2 * largest for row in rows for best in filter(None, row["best"]))
    part = net.space.largest_of("kernel").largest_of("depth")
    told = script.OfPart(net_predictor := script.fit_best(rows_of(net.space)).predictor, part)
    codes = np.array([part.encode(part.smallest), part.encode(part.largest)])
    whole = np.array([net.space.encode(arch) for arch in (part.smallest, part.largest)])
    assert told.of(codes).tolist() == net_predictor.of(whole).tolist()


def rows_of(space: SearchSpace) -> Measured:
    """Accuracies that rise with the size of a sub-network."""
    rng = random.Random(0)
    archs = [space.sample(rng) for _ in range(30)]
    return Measured(space, np.array([space.encode(arch) for arch in archs]),
                    np.array([macs(space, arch) for arch in archs]) / macs(space, space.largest))
