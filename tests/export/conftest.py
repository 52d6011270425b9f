"""An extracted sub-network of a supernet with random weights, in its folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from onceforall.data import DataSpec, load_data
from onceforall.export.folder import Scored, save_subnet
from onceforall.interop.weights import Trained, save
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.train.evaluate import Evaluator

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(resolutions=[12, 16], depth=[2, 3])

ALONE = "ONCEFORALL_TEST_ALONE"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is marked `alone` in a process of its own.

    ExecuTorch has ended a process that a thousand other tests had run in, without a word; it never did in a fresh one.
    """
    if pyfuncitem.get_closest_marker("alone") is None or ALONE in os.environ:
        return None
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", pyfuncitem.nodeid],
                          cwd=pyfuncitem.config.rootpath, env={**os.environ, ALONE: "1"}, check=False,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    if "1 skipped" in done.stdout:
        pytest.skip("it was skipped in its own process")
    return True


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
    arch = SPACE.middle
    net = evaluator.subnet(supernet, arch)
    save_subnet(Scored.of(evaluator, net, SPACE, arch).extracted, tmp_path / "subnet", source=weights)
    return tmp_path / "subnet"
