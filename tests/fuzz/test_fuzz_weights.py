"""Weights files of all forms, and sub-networks' folders: damaged, with other arrays, and with code in them."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fuzzing import SPACE, cases, damaged, json_bytes, judged
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from onceforall.deploy.description import Channels
from onceforall.deploy.folder import Extracted, open_subnet, save_subnet
from onceforall.nn import Subnet, Supernet
from onceforall.space import search_space
from onceforall.weights.about import About
from onceforall.weights.nets import open_weights, space_of

FILES = [f"{net}{suffix}" for net in ("supernet", "subnet") for suffix in (".h5", ".safetensors", ".pth")]
ABOUT = {"kind": "supernet", "space": SPACE.to_dict(), "num_classes": 3, "dropout": 0.1, "bn": [0.1, 1e-5],
         "pictures": {"mean": [0, 0, 0], "std": [1, 1, 1], "classes": ["a", "b", "c"]}, "counts": {}}
OTHERS = [torch.zeros(0), torch.zeros(3, 3), torch.zeros(()), torch.zeros(3, dtype=torch.int8), torch.tensor(-1),
          torch.zeros(3, dtype=torch.complex64), torch.zeros(3, dtype=torch.bfloat16), torch.tensor(2.5),
          torch.zeros(3, dtype=torch.bool), torch.zeros(1).to(torch.float8_e4m3fn), torch.tensor(float("nan"))]


@pytest.fixture
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


class _Runs:
    """What runs code where it is unpickled by something that is not careful."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def _open(path: Path) -> None:
    found = judged(lambda: open_weights(path))
    if found is not None:
        assert isinstance(found.net, Supernet | Subnet) and found.num_classes >= 1
    judged(lambda: space_of(path))


@pytest.mark.slow
@cases(150)
@given(data=st.data(), name=st.sampled_from(FILES), under=st.sampled_from(FILES))
def test_damaged_weights(place, nets, data, name, under):
    path = place / under
    path.write_bytes(data.draw(damaged(nets[name].read_bytes())))
    _open(path)


@pytest.mark.slow
@cases(60)
@given(data=st.data(), number=st.integers(0, 400), other=st.integers(0, len(OTHERS) - 1),
       how=st.sampled_from(["replace", "add", "delete", "expand"]), suffix=st.sampled_from([".safetensors", ".pth"]))
def test_other_arrays(place, nets, data, number, other, how, suffix):
    path, whole = place / f"net{suffix}", nets[f"subnet{suffix}"]
    if suffix == ".pth":
        values = torch.load(whole, weights_only=True)
        state = values["state_dict"]
    else:
        with safe_open(whole, "pt") as file:
            values, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name = list(state)[number % len(state)]
    if how == "delete":
        del state[name]
    elif how == "expand" and suffix == ".pth":  # a terabyte out of four bytes
        state[name] = torch.zeros(1).expand(2**38)
    else:
        state["x" if how == "add" else name] = OTHERS[other]
    if suffix == ".pth":
        torch.save(values, path)
    else:
        save_file(state, path, values)
    _open(path)


@pytest.mark.slow
@cases(60)
@given(data=json_bytes(ABOUT), name=st.sampled_from(FILES))
def test_other_descriptions_in_weights(place, nets, data, name):
    path, text = place / name, data.decode("utf-8", "replace").replace("\0", "")
    shutil.copy(nets[name], path)
    if name.endswith(".h5"):
        if len(text) > 60_000:  # more than an attribute holds
            return
        with h5py.File(path, "r+") as file:
            file.attrs["onceforall"] = text
    elif name.endswith(".pth"):
        torch.save({**torch.load(path, weights_only=True), "onceforall": text}, path)
    else:
        with safe_open(nets[name], "pt") as file:
            save_file({key: file.get_tensor(key) for key in file.keys()}, path, {"onceforall": text})  # noqa: SIM118
    _open(path)


@pytest.mark.slow
@cases(60)
@given(st.sampled_from([{"num_classes": 10_000_000}, {"counts": {"x": 2**63}}, {"counts": {"x": -1}},
                        {"space": search_space("mobilenet_v3_large_32px", width_mult=8).to_dict()},
                        {"arch": str(SPACE.largest)}, {"kind": "subnet"}, {"misspelt": 1}, {"bn": [0.1, 0]}]),
       st.sampled_from(FILES))
def test_descriptions_of_other_nets(nets, change, name):
    from onceforall.weights.forms import form_of
    from onceforall.weights.nets import trained_of

    form = form_of(nets[name])
    content = form.code.read(nets[name])

    def run():
        from onceforall.weights.about import parsed
        about = parsed(nets[name], About.model_construct(**{**ABOUT, **change}).model_dump_json(warnings=False)
                       if "misspelt" not in change else '{"kind": "supernet", "misspelt": 1}')
        return trained_of(nets[name], form, type(content)(content.arrays, about.counts, about, content.kept))

    assert judged(run) is None


@cases(40)
@given(protocol=st.integers(2, 5), how=st.sampled_from(["bare", "torch", "state", "zip"]),
       suffix=st.sampled_from([".pth", ".h5", ".safetensors", ".py"]))
def test_code_in_weights_is_not_run(place, protocol, how, suffix):
    path, target = place / f"code{suffix}", place / "ran"
    if how == "bare":
        path.write_bytes(pickle.dumps(_Runs(target), protocol))
    elif how == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", pickle.dumps(_Runs(target), protocol))
    else:
        code = _Runs(target)
        torch.save({"state_dict": {"x": code}} if how == "state" else code, path, pickle_protocol=protocol)
    assert judged(lambda: open_weights(path)) is None
    assert not target.exists()


@cases(30)
@given(data=st.sampled_from([b"", b"print('hello')\n", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\0" * 8 + b"{}",
                             b"\xff" * 8 + b"{", b"\x80\x02.", None]), suffix=st.sampled_from([".pth", ".h5", ".py"]))
def test_what_is_no_weights_file(place, data, suffix):
    path = place / f"x{suffix}"
    if data is None:
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        path.mkdir()
    elif path.is_dir():
        return
    else:
        path.write_bytes(data)
    assert judged(lambda: open_weights(path)) is None


@pytest.mark.slow
@cases(20)
@given(name=st.sampled_from(["first_conv/conv/_W", "classifier/linear/_b"]), kind=st.sampled_from(["f2", "i8", "S3"]),
       shape=st.sampled_from([(), (1,), (2**15, 2**15, 2**8)]))
def test_other_arrays_in_hdf5(place, nets, name, kind, shape):
    path = place / "net.h5"
    shutil.copy(nets["subnet.h5"], path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, shape, np.dtype(kind), chunks=tuple(min(64, n) for n in shape) or None)
    _open(path)


@pytest.mark.slow
@cases(120)
@given(data=st.data())
def test_folders_of_subnets(place, nets, data):
    found = open_weights(nets["subnet.safetensors"])
    folder = place / "subnet"
    if not (folder / "whole").exists():
        channels = Channels(rounded=False, mean=(0, 0, 0), std=(1, 1, 1))
        save_subnet(Extracted(found.net, SPACE, found.arch, channels, ("a", "b", "c")), folder,
                    source=nets["subnet.h5"])
        shutil.copy(folder / "model.json", folder / "whole")
    whole = json.loads((folder / "whole").read_text())
    (folder / "model.json").write_bytes(data.draw(json_bytes({**whole, "plan": whole["plan"][:1]})))
    opened = judged(lambda: open_subnet(folder))
    if opened is not None:
        assert opened[1].arch == str(found.arch) and SPACE.free.contains(found.arch)
