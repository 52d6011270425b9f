"""What the tests of the command line share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_handlers_left() -> Iterator[None]:
    """A verb's log goes to the stderr of its own test, which is closed when the test ends."""
    logger = logging.getLogger("onceforall")
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)
