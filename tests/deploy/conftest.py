"""An extracted sub-network of a supernet with random weights, in its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from onceforall.data import DataSpec, load_data
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.nn import Supernet
from onceforall.space import Arch, search_space
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, save

TABLE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(resolutions=[12, 16])
SPACE = replace(TABLE, name="few_blocks", stages=tuple(  # compilers take seconds for each block
    replace(TABLE.stages[i], depth=(1, 2)) for i in (0, 1, 3)))


@pytest.fixture(scope="session")
def digits():
    return load_data(DataSpec("digits"))


@pytest.fixture(scope="session")
def supernet() -> Supernet:
    net = Supernet(SPACE, num_classes=10, generator=torch.Generator().manual_seed(3))
    return net.eval().to(memory_format=torch.channels_last)


@pytest.fixture(scope="session")
def evaluator(digits) -> Evaluator:
    return Evaluator(digits, calibration_images=200)


@pytest.fixture(scope="session")
def weights(supernet, digits, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("supernet") / "weights.h5"
    save(Trained(supernet, SPACE, None, {"mean": digits.mean, "std": digits.std, "classes": digits.classes}), path)
    return path


@pytest.fixture
def folder(supernet, evaluator, weights, tmp_path) -> Path:
    arch = Arch.parse(SPACE, "16:k5e4/k5e4,k5e4/k5e4")  # one block has a shortcut; targets take seconds for each
    net = evaluator.subnet(supernet, arch)
    save_subnet(Scored.of(evaluator, net, SPACE, arch).extracted, tmp_path / "subnet", source=weights)
    return tmp_path / "subnet"
