"""What a row may not say, and what follows from what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.space import BlockRow, Head, SearchSpace, StageSpace, Stem, lower, search_space
from onceforall.space.parts import block_name
from onceforall.space.rows import elastic
from onceforall.testing import check_space

PLAIN = StageSpace(16, (1, 2), 1, "relu", se=False, elastic=elastic({"kernel": (3, 5), "expand": (2, 4)}))


def space(*rows: StageSpace, **changes) -> SearchSpace:
    return replace(SearchSpace("rules", (16,), Stem(16, 2, "relu"), rows, Head(32, 0, "relu")), **changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"fixed": (("kernel", 3),)}, "fixed: kernel: is fixed and elastic; give elastic a single value"),
    ({"blocks": (BlockRow(), BlockRow(fixed=(("expand", 6),)))}, "blocks 2: expand: is fixed and elastic"),
    ({"fixed": (("pool", 1),)}, "pool: is fixed in a block that not every depth has"),
    ({"blocks": (BlockRow(), BlockRow(fixed=(("pool", 1),)))}, "pool: is fixed in a block that not every depth has"),
])
def test_contradictions_within_a_row(changes, message):
    with pytest.raises(UserError, match=message):
        replace(PLAIN, **changes)


@pytest.mark.parametrize(("row", "message"), [
    (replace(PLAIN, elastic=elastic({"kernel": (3, 4), "expand": (2,)})), "depthwise: kernel 4 is even; take an odd"),
    (replace(PLAIN, act="selu"), "'selu' is no activation; known: relu, relu6, hswish, swish, sigmoid, hsigmoid, "),
    (replace(PLAIN, acts=(("depthwise", "selu"),)), "'selu' is no activation"),
])
def test_layers_that_nothing_computes(row, message):
    with pytest.raises(UserError, match=message):
        lower(space(row), space(row).largest)


@pytest.mark.parametrize("choices", [{"fraction": (0.5, 1)}, {"hidden": (8, 16)}, {"hidden": (16, 24)}])
def test_elastic_hidden_channels_have_an_expansion_at_any_width(choices):
    """Also where as many channels as come in are left."""
    row = replace(PLAIN, depth=(1,), elastic=elastic({"kernel": (3, 5), **choices}),
                  fixed=(("hidden", 32),) if "fraction" in choices else ())
    check_space(space(row))


def test_an_expansion_at_some_ratios_only_is_refused():
    for ratios in ((1, 2), (0.5, 1)):
        row = replace(PLAIN, elastic=elastic({"kernel": (3,), "expand": ratios}))
        with pytest.raises(UserError, match="stages.0.0.expand: is there at some choices only"):
            Supernet(space(row), 3)
    wide = replace(PLAIN, width=(16, 24), depth=(1,))
    row = replace(PLAIN, elastic=elastic({"kernel": (3,)}), fixed=(("hidden", 16),))
    with pytest.raises(UserError, match="stages.1.0.expand: is there at some choices only"):  # at width 24 alone
        Supernet(space(wide, row), 3)


def test_a_part_is_never_wider_than_the_whole():
    row = replace(PLAIN, depth=(1,), elastic=elastic({"kernel": (3,), "fraction": (0.9, 1)}), fixed=(("hidden", 20),))
    widths = [lower(space(row), arch).stages[0][0]["depthwise"].outputs
              for arch in (space(row).smallest, space(row).largest)]
    assert widths == [20, 20]
    check_space(space(row))


def test_what_is_around_the_stages_counts():
    given = space(PLAIN)
    for other in (replace(given, padding="same"), replace(given, head=replace(given.head, mix_norm=True)),
                  replace(given, stem=replace(given.stem, act="hswish"))):
        assert not given.covers(other) and not other.covers(given) and not given.alike(other)
    whole = search_space("mobilenet_v3_large_32px")
    assert search_space("mobilenet_v3_large_64px").at(whole.resolutions).covers(whole)  # by other strides


def test_blocks_that_differ_have_other_names():
    """An expansion to as many channels as come in takes time, too."""
    row = replace(PLAIN, depth=(2,), elastic=elastic({"kernel": (5,)}),
                  blocks=(BlockRow(fixed=(("expand", 1),)), BlockRow(fixed=(("expand", 1), ("expansion", 1)))))
    blocks = lower(space(row), space(row).largest).stages[0]
    assert [len(block.path) for block in blocks] == [2, 3]
    assert len(set(map(block_name, blocks))) == 2
