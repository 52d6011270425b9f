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
    """The authors' classes of supernets."""
    try:
        from ofa.imagenet_classification.elastic_nn import networks
    except ImportError as error:
        if "ONCEFORALL_REFERENCE" in os.environ:  # where the comparison has to be made
            raise
        pytest.skip(f"the authors' code is not installed ({error}): pip install 'onceforall[reference]'")
    return networks


@pytest.fixture(scope="session", params=(("mobilenet_v3_large", 1.0), ("mobilenet_v3_large", 1.2),
                                         ("proxyless_nas", 1.3), ("resnet50d", 1.0)), ids=lambda p: f"{p[0]}-{p[1]}")
def pair(request: Any, authors: Any, tmp_path_factory: Any) -> tuple[Any, Supernet]:
    """Their net and ours with the same weights, at the widths that they have published."""
    family, width = request.param
    theirs = theirs_of(authors, width, family=family)
    return theirs, ours_of(theirs, tmp_path_factory.mktemp("pair"))


@pytest.fixture
def rng() -> random.Random:
    return random.Random(5)
