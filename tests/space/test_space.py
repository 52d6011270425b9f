"""Archs, search spaces and encodings: figures of the paper's table, round trips, errors that name the place."""

from __future__ import annotations

import json
import random
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
from older_form import older

from onceforall.cost import macs, params
from onceforall.errors import UserError
from onceforall.interop.nnabla.genotype import operators_of, restrict_to
from onceforall.space import CATALOG, Arch, Block, SearchSpace, lower, make_divisible, read_space, search_space

TUTORIAL = [5, 2, 9, 9, 6, 4, 2, 1, 7, 7, 8, 9, 8, 3, 9, 9, 8, 4, 3, 1]
SPACES = [*CATALOG, "mobilenet_v3_large?width_mult=1.2", "mobilenet_v3_large_32px?width_mult=0.5"]


@pytest.fixture(params=SPACES)
def space(request):
    return search_space(request.param)


def test_figures_of_the_table():
    space = search_space("mobilenet_v3_large")
    assert (params(space, space.largest), macs(space, space.largest)) == (7_664_760, 566_170_656)
    smallest = space.smallest.at(224)
    assert (params(space, smallest), macs(space, smallest)) == (3_410_792, 121_278_672)
    tutorial = Arch.from_genotype(space, TUTORIAL, resolution=224)
    assert (params(space, tutorial), macs(space, tutorial)) == (5_025_272, 265_982_144)
    assert tutorial.depths == (2, 4, 3, 2, 4)
    assert space.count == 7371 ** 5 == 21_758_655_492_572_485_851


def test_round_trips(space):
    rng = random.Random(0)
    for arch in [space.largest, space.middle, space.smallest, *(space.sample(rng) for _ in range(100))]:
        assert space.contains(arch)
        assert Arch.parse(space, str(arch)) == arch
        if space.name.startswith(("mobilenet", "proxyless", "resnet")):  # the authors have no other family
            assert Arch.from_dict(space, json.loads(json.dumps(arch.to_dict(space)))) == arch
        assert space.decode(space.encode(arch)) == arch
        assert Arch.from_genotype(space, arch.to_genotype(space), resolution=arch.resolution) == arch
        assert all(0 <= v < n for v, n in zip(space.encode(arch), space.cardinalities, strict=True))


def test_figures_of_the_families():
    """Parameters and MACs at 224 pixels of the largest and the smallest sub-network, as the authors' code has them."""
    space = search_space("resnet50d")
    figures = [(params(space, arch), macs(space, arch.at(224))) for arch in (space.largest, space.smallest)]
    assert [(round(p / 1e6, 2), round(m / 1e6, 1)) for p, m in figures] == [(48.11, 7491.6), (6.54, 962.2)]
    assert space.count == 2 * 2 * 3 ** 5 * (3 ** 2 + 3 ** 3 + 3 ** 4) ** 3 * (3 ** 4 + 3 ** 5 + 3 ** 6)
    assert search_space("xception41").count == 21 ** 8 and search_space("xception65").count == 21 ** 16


def test_the_authors_resnet_dict():
    """Depths beside those that a stage always has; the stem's convolution is there at 2; widths by their multiplier."""
    space = search_space("resnet50d")
    values = {"d": [0, 2, 1, 2, 0], "e": [0.35, 0.2, 0.25] * 6, "w": [0.65, 0.65, 1.0, 0.65, 0.8, 1.0]}
    arch = Arch.from_dict(space, values)
    assert arch.depths == (0, 1, 4, 3, 6, 2) and arch.widths == (24, 40, 256, 336, 816, 2048)
    assert Arch.from_dict(space, {**values, "w": [0, 0, 2, 0, 1, 2]}) == arch
    assert arch.to_dict(space)["w"] == [0, 0, 2, 0, 1, 2]
    assert [Arch.from_dict(space, {**values, "d": d}).depths[0] for d in (0, 1, 2)] == [0, 0, 1]
    for wrong, message in (({"d": 3}, r"arch.d\[0\]: 3 is not one of 0, 1, 2"), ({"w": 0.7}, r"w\[0\]: 0.7 is not"),
                           ({"ks": 3}, "arch.ks: is not a key"), ({"w": [0]}, "has 1 entries instead of 6")):
        with pytest.raises(UserError, match=message):
            Arch.from_dict(space, {**values, **wrong})
    with pytest.raises(UserError, match="none of the authors' families"):
        search_space("attentive_nas").largest.to_dict(search_space("attentive_nas"))


def test_xception_operators():
    """NNablaNAS's names and order; with one layer the expand ratio is no choice."""
    space = search_space("xception41")
    assert operators_of(space)[:4] == ["XP0.6 3x3 1", "XP0.6 3x3 2", "XP0.6 3x3 3", "XP0.8 3x3 1"]
    theirs = [f"XP{e} {k}x{k} {n}" for k in (3, 5, 7) for e in ("1", "0.8", "0.6") for n in (1, 2, 3)]
    arch = Arch.from_genotype(space, [19, 2, 20, 5, 8, 10, 26, 21], operators=theirs)
    assert str(arch) == "224:k7l2e1,k3l3e1,k7l3e1,k3l3e0.8,k3l3e0.6,k5l2e1,k7l3e0.6,k7l1/b/b/b"
    assert Arch.from_genotype(space, [19, 2, 20, 5, 8, 10, 26, 24], operators=theirs) == arch
    assert restrict_to(space, ["XP1 7x7 3"]).count == 1
    for genotype, message in (([27] * 8, r"27 is not an index of the operators \(27 operators\); allowed: 0..26"),
                              ([0] * 7, "has 7 entries; xception41 has 8")):
        with pytest.raises(UserError, match=message):
            Arch.from_genotype(space, genotype)
    with pytest.raises(UserError, match="number of layers"):
        restrict_to(space, ["XP1 7x7 3", "XP1 5x5 2"])


def test_the_name_rebuilds_the_space(space):
    assert search_space(space.name) == space
    assert hash(search_space(space.name)) == hash(space)


def test_a_space_is_a_json_value(space):
    name, values = next((name, values) for stage in space.stages for name, values in stage.elastic if len(values) > 1)
    part = space.restrict(resolutions=space.resolutions[:2], **{name: values[1:]})
    part = part.each("depth", [stage.depth[-1:] for stage in space.stages])
    part = part.each("width", [values[1:] for values in space.widths])
    assert space.covers(part) and not part.covers(space) and part.contains(part.smallest)
    for each in (space, part):
        assert SearchSpace.from_dict(json.loads(json.dumps(each.to_dict()))) == each
        assert read_space(each.to_dict()) == read_space(older(each)) == each
    for form in (part.to_dict(), older(part)):
        for wrong in ({"name": 3}, {"resolutions": [1]}, {"resolutions": None}, {"more": 1}, {"stages": 3}):
            with pytest.raises(UserError):
                read_space({**form, **wrong})


def test_a_space_that_is_not_in_the_catalogue_is_read_back(space):
    own = replace(space, name="mine", stages=(space.stages[0], *space.stages))
    assert SearchSpace.from_dict(json.loads(json.dumps(own.to_dict()))) == own


@pytest.mark.parametrize(("change", "message"), [
    ({"depth": [3, 2]}, r"space.stages.0.depth: \[3, 2\] is not a list of choices in ascending order"),
    ({"depth": []}, r"space.stages.0.depth: \[\] is not a list of choices in ascending order"),
    ({"elastic": [["kernel", [3, 3]]]}, r"space.stages.0.kernel: \[3, 3\] is not a list of choices in ascending order"),
    ({"elastic": [["kernel", [3]], ["kernel", [5]]]}, "space.stages.0.elastic: names a dimension twice"),
    ({"depth": [0, 1]}, "space.stages.0.depth: 0 is for a stage that keeps width and size"),
    ({"tied": [[2, 3]]}, "space.stages.0.tied: does not give an expand ratio for each depth"),
    ({"stride": 0}, r"space.stages.0.stride: is not the description of a search space \(Input should be greater"),
    ({"stride": True}, "space.stages.0.stride: is not the description of a search space"),
    ({"width": 10 ** 9}, "space.stages.0.width"),
    ({"colour": 1}, "space.stages.0.colour"),
])
def test_a_row_that_is_none_is_named(change, message):
    values = search_space("mobilenet_v3_large").to_dict()
    values["stages"][0] |= change
    with pytest.raises(UserError, match=message):
        SearchSpace.from_dict(values)


def test_a_kind_of_block_that_nobody_registered():
    space = search_space("mobilenet_v3_large")
    own = replace(space, stages=(*space.stages[:-1], replace(space.stages[-1], kind="fused")))
    with pytest.raises(UserError, match=r"space stages\.4\.0: 'fused' is not a kind of block; known: mbconv, .*; imp"):
        lower(own, own.smallest)


def test_genotypes_follow_the_order_of_the_operators():
    space = search_space("mobilenet_v3_large").restrict(expand=(6,), depth=(4,))
    down = ["MB6 7x7", "MB6 5x5", "MB6 3x3"]
    arch = Arch.from_genotype(space, [0] * 20, operators=down)
    assert arch == space.largest
    assert arch.to_genotype(space, operators=down) == [0] * 20
    assert arch.to_genotype(space) == [2] * 20


def test_sampling_reaches_every_choice_evenly():
    space = search_space("mobilenet_v3_large")
    rng = random.Random(1)
    archs = [space.sample(rng) for _ in range(3000)]
    for depth in (2, 3, 4):
        assert 900 < sum(a.depths[2] == depth for a in archs) < 1100
    for kernel in (3, 5, 7):
        assert 900 < sum(a.stages[0][0]["kernel"] == kernel for a in archs) < 1100
    assert {a.resolution for a in archs} == set(range(128, 225, 4))


def test_restriction_and_cover():
    space = search_space("mobilenet_v3_large")
    fullnet = space.restrict(kernel=(7,), expand=(6,), depth=(4,))
    kernel = space.restrict(expand=(6,), depth=(4,))
    assert (fullnet.count, kernel.count) == (1, 3 ** 20)
    assert space.covers(kernel) and kernel.covers(fullnet) and not fullnet.covers(kernel)
    assert not search_space("mobilenet_v3_large_64px").covers(space)
    assert not space.covers(search_space("mobilenet_v3_large?width_mult=0.5"))
    wide = search_space("attentive_nas")
    narrow = wide.each("width", [values[:1] for values in wide.widths])
    assert wide.covers(narrow) and not narrow.covers(wide)
    assert restrict_to(space, ["MB6 7x7", "MB6 3x3", "MB6 5x5"], [4]) == kernel
    assert operators_of(space)[5] == "MB4 7x7"
    with pytest.raises(UserError, match=r"kernel: 9 is not one of 3, 5, 7"):
        space.restrict(kernel=(9,))
    with pytest.raises(UserError, match=r"depth: 2.5 is not one of 2, 3, 4"):
        space.each("depth", [(2.5,)] * 5)
    with pytest.raises(UserError, match=r"kernel: 5, 5, 7 has a choice twice"):
        space.restrict(kernel=(5, 5, 7))
    with pytest.raises(UserError, match="is no elastic dimension"):
        space.restrict(colour=(1,))


def test_compound():
    """CompOFA: 2 blocks go with ratio 3, 3 with 4, 4 with 6, or with the next larger one that there is."""
    full, rng = search_space("mobilenet_v3_large"), random.Random(0)
    space = full.compound()
    assert space.count == (3 ** 2 + 3 ** 3 + 3 ** 4) ** 5 and space.restrict(kernel=(5,)).count == 3 ** 5
    drawn = [space.sample(rng) for _ in range(300)]
    blocks = {(len(blocks), block["kernel"], block["expand"]) for arch in drawn for blocks in arch.stages
              for block in blocks}
    assert blocks == {(d, k, e) for d, e in ((2, 3), (3, 4), (4, 6)) for k in (3, 5, 7)}
    for arch in [space.smallest, space.middle, space.largest, *drawn]:
        assert space.contains(arch) and Arch.parse(space, str(arch)) == arch == space.decode(space.encode(arch))
    assert (space.smallest, space.middle, space.largest) == (full.smallest, full.middle, full.largest)
    part = full.restrict(expand=(4, 6), depth=(2, 3))
    assert {b["expand"] for blocks in part.compound(full).largest.stages for b in blocks} == {4}
    assert {b["expand"] for blocks in part.restrict(expand=(6,)).compound(full).smallest.stages for b in blocks} == {6}
    assert full.covers(space) and not space.covers(full) and space.free == full and space.covers(space.top)
    assert not space.covers(full.restrict(depth=(4,))) and space.covers(full.restrict(depth=(4,), expand=(6,)))
    assert lower(space, full.restrict(depth=(2,)).largest)  # a supernet can run all of them
    with pytest.raises(UserError, match=r"stage 1 block 1: expand 6 is not one of 3, which goes with depth 2"):
        space.check(full.restrict(depth=(2,)).largest)
    assert SearchSpace.from_dict(json.loads(json.dumps(space.to_dict()))) == read_space(older(space)) == space
    with pytest.raises(UserError, match="neither true nor false"):
        read_space({**older(space), "compound": "yes"})
    assert [len(stage.tied) for stage in search_space("proxyless_nas").compound().stages] == [3] * 5 + [0]
    for name in ("resnet50d", "attentive_nas", "xception41"):
        with pytest.raises(UserError, match=f"{name}: has no blocks with kernel and expand ratio"):
            search_space(name).compound()


def test_compound_with_elastic_widths():
    full = search_space("mobilenet_v3_large")
    *others, last = full.stages
    space = replace(full, stages=(*others, replace(last, width=(last.width, last.width + 8))))
    drawn = [space.compound().sample(random.Random(seed)) for seed in range(20)]
    assert all(space.compound().contains(arch) for arch in drawn)
    assert {arch.widths for arch in drawn} == {(width,) for width in space.widths[0]}


def test_no_dead_genes():
    space = search_space("mobilenet_v3_large")
    values = space.smallest.to_dict(space)
    values["ks"][2] = 7  # stage 1 has two blocks: slot 3 does not exist
    assert Arch.from_dict(space, values) == space.smallest
    vector = space.encode(space.smallest)
    vector[2 + 2 * 2] = 2
    assert space.decode(vector) == space.smallest


def test_plan_feature_maps(space):
    for arch in (space.largest, space.smallest):
        plan = lower(space, arch)
        before = plan.stem
        for block in plan.blocks():
            first, last = block.path[0], block.path[-1]
            assert (first.inputs, first.size) == (before.outputs, before.out_size)
            assert all((a.outputs, a.out_size) == (b.inputs, b.size) for a, b in pairwise(
                [layer for layer in block.path if ".se." not in layer.name]))
            if block.shortcut is not None:
                assert (block.shortcut.inputs, block.shortcut.size) == (first.inputs, first.size)
                assert (block.shortcut.outputs, block.shortcut.out_size) == (last.outputs, last.out_size)
            elif block.residual:
                assert (first.inputs, first.size) == (last.outputs, last.out_size)
            before = last
        assert (*plan.features, *plan.head)[0].inputs == before.outputs


def test_values_are_frozen():
    space = search_space("mobilenet_v3_large")
    with pytest.raises(FrozenInstanceError):
        space.largest.resolution = 3


@pytest.mark.parametrize(("value", "expected"), [(16 * 1.2, 24), (40 * 1.2, 48), (960 * 1.2, 1152), (8, 8), (3, 8),
                                                 (24 * 0.5, 16), (36, 40)])
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected


@pytest.mark.parametrize(("text", "message"), [
    ("224", "no ':' after the resolution"),
    ("225:k7e6", "1 stages are given"),
    ("large", "the form is 224:k7e6"),
    ("x:k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "'x' is not a whole number"),
    ("224\n:k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "is not a whole number"),
    ("225:k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "resolution: 225 is not one of 128, 132, .., 224"),
    ("224:k7e6,k7e6/k7e6,k9e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "stage 2 block 2: kernel 9 is not one of 3, 5, 7"),
    ("224:k7e6,k7e6/k7e6,k7e5/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "stage 2 block 2: expand 5 is not one of 3, 4, 6"),
    ("224:k7e6,k7e6/k7e6,k7/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "'k7' is not of the form k7e6"),
    ("224:k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6/k7e6,k7e6", "stage 1: depth 1 is not one of 2, 3, 4"),
    ("largest@999", "resolution: 999 is not one of"),
])
def test_bad_arch_text(text, message):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        Arch.parse(search_space("mobilenet_v3_large"), text)


@pytest.mark.parametrize(("space", "text", "message"), [
    ("resnet50d", "224:b/b/e0.2,e0.2/e0.2,e0.2/e0.2,e0.2,e0.2,e0.2/e0.2,e0.2", "has no widths after the resolution"),
    ("resnet50d", "224:w24,40,168,336,664:/b/e0.2,e0.2/e0.2,e0.2/e0.2,e0.2,e0.2,e0.2/e0.2,e0.2", "has 5 widths"),
    ("resnet50d", "224:w24,40,168,336,664,9:/b/e0.2,e0.2/e0.2,e0.2/e0.2,e0.2,e0.2,e0.2/e0.2,e0.2", "width 6: 9 is not"),
    ("resnet50d", "224:w24,x,168:/b", "width 2: 'x' is not a whole number of channels"),
    ("resnet50d", "224:w24,40,168,336,664,1328://e0.2,e0.2/e0.2,e0.2/e0.2,e0.2,e0.2,e0.2/e0.2,e0.2", "stage 2 block 1"),
    ("xception41", "224:k3l1e1,k3l1,k3l1,k3l1,k3l1,k3l1,k3l1,k3l1/b/b/b", "layers, expand instead of kernel, l"),
    ("xception41", "224:k3l2,k3l1,k3l1,k3l1,k3l1,k3l1,k3l1,k3l1/b/b/b", "layers instead of kernel, layers, e"),
    ("xception41", "224:k3l1,k3l1,k3l1,k3l1,k3l1,k3l1,k3l1,k3l1/b/c/b", "'c' is not of the form b"),
])
def test_bad_arch_text_of_families(space, text, message):
    with pytest.raises(UserError, match=message):
        Arch.parse(search_space(space), text)


@pytest.mark.parametrize(("change", "message"), [
    ({4: 12}, r"genotype\[4\]: 12 is not an index of the operators \(9 operators, 9 = skip\); allowed: 0..9"),
    ({4: -1}, r"genotype\[4\]: -1 is not an index"),
    ({4: True}, r"genotype\[4\]: True is not an index"),
    ({0: 9}, r"genotype\[1\]: 2 follows a skip within stage 1"),
    ({1: 9}, r"genotype\[0..3\]: leaves 1 blocks in stage 1; allowed: 2, 3, 4"),
])
def test_bad_genotype(change, message):
    genotype = [change.get(i, g) for i, g in enumerate(TUTORIAL)]
    with pytest.raises(UserError, match=message):
        Arch.from_genotype(search_space("mobilenet_v3_large"), genotype)
    with pytest.raises(UserError, match="has 19 entries"):
        Arch.from_genotype(search_space("mobilenet_v3_large"), TUTORIAL[:19])


@pytest.mark.parametrize(("change", "message"), [
    ({"ks": 9}, "kernel 9 is not one of"), ({"e": [3] * 19}, "arch.e: has 19 entries instead of 20"),
    ({"d": 5}, r"arch.d\[0\]: 5 is not one of 2, 3, 4"), ({"depth": 3}, "arch.depth: is not a key"),
    ({"image_size": 100}, "resolution: 100"), ({"wid": 1.2}, "no elastic width"),
])
def test_bad_arch_dict(change, message):
    with pytest.raises(UserError, match=message):
        Arch.from_dict(search_space("mobilenet_v3_large"), {"ks": 7, "e": 6, "d": 4, "image_size": 224, **change})


def test_arch_dict_takes_single_values_and_r():
    space = search_space("mobilenet_v3_large")
    assert Arch.from_dict(space, {"ks": 7, "e": 6, "d": 4, "r": [224]}) == space.largest
    with pytest.raises(UserError, match="arch.ks: is missing"):
        Arch.from_dict(space, {"e": 6, "d": 4})


@pytest.mark.parametrize(("name", "message"), [
    ("mobilenet_v3_lage", "did you mean mobilenet_v3_large"), ("mobilenet_v3_large?width=1", "width: is not a setting"),
    ("mobilenet_v3_large?width_mult=0.5&width_mult=0.6", "width_mult: stands twice in the name"),
    ("mobilenet_v3_large?width_mult=x", "width_mult: 'x' is not a number"),
    ("mobilenet_v3_large?width_mult=nan", "is not a number from 0.1 to 8"),
])
def test_bad_space_name(name, message):
    with pytest.raises(UserError, match=message):
        search_space(name)


def test_bad_operators():
    space = search_space("mobilenet_v3_large")
    for names, message in [(["MB6 7x5"], "is not an operator"), (["MB6 7x7", "MB4 5x5"], "lacks 'MB4 7x7'"),
                           (["MB5 7x7"], "expand 5 is not one of"), ([], "is empty"),
                           (["MB6 7x7", "MB6 7x7"], "lists an operator twice")]:
        with pytest.raises(UserError, match=message):
            restrict_to(space, names)
    with pytest.raises(UserError, match="operators: none of them is k7e6"):
        space.largest.to_genotype(space, operators=["MB3 3x3"])


def test_archs_of_another_form_are_no_part_of_the_space():
    space = search_space("mobilenet_v3_large")
    arch = Arch(224, ((Block((("kernel", 7),)),) * 2,) * 5)
    with pytest.raises(UserError, match="has kernel instead of kernel, expand"):
        space.check(arch)
