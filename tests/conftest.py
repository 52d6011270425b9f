"""What all tests share: one thread, the reference data where it is there, and the catalogue's spaces."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import onceforall

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


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder that everybody may read and that this process may not write, in one that it may; also under root."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        folder = Path(place) / "closed"
        folder.mkdir()
        folder.chmod(0o555)
        before = os.geteuid()
        if before == 0:
            os.seteuid(65_534)
        try:
            if not os.access(onceforall.__file__, os.R_OK, effective_ids=True):
                pytest.skip("the package cannot be read without privileges")
            yield folder
        finally:
            os.seteuid(before)
            folder.chmod(0o755)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The process may take 600 MB more than it has: what asks for more fails at once."""
    resource = pytest.importorskip("resource")
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("needs /proc/self/statm")
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(pages.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + 600_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
