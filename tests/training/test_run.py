"""A run and its folder: what it leaves, resuming to the bit after a kill, refusing another configuration."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Popen
from safetensors.torch import load_file
from small import config

import onceforall
from onceforall.cli import main
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.interop.nnabla.weights import read
from onceforall.training.engine import checkpoint
from onceforall.training.engine.output import finished
from onceforall.training.engine.places import read_config, write_config
from onceforall.training.engine.run import train
from onceforall.training.setup import Options
from onceforall.weights.nets import load


@pytest.fixture(scope="module")
def fullnet(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "K7"
    train(training_of(config(), search=True), folder, Options())
    return folder


def same_weights(a: Path, b: Path) -> bool:
    one, two = load_file(a / "checkpoint.safetensors"), load_file(b / "checkpoint.safetensors")
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.slow
def test_what_a_run_leaves(fullnet):
    assert finished(fullnet)
    assert {p.name for p in fullnet.iterdir()} == {
        "config.json", "paths.json", "weights.safetensors", "weights.h5", "checkpoint.safetensors", "metrics.jsonl",
        "tensorboard", "log.txt"}
    assert read_config(fullnet) == training_of(config(), search=True)
    records = [json.loads(line) for line in (fullnet / "metrics.jsonl").read_text().splitlines()]
    assert [r["kind"] for r in records] == ["train", "valid"] * 2
    assert records[-1]["tag"] == "16px_k7e6_d2"
    assert records[-1]["loss"] < 2.4
    assert list((fullnet / "tensorboard").glob("events*"))
    arrays = read(fullnet / "weights.h5").arrays
    assert len(arrays) == 197  # a full net's file has no kernel matrices


def test_the_file_gives_the_net_back(fullnet):
    net, again = load(fullnet), onceforall.load(str(fullnet / "weights.h5"))
    assert net.space.resolutions == (12, 16)
    assert net.space.largest == net.space.smallest.at(16)
    images = torch.rand(2, 3, 16, 16)
    assert torch.equal(net(images, net.space.largest), again(images, net.space.largest))
    state = load_file(fullnet / "checkpoint.safetensors")
    assert all(torch.equal(t, state[f"net.{n}"]) for n, t in net.state_dict().items() if "num_batches" not in n)


def test_a_finished_run_is_left_alone(fullnet, caplog):
    before = (fullnet / "weights.h5").stat().st_mtime_ns
    with caplog.at_level("INFO", "onceforall"):
        train(training_of(config(), search=True), fullnet, Options())
    assert "is finished: nothing to do" in caplog.text
    assert (fullnet / "weights.h5").stat().st_mtime_ns == before


def test_a_weights_file_that_was_removed_is_written_again(fullnet, tmp_path):
    shutil.copytree(fullnet, tmp_path / "run")
    (tmp_path / "run" / "weights.h5").unlink()
    assert not finished(tmp_path / "run")
    train(training_of(config(), search=True), tmp_path / "run", Options())
    assert finished(tmp_path / "run")
    assert same_weights(fullnet, tmp_path / "run")


def test_another_configuration_is_refused(fullnet):
    with pytest.raises(UserError, match="holds a run of another configuration: stage.epochs is 2 there, and 3 is"):
        train(training_of(config(epoch=3), search=True), fullnet, Options())


def test_a_run_goes_on_as_it_began(fullnet, tmp_path):
    for name in ("config.json", "checkpoint.safetensors"):  # a run whose weights.h5 is not there yet: stopped
        (tmp_path / name).write_bytes((fullnet / name).read_bytes())
    with pytest.raises(UserError, match=r"data.train_portion is 0.9 there, and 1.0 is asked for"):
        train(training_of(config()), tmp_path, Options())
    train(training_of(config(), search=True), tmp_path, Options())  # stopped between its last epoch and the end
    assert finished(tmp_path)
    assert same_weights(fullnet, tmp_path)


def test_search_validates_on_held_out_pictures(fullnet):
    records = [json.loads(line) for line in (fullnet / "metrics.jsonl").read_text().splitlines()]
    assert {r["images"] for r in records if r["kind"] == "valid"} == {145}
    assert {r["images"] for r in records if r["kind"] == "train"} == {1280}  # 1,293 pictures, whole batches


@pytest.mark.slow
def test_the_next_stage_starts_from_the_weights(fullnet, tmp_path, caplog):
    weights = fullnet / "weights.h5"
    with caplog.at_level("INFO", "onceforall"):
        kernel = config("kernel", weights=weights, teacher=weights, epoch=1)
        train(training_of(kernel, search=True), tmp_path / "K357", Options())
    assert "narrower space: 20 kernel matrices start at identity" in caplog.text
    net = load(tmp_path / "K357")
    assert net.space.stages[0].choices["kernel"] == (3, 5, 7)
    assert not torch.equal(net.stages[0][0].depthwise.conv.kernel_7to5, torch.eye(25))


def test_weights_of_another_network_are_refused_before_training(fullnet, tmp_path):
    wrong = Config.from_dict({**config(weights=fullnet / "weights.h5").to_dict()})
    values = wrong.to_dict()
    values["network"]["ofa"]["num_classes"] = 11
    with pytest.raises(UserError, match=r"network.weights: .*linear/_W: has shape \(.*, 10\); \(.*, 11\) is needed"):
        train(training_of(Config.from_dict(values), search=True), tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_subnet_is_fine_tuned_and_evaluated(fullnet, tmp_path, capsys):
    values = config(weights=fullnet / "weights.h5").to_dict()
    values["network"]["ofa"]["genotype"] = [0] * 10
    values["hparams"] |= {"img_size": 16, "epoch": 1}
    del values["hparams"]["train_image_size_list"]
    train(training_of(Config.from_dict(values), "OFATrainer"), tmp_path / "subnet", Options())
    arrays = read(tmp_path / "subnet" / "weights.h5").arrays
    assert "blocks/1/conv/inverted_bottleneck/conv/_W" in arrays  # the static net's names
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(tmp_path / "subnet"), "--json", "--device", "cpu"])
    score = json.loads(capsys.readouterr().out)
    last = json.loads((tmp_path / "subnet" / "metrics.jsonl").read_text().splitlines()[-1])
    assert end.value.code == 0
    assert sum(row["images"] for row in score.pop("classes")) == score["images"]
    assert score == {**{k: last[k] for k in ("arch", "top1", "top5", "loss", "images")}, "resolution": 16}


def run_in_process(values: dict, folder: Path) -> Popen:
    path = folder.parent / f"{folder.name}.json"
    path.write_text(json.dumps(values))
    code = ("import sys, torch; torch.set_num_threads(1); from onceforall.cli import main; "
            f"main(['train', '--search', '-c', 'cpu', '-f', {str(path)!r}, '-o', {str(folder)!r}])")
    return Popen([sys.executable, "-c", code])


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(fullnet, tmp_path):
    """SIGKILL in the middle of an epoch, twice; checkpoints within epochs too."""
    weights = fullnet / "weights.h5"
    values = config("kernel", weights=weights, teacher=weights, epoch=2, checkpoint_every=0.002,
                    batch_size_train=32).to_dict()
    whole = run_in_process(values, tmp_path / "whole")
    assert whole.wait(300) == 0, whole.stderr.read()
    for wanted in (1, 2):
        process = run_in_process(values, tmp_path / "killed")
        checkpointed = tmp_path / "killed" / "checkpoint.safetensors"
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            position = checkpoint_position(checkpointed)
            if position is not None and position >= (wanted - 1, 5):
                break
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = run_in_process(values, tmp_path / "killed")
    errors = last.communicate(timeout=300)[1]
    assert last.returncode == 0, errors
    assert "resuming" in errors
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    strip = lambda folder: [{k: v for k, v in json.loads(line).items() if "second" not in k}
                            for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]
    assert strip("whole") == strip("killed")


def checkpoint_position(path: Path) -> tuple[int, int] | None:
    if not path.exists():
        return None
    meta = checkpoint._meta(path)
    return meta["epoch"], meta["step"]


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_a_damaged_checkpoint_is_one_line(fullnet, tmp_path, kept):
    folder = tmp_path / "run"
    folder.mkdir()
    write_config(training_of(config(), search=True), folder)
    (folder / "checkpoint.safetensors").write_bytes((fullnet / "checkpoint.safetensors").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"is not a readable checkpoint .*; remove it to start the stage again"):
        train(training_of(config(), search=True), folder, Options())
