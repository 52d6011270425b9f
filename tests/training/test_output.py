"""Output folder: who may go on in it, on how many processes, and whether all of them run the same."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from small import SPACE, config

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import pictures_of, training_of
from onceforall.training.engine import checkpoint, output
from onceforall.training.engine.checkpoint import NEWEST, Position
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.output import check_alike, check_files, check_output, check_pictures, files_of, identity
from onceforall.training.engine.places import write_config
from onceforall.training.engine.run import train
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Training

TWO = Options(processes=Processes(0, 2, 0, 2))


def changed(configuration: Config, **hparams) -> Training:
    values = configuration.to_dict()
    return training_of(Config.from_dict({**values, "hparams": {**values["hparams"], **hparams}}), search=True)


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> Path:
    """A run stopped in the middle of its first epoch."""
    folder = tmp_path_factory.mktemp("runs") / "started"

    def stop(record):
        if record["kind"] == "step" and record["step"] == 9:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(training_of(config(checkpoint_every_steps=8), search=True), folder, Options(listener=stop))
    return folder


def test_another_number_of_processes(started):
    check_output(training_of(config(), search=True), started, Options())
    for same in (changed(config()), changed(config(), batch_size_train=32, mini_batch_train=16)):
        check_output(same, started, TWO)
    with pytest.raises(UserError, match="stage.batches.size is 64 there, and 16 is asked for"):
        check_output(changed(config(), batch_size_train=16, mini_batch_train=16), started, TWO)
    with pytest.raises(UserError, match="stage.batches.size is 64 there, and 32 is asked for"):
        check_output(changed(config(), batch_size_train=32, mini_batch_train=32), started, Options())
    with pytest.raises(UserError, match="stage.batches.micro is nothing there, and 32 is"):
        check_output(changed(config(), mini_batch_train=32), started, Options())
    with pytest.raises(UserError, match="stage.seed is 0 there, and 1 is asked for"):
        check_output(changed(config(), seed=1), started, TWO)


def test_the_cache_may_change_its_size_alone(started, tmp_path):
    was = training_of(config(), search=True)
    kept = [was.model_copy(update={"data": replace(was.data, cache=cache)}) for cache in (1, 2)]
    with pytest.raises(UserError, match='data.cache is "off" there, and "on" is asked for'):
        check_output(kept[0], started, Options())
    write_config(kept[0], tmp_path)
    for training in kept:
        check_output(training, tmp_path, Options())
    with pytest.raises(UserError, match='data.cache is "on" there, and "off" is asked for'):
        check_output(was, tmp_path, Options())


def test_a_run_goes_on_with_the_options_it_began_with(started):
    with pytest.raises(UserError, match="data.train_portion is 0.9 there, and 1.0 is asked for"):
        check_output(training_of(config()), started, Options())


def test_the_position_is_kept_in_pictures(started, monkeypatch, tmp_path, caplog):
    """As if two processes with a batch of 64 each went on from step 8 of one: at their step 4."""
    from onceforall.training.engine import run
    for path in started.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("wait", "check_alike"):
        monkeypatch.setattr(run, name, lambda *_: None)
    monkeypatch.setattr(run, "told", lambda value, _: value)
    monkeypatch.setattr(run, "gathered", lambda value, processes: [value] * processes.world)
    heard = []

    def stop(record):
        heard.append(record)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), caplog.at_level("WARNING", "onceforall"):
        train(training_of(config(), search=True), tmp_path, replace(TWO, listener=stop))
    assert (heard[0]["kind"], heard[0]["epoch"], heard[0]["step"]) == ("stage", 0, 4)
    assert "goes on with 2 processes instead of 1: the same pictures in the same order, other bits" in caplog.text
    assert checkpoint._meta(started / NEWEST)["step"] == 8


@pytest.mark.slow
def test_another_torch_is_said(started, tmp_path, caplog):
    for path in started.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    meta = checkpoint._meta(tmp_path / NEWEST)
    from safetensors.torch import load_file, save_file
    extra = {**meta["extra"], "made_by": {**meta["extra"]["made_by"], "torch": "1.0"}}
    save_file(load_file(tmp_path / NEWEST), tmp_path / NEWEST, {"onceforall": json.dumps({**meta, "extra": extra})})
    with caplog.at_level("WARNING", "onceforall"):
        train(training_of(config(), search=True), tmp_path, Options())
    assert f"began with torch 1.0 and goes on with {torch.__version__}: the last bits will differ" in caplog.text


@pytest.mark.parametrize("place", ["stage.predictor", "stage.teacher.network.weights"])
def test_files_that_a_run_reads_again(place, started, tmp_path):
    (tmp_path / "file").write_bytes(b"one")
    choices = {"sampling": "best_up", "predictor": str(tmp_path / "file")} if place == "stage.predictor" else {
        "lambda_kd": 1.0, "teacher_network": {"ofa": {**SPACE, "weights": str(tmp_path / "file")}}}
    settings = changed(config(), **choices)
    before = files_of(settings)
    check_files(before, before)
    assert list(before) == [place] and files_of(changed(config())) == {}
    (tmp_path / "file").write_bytes(b"another")
    with pytest.raises(UserError, match=f"{place}: names another file than the run began with; put that one back"):
        check_files(files_of(settings), before)
    assert checkpoint._meta(started / NEWEST)["extra"]["files"] == {}


@pytest.mark.parametrize(("other", "message"), [
    ({"files": {"stage.predictor": 1}}, r"\(files.stage.predictor differs\)"),
    ({"torch": "1.0"}, r"process 1 of 2: runs something else than process 0 \(torch differs\); give all processes the"),
    ({"settings": changed(config(), seed=7).to_dict()}, r"\(settings.stage.seed differs\)"),
    ({"checkpoint-every": (1.0, None)}, r"\(checkpoint-every differs\)"),
    ({"training pictures": (1, 2)}, r"\(training pictures differs\)")])
def test_processes_that_differ(monkeypatch, other, message):
    data = data_of(pictures_of(config(), search=True))
    monkeypatch.setattr(output, "gathered", lambda mine, _: [mine, mine])
    check_alike(changed(config()), data, TWO)
    monkeypatch.setattr(output, "gathered", lambda mine, _: [mine, {**mine, **other}])
    with pytest.raises(UserError, match=message):
        check_alike(changed(config()), data, TWO)


@pytest.fixture(scope="module")
def six(tmp_path_factory) -> Path:
    """Pictures of two classes, and a run on them that was stopped."""
    folder = tmp_path_factory.mktemp("six")
    for split, count in (("train", 40), ("val", 4)):
        for level, name in ((0, "ant"), (200, "bee")):
            for i in range(count):
                path = folder / "data" / split / name / f"{i:02d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (level, i, 255 - level)).save(path)

    def stop(record):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(on_folder(folder), folder / "run", Options(listener=stop))
    return folder


def on_folder(folder: Path) -> Training:
    values = config(batch_size_train=8, mini_batch_train=8).to_dict()
    values["network"]["ofa"]["num_classes"] = 2
    values["dataloader"] = {"folder": {"root": str(folder / "data")}}
    return training_of(Config.from_dict(values), search=True)


@pytest.mark.parametrize(("change", "message"), [
    (lambda data: [(data / split / "ant").rename(data / split / "cat") for split in ("train", "val")],
     "run: goes on with other classes: without ant and with cat; put back what the run began with, or"),
    (lambda data: [os.rename(data / split / name, data / split / new) for split in ("train", "val")
                   for name, new in (("ant", "tmp"), ("bee", "ant"), ("tmp", "bee"))],
     r"run: goes on with other training pictures \(72 before, 72 now\)"),
    (lambda data: (data / "train" / "bee" / "07.png").unlink(),
     r"run: goes on with other training pictures \(72 before, 71 now\); put back"),
])
def test_other_pictures_are_refused(six, tmp_path, change, message):
    shutil.copytree(six, tmp_path / "six")
    change(tmp_path / "six" / "data")
    settings = on_folder(tmp_path / "six")
    write_config(settings, tmp_path / "six" / "run")  # it lies elsewhere now
    with pytest.raises(UserError, match=message):
        train(settings, tmp_path / "six" / "run", Options())


def test_other_test_pictures_are_said_where_none_of_them_chooses(six, tmp_path, caplog):
    data = data_of(on_folder(six).data)
    fewer = identity(replace(data, test=data.test.subset(range(5))))
    caplog.clear()
    check_pictures(tmp_path, identity(data), identity(data))
    assert not caplog.records
    check_pictures(tmp_path, fewer, identity(data))
    assert "goes on with other validation pictures (8 before, 5 now): scores on them cannot be compared" in caplog.text
    none = data.held_out.subset([])
    with pytest.raises(UserError, match="goes on with other validation pictures"):
        check_pictures(tmp_path, identity(replace(data, held_out=none, test=none)),
                       identity(replace(data, held_out=none)))
    check_pictures(tmp_path, identity(data), {})  # a checkpoint of before


def test_a_run_begins_with_a_good_checkpoint(tmp_path):
    def stop(record):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(training_of(config(), search=True), tmp_path / "run", Options(listener=stop))
    meta = checkpoint._meta(tmp_path / "run" / checkpoint.GOOD)
    assert Position(meta["epoch"], meta["step"]) == Position()
