"""Damaged files of weights, checkpoints, predictors and sub-networks: each works, or is refused in one line."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzzing import cases, changed, damaged, text_of
from hypothesis import given
from hypothesis import strategies as st

from onceforall.cost import predictor_file
from onceforall.cost.predictor import fit_linear
from onceforall.data import ArrayPictures, DataSet
from onceforall.export.description import read_description
from onceforall.export.elastic import Elastic
from onceforall.export.folder import Scored, load_subnet, save_subnet
from onceforall.interop.weights import Trained, open_weights, save
from onceforall.nn import Supernet, extract
from onceforall.space import search_space
from onceforall.train import checkpoint
from onceforall.train.checkpoint import Position
from onceforall.train.evaluate import Score

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.1)


def net(seed: int) -> Supernet:
    return Supernet(SPACE, 4, generator=torch.Generator().manual_seed(seed)).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def weights(folder) -> dict[str, bytes]:
    """A supernet's file in each form."""
    out = {}
    for suffix in (".h5", ".safetensors", ".pth"):
        save(Trained(net(0), SPACE), folder / f"whole{suffix}")
        out[suffix] = (folder / f"whole{suffix}").read_bytes()
    return out


@pytest.mark.parametrize("suffix", [".h5", ".safetensors", ".pth"])
@cases(80)
@given(data=st.data())
def test_weights(outcome, folder, weights, suffix, data):
    path = folder / f"damaged{suffix}"
    path.write_bytes(data.draw(damaged(weights[suffix])))
    found = outcome(lambda: open_weights(path, space=SPACE.name))
    assert found is None or isinstance(found.net, Supernet)


@pytest.mark.parametrize("suffix", [".h5", ".safetensors", ".pth"])
@cases(15)
@given(content=st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode)))
def test_no_weights_at_all(outcome, folder, suffix, content):
    path = folder / f"none{suffix}"
    path.write_bytes(content)
    assert outcome(lambda: open_weights(path, space=SPACE.name)) is None


def learner() -> tuple[torch.nn.Module, torch.optim.SGD]:
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    with torch.no_grad():
        net[0].weight.fill_(0.5)
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


@pytest.fixture(scope="module")
def saved(folder) -> bytes:
    (folder / "run").mkdir()
    checkpoint.save(folder / "run", *learner(), position=Position(3, 2), extra={"a": 1})
    return (folder / "run" / checkpoint.NEWEST).read_bytes()


@cases(150)
@given(data=st.data())
def test_checkpoints(outcome, folder, saved, data):
    """What is read is what was written, or nothing."""
    path = folder / "run" / checkpoint.NEWEST
    path.write_bytes(data.draw(damaged(saved)))
    net, optimizer = learner()
    with torch.no_grad():
        net[0].weight.zero_()
    found = outcome(lambda: checkpoint.load(folder / "run", net, optimizer))
    assert found is None or (net[0].weight == 0.5).all()


@cases(100)
@given(data=st.data())
def test_predictors(outcome, folder, data):
    rng = random.Random(0)
    archs = [SPACE.sample(rng) for _ in range(40)]
    codes = np.array([SPACE.encode(arch) for arch in archs])
    if not (folder / "predictor").exists():
        predictor_file.save(fit_linear(SPACE, codes, np.linspace(0, 1, 40), 0), folder / "predictor", about={})
    path = folder / "damaged-predictor"
    path.write_bytes(data.draw(damaged((folder / "predictor").read_bytes())))
    found = outcome(lambda: predictor_file.load(path, space=SPACE))
    if found is not None:
        assert np.isfinite(found.of(codes)).all()


@pytest.fixture(scope="module")
def subnet(folder) -> Path:
    pictures = ArrayPictures(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.arange(4))
    data = DataSet(pictures, pictures.subset([]), pictures, ("a", "b", "c", "d"), (0.5,) * 3, (0.25,) * 3)
    arch = SPACE.smallest
    scored = Scored(extract(net(0), arch).eval(), SPACE, arch, data, Score(0.5, 1.0, 1.0, 4))
    save(Trained(net(0), SPACE), folder / "source.h5")
    save_subnet(scored.extracted, folder / "subnet", source=folder / "source.h5")
    return folder / "subnet"


@cases(200)
@given(data=st.data())
def test_descriptions(outcome, subnet, data):
    whole = (subnet / "model.json").read_bytes()
    try:
        (subnet / "model.json").write_text(text_of(data.draw(changed(json.loads(whole)))))
        outcome(lambda: read_description(subnet))
        outcome(lambda: load_subnet(subnet))
    finally:
        (subnet / "model.json").write_bytes(whole)


@cases(60)
@given(data=st.data())
def test_subnet_weights(outcome, subnet, data):
    path = subnet / "model.safetensors"
    whole = path.read_bytes()
    try:
        path.write_bytes(data.draw(damaged(whole)))
        outcome(lambda: load_subnet(subnet))
    finally:
        path.write_bytes(whole)


@cases(40)
@given(content=st.binary(max_size=400))
def test_elastic_files(outcome, folder, content):
    path = folder / "elastic.safetensors"
    path.write_bytes(content)
    assert outcome(lambda: Elastic.load(path)) is None
