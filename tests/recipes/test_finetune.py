"""Fine-tuning: what it leaves, resuming to the bit, a teacher, other classes, one line for a mistake."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import onceforall
from onceforall.cli import main
from onceforall.data import ArrayPictures, DataSpec, load_data
from onceforall.deploy.description import read_description
from onceforall.deploy.folder import Scored, open_subnet, save_subnet
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.recipes.finetune import Request, _Start, _training, finetune
from onceforall.space import search_space
from onceforall.training.engine.places import read_config
from onceforall.training.evaluate import Evaluator
from onceforall.training.setup import Options
from onceforall.weights.nets import Trained, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=[12, 16])


def ofa(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments), *(["--device", "cpu"] if arguments[0] == "finetune" else [])])
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec("digits"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, digits) -> Path:
    """A supernet with random weights in `supernet`, and its smallest sub-network, extracted, in `small`."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "supernet").mkdir()
    net = Supernet(SPACE, 10, dropout=0.2, generator=torch.Generator().manual_seed(1)).eval()
    weights = folder / "supernet" / "weights.h5"
    save(Trained(net, SPACE, None, {"mean": digits.mean, "std": digits.std, "classes": digits.classes}), weights)
    evaluator = Evaluator(digits, calibration_images=200)
    subnet = evaluator.subnet(net, SPACE.smallest)
    save_subnet(Scored.of(evaluator, subnet, SPACE, SPACE.smallest).extracted, folder / "small", source=weights)
    return folder


@pytest.fixture(scope="module")
def whole(runs) -> Path:
    """`small` fine-tuned for two epochs."""
    finetune(Request(runs / "small", epochs=2), runs / "whole", Options())
    return runs / "whole"


@pytest.fixture(scope="module")
def letters(runs, digits) -> Path:
    """A folder of pictures of two classes that the sub-network does not know by these names."""
    for split, pictures, count in (("train", digits.train, 40), ("val", digits.test, 10)):
        assert isinstance(pictures, ArrayPictures)
        for label, name in ((0, "o"), (1, "l")):
            for i, image in enumerate(pictures.images[pictures.labels == label][:count]):
                path = runs / "letters" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return runs / "letters"


def same_weights(a: Path, b: Path, name: str = "model.safetensors") -> bool:
    one, two = load_file(a / name), load_file(b / name)
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.slow
def test_the_command_from_end_to_end(runs, whole, tmp_path, capsys):
    command = ("finetune", runs / "small", "-o", tmp_path / "out", "--epochs", 1)
    code, out, err = ofa(capsys, *command)
    before, after = read_description(runs / "small"), read_description(tmp_path / "out")
    assert code == 0, err
    first, last = (f"{100 * about.accuracy.top1:.2f} %" for about in (before, after))
    assert out.splitlines()[0] == (f"{tmp_path / 'out'}: {before.arch}, top-1 {first} before, {last} after, on 359 "
                                   "test pictures")
    assert json.loads(ofa(capsys, "evaluate", tmp_path / "out", "--json")[1])["top1"] == after.accuracy.top1
    assert after.provenance["source"] == str(runs / "small" / "model.safetensors")
    assert after.provenance["sha256"] == before.sha256["model.safetensors"]
    assert after.provenance["finetuned"] == {"epochs": 1, "lr": 0.0106, "teacher": None,
                                             "top1_before": before.accuracy.top1}
    assert (after.arch, after.space, after.plan) == (before.arch, before.space, before.plan)
    assert "was fine-tuned from" in (tmp_path / "out" / "README.md").read_text()
    assert onceforall.load_subnet(tmp_path / "out")(torch.rand(2, 3, 12, 12)).shape == (2, 10)
    assert not same_weights(runs / "small", tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    code, again, err = ofa(capsys, *command)
    assert (code, again) == (0, out)
    assert err == f"{tmp_path / 'out'} is finished: nothing to do\n"
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}


@pytest.mark.slow
def test_what_was_exported_is_exported_and_verified_anew(runs, tmp_path, capsys):
    shutil.copytree(runs / "small", tmp_path / "small")
    assert ofa(capsys, "export", tmp_path / "small", "--to", "torch-export", "--batch", 2)[0] == 0
    code, out, err = ofa(capsys, "finetune", tmp_path / "small", "-o", tmp_path / "out", "--epochs", 1)
    assert code == 0, err
    assert re.search(r"^model\.pt2 .* 359 of 359 ", out, re.MULTILINE)
    about = read_description(tmp_path / "out")
    assert list(about.exports) == ["model.pt2"]
    assert about.exports["model.pt2"].batch == 2
    assert about.exports["model.pt2"].verification.torch_top1 == about.accuracy.top1


def test_it_begins_with_the_sub_network_as_it_is(runs, whole):
    trained = read_config(whole)
    assert (trained.network.dropout, trained.network.eps) == (0.2, 1e-5)
    assert trained.network.bn_momentum == pytest.approx(0.1)
    assert (trained.data.augment.crop_scale, trained.data.augment.flip) == ((0.7, 1.0), False)
    assert (trained.network.subnet.resolution, trained.stage.batches.size) == (12, 32)
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["top1"] == read_description(whole).accuracy.top1  # validation as in OFATrainer: no recalibration
    assert last["top1"] > read_description(runs / "small").accuracy.top1 + 0.2
    assert (last["images"], last["epoch"]) == (359, 1)


@pytest.mark.slow
def test_a_stopped_run_ends_with_the_same_bits(runs, whole, tmp_path):
    def stop(record):
        if record["kind"] == "step" and (record["epoch"], record["step"]) == (1, 3):
            raise KeyboardInterrupt
    request = Request(runs / "small", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        finetune(request, tmp_path / "out", Options(listener=stop))
    assert not (tmp_path / "out" / "model.json").exists()
    steps = []
    about = finetune(request, tmp_path / "out", Options(listener=lambda r: steps.append(r["kind"])))
    assert steps.count("step") == 44  # the second epoch alone
    assert same_weights(whole, tmp_path / "out")
    assert about.accuracy == read_description(whole).accuracy
    (tmp_path / "out" / "model.json").unlink()  # stopped between training and description
    assert finetune(request, tmp_path / "out", Options()).accuracy == about.accuracy


@pytest.mark.slow
def test_a_teacher_teaches(runs, tmp_path, capsys):
    command = ("finetune", runs / "small", "--epochs", 1, "--batch", 256)
    for name, more in (("alone", ()), ("taught", ("--teacher", runs / "supernet"))):
        assert ofa(capsys, *command, "-o", tmp_path / name, *more)[0] == 0
    stage = read_config(tmp_path / "taught").stage
    assert stage.loss.kd_weight == 1
    assert stage.teacher.network.weights == str(runs / "supernet" / "weights.h5")
    assert stage.optimizer.lr == 0.0849  # 0.03 x 256 / 32, x the root of 1 / 8 epochs
    assert not same_weights(tmp_path / "alone", tmp_path / "taught")


def test_other_classes_get_a_new_classifier(runs, letters, tmp_path, capsys):
    command = ("finetune", runs / "small", "--data", letters, "-o", tmp_path / "out")
    code, out, err = ofa(capsys, *command, "--epochs", 2)
    assert code == 0, err
    assert "the classifier starts anew: 2 classes, random from seed 0" in err
    assert "the classifier starts anew" in (tmp_path / "out" / "log.txt").read_text()
    assert "before" not in out
    about = read_description(tmp_path / "out")
    assert (about.num_classes, about.classes) == (2, ["l", "o"])
    assert about.provenance["finetuned"]["top1_before"] is None
    assert json.loads(ofa(capsys, "evaluate", tmp_path / "out", "--json")[1])["top1"] == about.accuracy.top1
    code, _, err = ofa(capsys, *command, "--teacher", runs / "supernet")
    assert (code, err) == (2, f"ofa: --teacher {runs / 'supernet'}: tells 10 other classes apart than the pictures' 2; "
                              "teacher and student need the same\n")


def test_defaults_follow_from_the_pictures(runs, digits):
    start = _Start(*open_subnet(runs / "small"))
    few, many = (replace(digits, train=replace(digits.train, labels=torch.zeros(n))) for n in (160, 50_000))
    found = [_training(Request(runs / "small"), start, data, processes=2) for data in (digits, few, many)]
    assert [(t.stage.batches.size, t.stage.epochs, t.stage.optimizer.lr) for t in found] == [
        (16, 8, 0.03), (8, 30, 0.015), (16, 2, 0.015)]
    large = replace(many, spec=DataSpec("folder", root="photographs"),
                    train=replace(many.train, images=torch.zeros(1, 3, 120, 120).expand(50_000, -1, -1, -1)))
    assert _training(Request(runs / "small"), start, large, processes=1).stage.batches.size == 64
    spec = DataSpec("list", train_path="a", train_file="b", valid_path="c", valid_file="d", train_portion=1.0)
    listed = _training(Request(runs / "small"), start, replace(digits, spec=spec), processes=1)
    assert listed.data == replace(spec, augment=listed.data.augment)
    flips = [_training(Request(runs / "small", flip=flip), start, digits, processes=1).data.augment.flip
             for flip in (None, True, False)]
    assert flips == [False, True, False]
    with pytest.raises(UserError, match=r"--batch: 32 is not a multiple of 3, the number of processes; 33 is"):
        _training(Request(runs / "small"), start, digits, processes=3)


@pytest.mark.parametrize(("arguments", "message"), [
    (("{runs}/supernet",), "supernet/model.json: cannot be read: No such file or directory; `ofa extract` writes one"),
    (("{runs}/supernet/weights.h5",), "weights.h5/model.json: cannot be read"),
    (("{runs}/letters",), "letters/model.json: cannot be read"),
    (("{small}", "--epochs", 0), "--epochs: 0 is not a number from 1"),
    (("{small}", "--lr", 0), "--lr: 0 is not a number above 0"),
    (("{small}", "--lr", "nan"), "--lr: nan is not a number above 0"),
    (("{small}", "--batch", 0), "--batch: 0 is not a number from 1"),
    (("{small}", "--seed", -1), "--seed: -1 is not a number from 0"),
    (("{small}", "--workers", -1), "Invalid value for '--workers': Input should be"),
    (("{small}", "--root", "x"), "--root: is given without --data"),
    (("{small}", "--data", "/nowhere"), "/nowhere is not a folder"),
    (("{small}", "--teacher", "{small}"), "small: holds an extracted sub-network, not a supernet; give a run folder"),
    (("{small}", "--teacher", "/nowhere"), "/nowhere: is neither a run folder nor a weights file"),
    (("{small}", "-t", "int8"), "--type-config: 'int8' is not one of"),
])
def test_a_mistake_is_one_line_and_writes_nothing(runs, letters, tmp_path, capsys, arguments, message):
    words = [str(a).format(runs=runs, small=runs / "small") for a in arguments]
    code, out, err = ofa(capsys, "finetune", *words, "-o", tmp_path / "out")
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert not (tmp_path / "out").exists()


def test_folders_that_hold_something_else_are_refused(runs, whole, tmp_path, capsys):
    def refused(output: Path, *more: object) -> str:
        before = {p: p.stat().st_mtime_ns for p in output.rglob("*")}
        code, out, err = ofa(capsys, "finetune", runs / "small", "-o", output, "--epochs", 2, *more)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert before == {p: p.stat().st_mtime_ns for p in output.rglob("*")}
        return err
    assert "is the folder of the sub-network itself; give another -o" in refused(runs / "small" / ".." / "small")
    assert "stage.optimizer.lr is 0.015 there, and 0.01 is asked for" in refused(whole, "--lr", 0.01)
    shutil.copytree(runs / "small", tmp_path / "other")
    assert "other: holds another sub-network; give another -o" in refused(tmp_path / "other")
    assert "holds another run; give another -o" in refused(runs)
    shutil.copytree(whole, tmp_path / "done")
    about = read_description(whole)
    about.model_copy(update={"provenance": {**about.provenance, "sha256": "0"}}).write(tmp_path / "done")
    assert "done: was fine-tuned from other weights than" in refused(tmp_path / "done")
