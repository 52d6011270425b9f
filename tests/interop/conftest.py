"""The authors' own code (PyPI's `ofa`, extra `reference`), and nets of theirs and ours with the same weights."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from reference import ours_of, theirs_of

from onceforall.nn import Supernet


@pytest.fixture(scope="session")
def authors() -> Any:
    """The authors' class of the MobileNetV3 supernet."""
    try:
        from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    except ImportError as error:
        if "ONCEFORALL_REFERENCE" in os.environ:  # where the comparison has to be made
            raise
        pytest.skip(f"the authors' code is not installed ({error}): pip install 'onceforall[reference]'")
    return OFAMobileNetV3


@pytest.fixture(scope="session", params=(1.0, 1.2))
def pair(request: Any, authors: Any, tmp_path_factory: Any) -> tuple[Any, Supernet]:
    """Their net and ours with the same weights, at two widths."""
    theirs = theirs_of(authors, request.param)
    return theirs, ours_of(theirs, tmp_path_factory.mktemp("pair"))


@pytest.fixture
def rng() -> random.Random:
    return random.Random(5)
