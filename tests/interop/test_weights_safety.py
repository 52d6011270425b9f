"""Weights files made to harm: none runs code, none takes more memory than it holds, none reaches other files."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from onceforall.cost.predictor_file import load as load_predictor
from onceforall.errors import UserError
from onceforall.interop.mit import weights as mit_weights
from onceforall.interop.mit.net_config import read as read_net_config
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.weights import native
from onceforall.weights.nets import Trained, open_weights, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25)


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture(scope="module")
def net() -> Supernet:
    return Supernet(SPACE, 10, generator=torch.Generator().manual_seed(0)).eval()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("read", [open_weights, lambda path: load_predictor(path, space=SPACE)])
def test_a_pickle_is_not_run(tmp_path: Path, zipped: bool, read) -> None:
    path, ran = tmp_path / "a.pth", tmp_path / "ran"
    torch.save({"state_dict": Attack(ran)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match="more than tensors, and what it holds is not run"):
        read(path)
    path.write_bytes(pickle.dumps(Attack(ran)))
    with pytest.raises(UserError):
        read(path)
    assert not ran.exists()


@pytest.mark.slow
def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path, little_memory: None) -> None:
    """A few megabytes that stand for two gigabytes of zeros."""
    plain, path = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"state_dict": {"a": torch.zeros(16)}}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            if not entry.filename.endswith("data/0"):
                target.writestr(entry.filename, source.read(entry))
            else:
                with target.open(entry.filename, "w", force_zip64=True) as file:
                    for _ in range(2000):
                        file.write(bytes(1_000_000))
    with pytest.raises(UserError, match="it is compressed"):
        open_weights(path)


def test_views_larger_than_their_file_are_not_copied(tmp_path: Path, little_memory: None) -> None:
    wide = torch.zeros(1).expand(20_000, 20_000)
    shared = torch.zeros(50_000)
    for state in ({"a": wide}, {str(i): shared for i in range(20_000)}):
        torch.save({"state_dict": state}, tmp_path / "a.pth")
        with pytest.raises(UserError, match="declares more numbers than it holds"):
            mit_weights.read(tmp_path / "a.pth")


def test_a_description_that_is_no_text(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "onceforall": torch.zeros(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="has a damaged `onceforall` entry"):
        open_weights(tmp_path / "a.pth")


@pytest.mark.parametrize("link", ["soft", "external", "storage"])
def test_hdf5_that_points_elsewhere_is_refused(tmp_path: Path, net: Supernet, link: str) -> None:
    path, secret = tmp_path / "weights.h5", tmp_path / "secret.bin"
    save(Trained(net, SPACE), path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones(10, np.float32)
    secret.write_bytes(bytes(40))
    with h5py.File(path, "r+") as file:
        del file["classifier/linear/_b"]
        if link == "soft":
            file["classifier/linear/_b"] = h5py.SoftLink("/classifier/linear/_W")
        elif link == "external":
            file["classifier/linear/_b"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        else:
            file.create_dataset("classifier/linear/_b", (10,), "f4", external=[(str(secret), 0, 40)])
    with pytest.raises(UserError, match="_b: (points elsewhere|holds float32, not numbers of its own)"):
        open_weights(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unwritten", "compressed", "plain"])
def test_hdf5_that_declares_more_than_it_holds(tmp_path: Path, little_memory: None, kind: str) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        if kind == "compressed":
            data = file.create_dataset("a", (250, 1_000_000), "f4", chunks=(1, 1_000_000), compression="gzip")
            for row in range(250):
                data[row] = 0
        else:
            file.create_dataset("a", (100_000, 100_000), "f4", chunks=(1000, 1000) if kind == "unwritten" else None)
    with pytest.raises(UserError, match="a: declares more numbers than the file holds"):
        open_weights(tmp_path / "weights.h5")


def test_safetensors_that_declare_more_than_they_hold(tmp_path: Path, little_memory: None) -> None:
    entry = {"dtype": "F32", "shape": [100_000, 100_000], "data_offsets": [0, 40_000_000_000]}
    for header in (json.dumps({"a": entry}).encode(), b'{"a":' * 100_000):
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
        with pytest.raises(UserError, match="is not a readable safetensors file"):
            native.read(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{")
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        native.read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["weights.h5", "weights.safetensors", "weights.pth"])
def test_a_description_of_a_larger_net_than_the_file_holds(
        tmp_path: Path, net: Supernet, name: str, monkeypatch: pytest.MonkeyPatch, little_memory: None) -> None:
    """Ten million classes would be 50 GB."""
    monkeypatch.setattr(Trained, "num_classes", 10_000_000)
    save(Trained(net, SPACE), tmp_path / name)
    monkeypatch.undo()
    with pytest.raises(UserError, match="holds fewer than the"):
        open_weights(tmp_path / name)


def test_deep_json_is_one_line(tmp_path: Path) -> None:
    deep = "[" * 100_000
    header = json.dumps({"__metadata__": {"onceforall.predictor": deep, "onceforall": deep}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    for read in (load_predictor, open_weights):
        with pytest.raises(UserError):
            read(path)
    (tmp_path / "net.config").write_text(deep, encoding="utf-8")
    with pytest.raises(UserError):
        read_net_config(tmp_path)
