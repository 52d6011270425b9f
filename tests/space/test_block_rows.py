"""Rows whose blocks differ: each block has its own choices, and everything that looks at choices knows it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from onceforall.cost import macs, params
from onceforall.cost.features import features
from onceforall.cost.memory import peak_memory
from onceforall.cost.population import CostTable, canonical, macs_table, memory_table, params_table
from onceforall.cost.predictor import fit_linear
from onceforall.errors import UserError
from onceforall.searching.evolution import Evolution, evolve
from onceforall.searching.problem import Goal, Problem
from onceforall.space import Arch, BlockRow, Head, SearchSpace, StageSpace, Stem, lower, search_space
from onceforall.space.rows import elastic

RATIOS = StageSpace(16, (1, 2, 3), 2, "relu", se=False, elastic=elastic({"kernel": (3, 5, 7), "expand": (2, 4)}),
                    blocks=(BlockRow(), BlockRow(elastic({"expand": (2.3, 3)})),
                            BlockRow(elastic({"kernel": (3, 5), "expand": (2.3,)}))))
PARTS = StageSpace(24, (2, 3), 2, "relu", se=True, elastic=elastic({"kernel": (3, 5), "fraction": (0.5, 2 / 3, 1)}),
                   blocks=(BlockRow(fixed=(("expand", 6),)), BlockRow(fixed=(("expand", 2.5),)),
                           BlockRow(elastic({"fraction": (1,)}), (("hidden", 40),))))
CHANNELS = StageSpace((24, 32), (1, 2), 1, "hswish", se=False, elastic=elastic({"hidden": (36, 60)}),
                      fixed=(("kernel", 3),), blocks=(BlockRow(), BlockRow(elastic({"hidden": (20, 60, 90)}))))
SPACE = SearchSpace("blocks", (16, 24), Stem(8, 1, "relu"), (RATIOS, PARTS, CHANNELS), Head(48, 0, "relu"))


def sampled(space: SearchSpace, count: int) -> list[Arch]:
    rng = random.Random(1)
    return [space.smallest, space.middle, space.largest, *(space.sample(rng) for _ in range(count))]


def hidden(arch: Arch) -> list[list[int]]:
    """Channels inside each block."""
    return [[block["depthwise"].outputs for block in blocks] for blocks in lower(SPACE, arch).stages]


def test_choices_of_each_block():
    assert RATIOS.choices_at(1) == {"kernel": (3, 5, 7), "expand": (2.3, 3)}
    assert RATIOS.choices == {"kernel": (3, 5, 7), "expand": (2, 2.3, 3, 4)}
    assert str(SPACE.largest) == "24:w32:k7e4,k7e3,k5e2.3/k5f1,k5f1,k5f1/h60,h90"
    assert str(SPACE.smallest) == "16:w24:k3e2/k3f0.5,k3f0.5/h36"
    assert PARTS.end(-1)[2] != PARTS.end(0)[1]
    assert (2, 0, "hidden") in SPACE.genes and SPACE.genes[2, 1, "hidden"] == (20, 60, 90)


def test_hidden_widths():
    """Ratios and parts are made divisible by 8; channels are what is given."""
    assert hidden(SPACE.largest) == [[32, 48, 40], [96, 64, 40], [60, 90]]
    arch = Arch.parse(SPACE, "24:w24:k3e2,k5e2.3/k3f0.666667,k3f0.5/h36,h20")
    assert hidden(arch) == [[16, 40], [64, 32], [36, 20]]  # 16 * 6 * 2 / 3, 24 * 2.5 * 0.5
    squeezed = lower(SPACE, SPACE.largest).stages[1][0]["reduce"]
    assert (squeezed.inputs, squeezed.outputs) == (96, 24)


def test_round_trips():
    for arch in sampled(SPACE, 100):
        assert SPACE.contains(arch) and Arch.parse(SPACE, str(arch)) == arch
        assert SPACE.decode(SPACE.encode(arch)) == arch
        assert Arch.from_genotype(SPACE, arch.to_genotype(SPACE), resolution=arch.resolution) == arch
    assert {arch.stages[0][2]["expand"] for arch in sampled(SPACE, 50) if arch.depths[0] > 2} == {2.3}


def test_a_choice_of_another_block_is_none():
    with pytest.raises(UserError, match=r"stage 1 block 2: expand 4 is not one of 2\.3, 3"):
        Arch.parse(SPACE, "24:w24:k3e2,k5e4/k3f1,k3f1/h36")
    with pytest.raises(UserError, match=r"stage 1 block 3: kernel 7 is not one of 3, 5"):
        Arch.parse(SPACE, "24:w24:k3e2,k3e3,k7e2.3/k3f1,k3f1/h36")
    wrong = replace(SPACE.largest, stages=(RATIOS.end(-1)[:1] * 3, *SPACE.largest.stages[1:]))
    with pytest.raises(UserError, match=r"stage 1 block 2: expand 4 is not one of 2\.3, 3"):
        SPACE.check(wrong)


def test_count():
    """Of the first stage: all blocks there are, listed."""
    alone = replace(SPACE, stages=(RATIOS,))
    listed = {blocks for depth in RATIOS.depth for blocks in product(
        *([RATIOS.block(way) for way in RATIOS.ways(b)] for b in range(depth)))}
    assert alone.count == len(listed) == 6 + 6 * 6 + 6 * 6 * 2
    assert all(alone.contains(Arch(16, (blocks,))) for blocks in listed)


def test_parts_of_the_space():
    part = SPACE.restrict(kernel=(3, 5), expand=(2, 2.3), depth=(2,))
    assert [part.stages[0].choices_at(b) for b in range(2)] == [
        {"kernel": (3, 5), "expand": (2,)}, {"kernel": (3, 5), "expand": (2.3,)}]
    assert SPACE.covers(part) and not part.covers(SPACE) and part.covers(part) and SPACE.alike(part)
    assert all(SPACE.contains(arch) for arch in sampled(part, 20))
    with pytest.raises(UserError, match=r"blocks.expand: 2 is not one of 2\.3, 3"):
        SPACE.restrict(expand=(2,))
    each = SPACE.each("expand", [(3, 4), (), ()])
    assert [each.stages[0].choices_at(b)["expand"] for b in range(3)] == [(4,), (3,), (2.3,)]
    assert SPACE.top.count == 1 and SPACE.top.largest == SPACE.largest == SPACE.top.smallest.at(24)
    both = SPACE.common(each)
    assert both.stages[0] == each.stages[0] and both.stages[1:] == SPACE.stages[1:]
    tall = SPACE.common(SPACE.restrict(depth=(3, 2)))
    assert tall.stages[0].depth == (2, 3) and tall.covers(tall.top)
    fixed = replace(SPACE, stages=(RATIOS, replace(PARTS, blocks=(*PARTS.blocks[:2], BlockRow())), CHANNELS))
    assert not SPACE.alike(fixed) and not SPACE.covers(fixed)


def test_a_list_that_every_block_replaces_stays():
    row = replace(RATIOS, blocks=tuple(BlockRow(elastic({"expand": (3, 6)})) for _ in range(3)))
    part = replace(SPACE, stages=(row,), name="replaced").restrict(expand=(3,))
    assert part.count == 3 + 9 + 27 and part.stages[0].choices["expand"] == (3,)


def test_tied_to_the_depth():
    row = replace(RATIOS, depth=(2, 3), tied=((2, 2), (3, 3)))
    space = replace(SPACE, stages=(row, PARTS))
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(50)]
    ratios = {tuple(block["expand"] for block in arch.stages[0]) for arch in drawn}
    assert ratios == {(2, 2.3), (4, 3, 2.3)}
    codes = np.array([space.encode(arch) for arch in drawn])
    assert (canonical(space, codes) == codes).all() and space.free.covers(space) and not space.covers(space.free)


def test_compound():
    """The ratio that goes with a depth, in each block or the next larger one that the block has."""
    row = replace(RATIOS, depth=(2, 3), blocks=(BlockRow(), BlockRow(elastic({"expand": (2,)})),
                                               BlockRow(elastic({"kernel": (3,), "expand": (4,)}))))
    space = replace(SPACE, stages=(row,)).compound()
    assert space.count == 3 ** 2 + 3 * 3
    assert str(space.largest) == "24:k7e4,k7e2,k3e4" and str(space.smallest) == "16:k3e2,k3e2"


def test_files():
    form = json.loads(json.dumps(SPACE.to_dict()))
    assert SearchSpace.from_dict(form) == SPACE and hash(SearchSpace.from_dict(form)) == hash(SPACE)
    assert form["stages"][0]["blocks"] == [{}, {"elastic": [["expand", [2.3, 3]]]},
                                           {"elastic": [["kernel", [3, 5]], ["expand", [2.3]]]}]
    assert "blocks" not in search_space("mobilenet_v3_large").to_dict()["stages"][0]
    part = SPACE.restrict(kernel=(3,), depth=(2,))
    assert SearchSpace.from_dict(part.to_dict()) == part


@pytest.mark.parametrize(("blocks", "message"), [
    ([{}], r"space.stages.0.blocks: has 1 rows for 3 blocks"),
    ([{}, {"elastic": [["hidden", [8]]]}, {}], "space.stages.0.blocks 2: hidden is no elastic dimension of the stage"),
    ([{"elastic": [["kernel", [5, 3]]]}, {}, {}], r"space.stages.0.kernel: \[5, 3\] is not a list of choices"),
    ([{"elastic": [["kernel", [3]], ["kernel", [5]]]}, {}, {}], "space.stages.0.elastic: names a dimension twice"),
    ([{"colour": 1}, {}, {}], r"space.stages.0.blocks.0.colour"),
])
def test_a_block_row_that_is_none_is_named(blocks, message):
    values = SPACE.to_dict()
    values["stages"][0] |= {"blocks": blocks}
    with pytest.raises(UserError, match=message):
        SearchSpace.from_dict(values)


def test_costs_of_populations():
    archs = sampled(SPACE, 200)
    codes = np.array([SPACE.encode(arch) for arch in archs])
    assert macs_table(SPACE, num_classes=7).of(codes).tolist() == [macs(SPACE, a, num_classes=7) for a in archs]
    assert params_table(SPACE, num_classes=7).of(codes).tolist() == [params(SPACE, a, num_classes=7) for a in archs]
    assert memory_table(SPACE).of(codes).tolist() == [peak_memory(SPACE, a) for a in archs]
    rng, known = np.random.default_rng(0), macs_table(SPACE)
    table = CostTable(SPACE, rng.normal(size=2), rng.normal(size=known.blocks.shape))
    many = np.array([SPACE.encode(arch) for arch in sampled(SPACE, 3000)])
    assert table.smallest <= table.of(many).min() and SPACE.contains(SPACE.decode(table.least.tolist()))


def test_a_predictor_learns_from_them():
    """MACs are nearly a sum over blocks, which the linear predictor's columns can tell."""
    codes = np.array([SPACE.encode(arch) for arch in sampled(SPACE, 150)])
    cost = macs_table(SPACE.at([24, 24])).of(codes)
    top1 = cost / cost.max()
    error = fit_linear(SPACE, codes[:100], top1[:100], 0).of(codes[100:]) - top1[100:]
    assert np.abs(error).max() < 0.3 * top1[100:].std()
    columns = features(SPACE, [24])
    second = codes[0] + (np.arange(codes.shape[1]) == list(SPACE.genes).index((2, 0, "hidden")))
    assert (columns.matrix(codes[:1]) != columns.matrix(second[None])).any()


def test_a_search_stays_in_the_space():
    table = macs_table(SPACE)
    found = evolve(Problem(SPACE, (Goal("macs", table.of, best=table.least), Goal("memory", memory_table(SPACE).of))),
                   Evolution(population=40, generations=5))
    assert all(SPACE.contains(SPACE.decode(row)) for row in found.codes.tolist())
    assert found.values[:, 0].min() == table.smallest == macs(SPACE, SPACE.smallest)


def test_sampling_of_todays_spaces_has_its_order():
    space = search_space("mobilenet_v3_large")
    assert str(space.sample(random.Random(7))) == (
        "168:k5e6,k3e3/k3e4,k7e3,k7e3,k3e3/k5e3,k3e3,k7e4/k7e3,k3e6/k7e3,k7e6,k5e3,k3e3")
    assert str(space.compound().sample(random.Random(7))) == (
        "168:k5e3,k3e3/k7e4,k7e4,k3e4/k5e4,k3e4,k7e4/k7e3,k3e3/k7e6,k3e6,k3e6,k5e6")
