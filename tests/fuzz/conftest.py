"""Profiles of hypothesis (`ci`, and `long` by ONCEFORALL_FUZZ=long), the figures of the run, and what cases start from.
"""

from __future__ import annotations

from pathlib import Path

import fuzzing
import pytest

from onceforall.nn import Supernet, extract
from onceforall.weights.nets import Trained, save


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if fuzzing.FIGURES.cases:
        terminalreporter.write_line(str(fuzzing.FIGURES))


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A supernet, and a sub-network, in files of all three forms."""
    import torch

    folder = tmp_path_factory.mktemp("nets")
    net = Supernet(fuzzing.SPACE, num_classes=3, generator=torch.Generator().manual_seed(1)).eval()
    arch = fuzzing.SPACE.smallest
    subnet = extract(net, arch).eval()
    out = {}
    for name, trained in (("supernet", Trained(net, fuzzing.SPACE)), ("subnet", Trained(subnet, fuzzing.SPACE, arch))):
        for suffix in (".h5", ".safetensors", ".pth"):
            out[name + suffix] = folder / (name + suffix)
            save(trained, out[name + suffix])
    return out
