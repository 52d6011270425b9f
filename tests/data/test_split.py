"""Splits are stratified, disjoint, complete and always the same."""

from __future__ import annotations

import hashlib

import pytest
import torch

from onceforall.data.split import split_by_class


def test_every_class_is_split_by_the_portion() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 30)[torch.randperm(100, generator=torch.Generator())]
    first, rest = split_by_class(labels, 0.9, what="held out")
    assert sorted(first + rest) == list(range(100))
    assert torch.bincount(labels[rest]).tolist() == [5, 2, 3]
    assert (first, rest) == split_by_class(labels, 0.9, what="held out")


def test_the_split_is_pinned() -> None:
    assert split_by_class(torch.zeros(10, dtype=torch.int64), 0.7, what="x")[1] == [5, 6, 7]


def test_a_class_too_small_stays_in_training(caplog: pytest.LogCaptureFixture) -> None:
    first, rest = split_by_class(torch.tensor([0] * 20 + [1]), 0.9, what="the held-out split", classes=("ok", "dent"))
    assert 20 in first
    assert len(rest) == 2
    assert "the held-out split" in caplog.text
    assert "dent" in caplog.text


@pytest.mark.parametrize(("count", "portion", "held"), [
    (1, 0.9, 0), (2, 0.9, 1), (3, 0.9, 1), (4, 0.9, 1), (5, 0.9, 1), (6, 0.9, 1), (2, 0.8, 1), (50, 0.999, 1)])
def test_every_class_that_can_gives_one(caplog, count: int, portion: float, held: int) -> None:
    labels = torch.tensor([0] * 300 + [1] * count)
    first, rest = split_by_class(labels, portion, what="x")
    assert (labels[rest] == 1).sum() == held
    assert sorted(first + rest) == list(range(300 + count))
    assert bool(caplog.text) == (count == 1)


def test_classes_with_enough_pictures_are_split_as_ever() -> None:
    """Recorded accuracies depend on which pictures are held out."""
    labels = torch.arange(1000) % 10
    digest = hashlib.sha256(repr(split_by_class(labels, 0.9, what="x")).encode()).hexdigest()
    assert digest.startswith("b9faaa6aa07f8759")


def test_a_tiny_portion_leaves_something_to_train_on() -> None:
    first, rest = split_by_class(torch.zeros(5, dtype=torch.int64), 0.01, what="x")
    assert (len(first), len(rest)) == (1, 4)


def test_the_whole_needs_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert split_by_class(torch.arange(5), 1.0, what="x") == ([0, 1, 2, 3, 4], [])
    assert not caplog.text
