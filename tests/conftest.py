"""What all tests share: one thread, the reference data where it is there, and the catalogue's spaces."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# before torch is imported, and for the commands that tests start: two threads on busy cores are many times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def cache_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Shrunk pictures are not kept in the home folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONCEFORALL_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def no_handlers_left() -> Iterator[None]:
    """A verb's log goes to the stderr of its own test, which is closed when the test ends."""
    logger = logging.getLogger("onceforall")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


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
def unprivileged(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may not write, root or not."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with _minding_modes():
        if os.access(folder, os.W_OK, effective_ids=True):
            pytest.skip("this process may write everywhere")
        yield folder


@contextmanager
def _minding_modes() -> Iterator[None]:
    """Inside, the modes of files count for root too: its capabilities to pass over them are laid down."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if os.geteuid() or not hasattr(libc, "capset") or libc.capget(header, before):
        yield
        return
    changed = type(before)(*before)
    changed[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; of those in effect
    libc.capset(header, changed)
    try:
        yield
    finally:
        libc.capset(header, before)


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
