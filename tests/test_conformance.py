"""The conformance suites, run over everything that is registered and over one outsider of each kind."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from onceforall.deploy.targets import TARGETS
from onceforall.space import CATALOG, Arch, SearchSpace, search_space
from onceforall.space.kinds import KINDS
from onceforall.testing import check_pictures, check_space, check_strategy, check_target
from onceforall.training.strategy import STRATEGIES, Term

REGISTERS = (CATALOG, KINDS, TARGETS)
OURS = [dict(register) for register in REGISTERS]
sys.path.append(str(Path(__file__).parent / "outsiders"))
fused, pickled, rings, turns = map(import_module, ("fused", "pickled", "rings", "turns"))
sys.path.pop()
THEIRS = [{name: value for name, value in register.items() if name not in ours}
          for register, ours in zip(REGISTERS, OURS, strict=True)]
for register, names in zip(REGISTERS, THEIRS, strict=True):
    for name in names:
        del register[name]  # other files' tests run over everything that is registered


@pytest.fixture(autouse=True)
def outsiders(monkeypatch):
    """What the outsiders' files register is there in these tests only."""
    for register, names in zip(REGISTERS, THEIRS, strict=True):
        for name, value in names.items():
            monkeypatch.setitem(register, name, value)


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS[0])
def test_every_space(name):
    space = search_space(f"{name}?width_mult=0.25")
    size = min(space.resolutions)
    check_space(space.at([64 if size > 64 else size]))


def test_a_space_of_ones_own():
    check_space(fused.fused_net())


@pytest.mark.parametrize("teacher", [False, True])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy(name, teacher):
    check_strategy(STRATEGIES[name](3, teacher=teacher, sampler=SearchSpace.sample), teacher=teacher)


def test_a_strategy_of_ones_own():
    check_strategy(turns.turns, fused.fused_net())


@pytest.mark.slow
@pytest.mark.parametrize("name", OURS[2])
def test_every_target(name):
    missing = [package for package in TARGETS[name].packages if find_spec(package) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    check_target(name, precisions=["fp32"] if name == "executorch" else None)  # its int8: tests/deploy/test_int8.py


def test_a_target_of_ones_own():
    assert TARGETS["pickle"].module() is pickled
    check_target("pickle")


def test_pictures_of_ones_own():
    check_pictures(rings.splits()[1])


OUTSIDE = Arch.parse(search_space("mobilenet_v3_large"), "largest")


@pytest.mark.parametrize(("strategy", "message"), [
    (lambda space, rng, moment: [], "at least one term"),
    (lambda space, rng, moment: [Term(space.sample(random.Random()), "labels")], "equal randomness"),
    (lambda space, rng, moment: [Term(space.largest, "labels", random.random() * 0 + 1)], "not from Python's"),
    (lambda space, rng, moment: [Term(OUTSIDE, "labels")], "is in the space"),
    (lambda space, rng, moment: [Term(space.largest, "teacher")], "teacher is one of"),
    (lambda space, rng, moment: [Term(space.smallest, "largest"), Term(space.largest, "labels")], "runs before"),
    (lambda space, rng, moment: [Term(space.largest, "labels", -1.0)], "not negative"),
])
def test_faults_of_a_strategy_are_found(strategy, message):
    with pytest.raises(AssertionError, match=message):
        check_strategy(strategy)


def test_faults_of_a_block_are_found(monkeypatch):
    """A block whose layers do not say what they compute, and one of which two layers share a name."""
    def renamed(at):
        block = fused.fused(at)
        return replace(block, path=(block.path[0], replace(block.path[1], name=block.path[0].name)))

    def unseen(at):  # the second layer starts from a map of another size than the first one gives
        block = fused.fused(at)
        return replace(block, path=(block.path[0], replace(block.path[1], size=at.size * 2)))

    for wrong, message in ((renamed, "names of layers differ"), (unseen, "costs the same alone")):
        monkeypatch.setitem(KINDS, "fused", wrong)
        with pytest.raises(AssertionError, match=message):
            check_space(replace(fused.fused_net(), name=f"with {wrong.__name__}"))


def test_faults_of_a_target_are_found(monkeypatch):
    monkeypatch.setattr(pickled, "write", lambda job, path: path.with_name("other").write_text("") and {})
    with pytest.raises(Exception, match="model.pt"):
        check_target("pickle")
