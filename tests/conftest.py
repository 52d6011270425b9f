"""What all tests share: one thread, the reference data where it is there, and the catalogue's spaces."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def oracle() -> Path:
    """Numbers produced by NNablaNAS itself."""
    folder = SHARED / "oracle" / "nnabla"
    if not folder.is_dir():
        pytest.skip("the NNablaNAS reference numbers (../shared/oracle/nnabla) are not here")
    return folder


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Real pictures and published measurements."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the reference data (../shared/data) is not here")
    return folder
