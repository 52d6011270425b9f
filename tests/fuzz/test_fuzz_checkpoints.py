"""Damaged checkpoints and files of many sub-networks, and the command lines that train."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
import torch
from fuzzing import cases, damaged, judged
from hypothesis import given
from hypothesis import strategies as st

from onceforall.cli import main
from onceforall.deploy.elastic import Elastic
from onceforall.errors import UserError
from onceforall.training.engine import checkpoint
from onceforall.training.engine.checkpoint import Position


def learner() -> tuple[torch.nn.Module, torch.optim.SGD]:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    with torch.no_grad():
        net[0].weight.fill_(0.5)
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def saved(folder) -> bytes:
    checkpoint.save(folder, *learner(), position=Position(3, 2), extra={"a": 1})
    return (folder / checkpoint.NEWEST).read_bytes()


@cases(150)
@given(data=st.data())
def test_checkpoints(folder, saved, data):
    """What is read is what was written, or nothing."""
    (folder / checkpoint.NEWEST).write_bytes(data.draw(damaged(saved)))
    net, optimizer = learner()
    with torch.no_grad():
        net[0].weight.zero_()
    found = judged(lambda: checkpoint.load(folder, net, optimizer))
    assert found is None or (net[0].weight == 0.5).all()
    judged(lambda: checkpoint.read_extra(folder))


@cases(40)
@given(content=st.binary(max_size=400))
def test_files_of_many_subnets(folder, content):
    path = folder / "elastic.safetensors"
    path.write_bytes(content)
    assert judged(lambda: Elastic.load(path)) is None


VALUES = st.one_of(st.sampled_from(
    ["", "0", "-1", "1", "7", "nan", "inf", "1e400", "5,2,9", "cpu", "tpu", "digits", "file.txt", "nowhere.json", ".",
     "True", "9" * 40, "\u202e", "a b"]), st.text(max_size=8).filter(str.isprintable))
VERBS = {
    "train": ["-f", "-a", "-c", "-d", "-t", "--checkpoint-every"],
    "fit": ["--data", "--root", "--epochs-scale", "--device", "-t", "--workers", "--checkpoint-every"],
}


def run(words: list[str], folder: Path) -> None:
    """Raises UserError for what ends with code 2 and one line."""
    errors, here = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()), \
                pytest.raises(SystemExit) as end:
            main(words)
    finally:
        os.chdir(here)
    assert end.value.code in (0, 2), errors.getvalue()
    if end.value.code == 2:
        lines = errors.getvalue().strip().splitlines()
        assert lines[-1].startswith("ofa: "), lines
        assert "Traceback" not in errors.getvalue()
        raise UserError("command", lines[-1])


@pytest.mark.slow
@pytest.mark.parametrize("verb", sorted(VERBS))
@cases(60)
@given(data=st.data())
def test_commands_that_train(tmp_path_factory, verb, data):
    place = tmp_path_factory.mktemp("place")
    (place / "file.txt").write_text("text")
    words = [verb]
    for option in data.draw(st.lists(st.sampled_from(VERBS[verb]), max_size=3)):
        words += [option, data.draw(VALUES)]
    words += ["--recipe", "none"] if verb == "fit" else []  # never a whole training
    judged(lambda: run(words, place))
    assert [path.name for path in place.rglob("*")] == ["file.txt"], words
