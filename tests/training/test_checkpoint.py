"""Checkpoints: two kept, the damaged one passed over, nothing half written, a full disk in one line."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from onceforall.errors import UserError
from onceforall.training.engine import checkpoint
from onceforall.training.engine.checkpoint import BEFORE, GOOD, NEWEST, Position


def learnt(value: float) -> tuple[nn.Module, torch.optim.SGD]:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0, momentum=0.9)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    optimizer.state[net[0].weight]["momentum_buffer"] = torch.full_like(net[0].weight, -value)
    return net, optimizer


def saved(folder: Path, *values: float, good: tuple[float, ...] = ()) -> None:
    for value in values:
        checkpoint.save(folder, *learnt(value), position=Position(int(value), 7), extra={"value": value},
                        good=value in good)


def loaded(folder: Path, *, good: bool = False) -> float:
    net, optimizer = learnt(0.0)
    position, extra = checkpoint.load(folder, net, optimizer, good=good)
    assert position == Position(int(extra["value"]), 7)
    assert (net[0].weight == extra["value"]).all()
    assert (optimizer.state[net[0].weight]["momentum_buffer"] == -extra["value"]).all()
    return extra["value"]


def test_the_newest_the_one_before_and_the_last_good_one(tmp_path):
    assert not checkpoint.exists(tmp_path)
    saved(tmp_path, 1.0, 2.0, 3.0, 4.0, good=(1.0, 2.0))
    assert {p.name for p in tmp_path.iterdir()} == {NEWEST, BEFORE, GOOD}
    assert loaded(tmp_path) == checkpoint.read_extra(tmp_path)["value"] == 4.0
    assert loaded(tmp_path, good=True) == 2.0
    checkpoint.settle(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [NEWEST]


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[-5] ^= 1  # one bit of a weight
    path.write_bytes({"empty": b"", "cut": bytes(content[:-1]), "half a header": bytes(content[:20]),
                      "zeros": bytes(len(content))}.get(how, bytes(content)))


@pytest.mark.parametrize("how", ["empty", "cut", "half a header", "zeros", "flipped"])
def test_a_damaged_newest_one_falls_back(tmp_path, caplog, how):
    saved(tmp_path, 1.0, 2.0, 3.0, good=(1.0,))
    damage(tmp_path / NEWEST, how)
    with caplog.at_level("WARNING", "onceforall"):
        assert loaded(tmp_path) == 2.0
    assert f"{tmp_path / NEWEST}: is not a readable checkpoint" in caplog.text
    assert f"going on from {BEFORE}" in caplog.text
    damage(tmp_path / BEFORE, how)
    assert loaded(tmp_path) == 1.0
    damage(tmp_path / GOOD, how)
    with pytest.raises(UserError, match=r"checkpoint.safetensors: is not a readable checkpoint .*; remove it"):
        loaded(tmp_path)


def test_a_stop_between_the_two_renames(tmp_path):
    saved(tmp_path, 1.0)
    os.replace(tmp_path / NEWEST, tmp_path / BEFORE)
    assert checkpoint.exists(tmp_path)
    assert loaded(tmp_path) == 1.0


def test_versions(tmp_path):
    saved(tmp_path, 1.0)
    path = tmp_path / NEWEST
    from safetensors.torch import load_file, save_file
    tensors, meta = load_file(path), checkpoint._meta(path)
    del meta["crc32"]
    save_file(tensors, path, {"onceforall": json.dumps({**meta, "format": 1})})
    with pytest.raises(UserError, match="is of a run that an older version began and did not end; go on with that"):
        loaded(tmp_path)
    assert checkpoint.read_extra(tmp_path) == meta["extra"]  # a run that has ended is still read
    save_file(tensors, path, {"onceforall": json.dumps({**meta, "format": 4})})
    with pytest.raises(UserError, match="is a checkpoint of format 4; this version reads 1 to 3; go on with"):
        loaded(tmp_path)


def test_of_another_net(tmp_path):
    saved(tmp_path, 1.0)
    net = nn.Sequential(nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9))
    with pytest.raises(UserError, match="does not hold 0.weight of shape"):
        checkpoint.load(tmp_path, net, torch.optim.SGD(net.parameters(), lr=0.1))


def test_what_had_no_momentum_has_none_again(tmp_path):
    saved(tmp_path, 1.0)
    net, optimizer = learnt(2.0)
    optimizer.state[net[1].weight]["momentum_buffer"] = torch.ones(8)
    checkpoint.load(tmp_path, net, optimizer)
    assert net[1].weight not in optimizer.state


def test_memory_format_survives(tmp_path):
    saved(tmp_path, 1.0)
    net, optimizer = learnt(2.0)
    net.to(memory_format=torch.channels_last)
    checkpoint.load(tmp_path, net, optimizer)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert optimizer.state[net[0].weight]["momentum_buffer"].stride() == net[0].weight.stride()


FULL = """
import resource, sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from test_checkpoint import *
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))  # bytes a file: as a disk that is full
saved(Path({folder!r}), 2.0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="files cannot be limited here")
def test_a_full_disk_leaves_the_one_before(tmp_path):
    saved(tmp_path, 1.0)
    done = subprocess.run([sys.executable, "-c", FULL.format(here=str(Path(__file__).parent), folder=str(tmp_path))],
                          check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "checkpoint.safetensors: cannot be written: " in done.stderr.splitlines()[-1]
    assert "the same command goes on from the checkpoint before" in done.stderr.splitlines()[-1]
    assert [p.name for p in tmp_path.iterdir()] == [NEWEST]
    assert loaded(tmp_path) == 1.0
