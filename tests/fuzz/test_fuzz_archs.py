"""Genotypes, arch strings, arch dicts and names of spaces: what is accepted is what is documented."""

from __future__ import annotations

import random

from fuzzing import ODD, SPACE, cases, judged, mutated
from hypothesis import given
from hypothesis import strategies as st
from older_form import older

from onceforall.space import Arch, SearchSpace, read_space, search_space

_TEXT = str(SPACE.middle)
FAMILIES = [search_space(name) for name in ("resnet50d", "attentive_nas", "xception41")]
RESNET = FAMILIES[0]


@cases(300)
@given(st.data())
def test_genotypes(data):
    valid = SPACE.sample(random.Random(data.draw(st.integers(0, 99)))).to_genotype(SPACE)
    genes = data.draw(st.just(valid) | mutated(valid) | st.lists(st.integers(-1, 10), min_size=20, max_size=20)
                      | st.lists(st.sampled_from([0, 8, 9]), min_size=20, max_size=20))
    arch = judged(lambda: Arch.from_genotype(SPACE, genes))
    stages = [genes[i:i + 4] for i in range(0, len(genes), 4)]
    allowed = len(genes) == 20 and all(type(g) is int and 0 <= g <= 9 for g in genes) and all(
        4 - stage.count(9) >= 2 and 9 not in stage[:4 - stage.count(9)] for stage in stages)
    assert (arch is not None) == allowed
    if arch is not None:
        assert arch.to_genotype(SPACE) == genes


@cases(300)
@given(st.data())
def test_arch_texts(data):
    text = list(data.draw(st.sampled_from([_TEXT, "largest", "smallest@16", "middle@12"])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at:at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(list("ke345679:/,@ .0-٣\n\0")))
    given_text = "".join(text)
    arch = judged(lambda: Arch.parse(SPACE, given_text))
    if arch is not None:
        assert SPACE.contains(arch) and Arch.parse(SPACE, str(arch)) == arch
        if ":" in given_text:
            assert str(arch) == given_text.replace(" ", "").strip()


@cases(300)
@given(st.data())
def test_arch_dicts(data):
    valid = SPACE.sample(random.Random(data.draw(st.integers(0, 99)))).to_dict(SPACE)
    valid = data.draw(st.sampled_from([valid, {"ks": 3, "e": 6, "d": 2, "r": 16}]))
    values = data.draw(st.just(valid) | mutated(valid) | st.dictionaries(
        st.sampled_from(["ks", "e", "d", "image_size", "r", "wid", "x"]), ODD))
    arch = judged(lambda: Arch.from_dict(SPACE, values))
    if arch is not None:
        assert set(values) <= {"ks", "e", "d", "image_size", "r", "wid"} and not {"image_size", "r"} <= set(values)
        assert Arch.parse(SPACE, str(arch)) == arch
        assert all(type(value) is int for stage in arch.stages for block in stage for _, value in block.choices)


@cases(300)
@given(st.sampled_from(FAMILIES), st.data())
def test_arch_texts_of_families(space, data):
    """Elastic widths, stages that may be absent, choices that idle another."""
    text = list(data.draw(st.sampled_from([str(space.middle), str(space.sample(random.Random(1))), "largest@224"])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at:at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from(list("wbkle01235678:/,@ .-٣\n\0")))
    given_text = "".join(text)
    arch = judged(lambda: Arch.parse(space, given_text))
    if arch is not None:
        assert space.contains(arch) and Arch.parse(space, str(arch)) == arch
        assert space.decode(space.encode(arch)) == arch
        if ":" in given_text:
            assert str(arch) == given_text.replace(" ", "").strip()


@cases(300)
@given(st.sampled_from(FAMILIES), st.data())
def test_genotypes_of_families(space, data):
    valid = space.sample(random.Random(data.draw(st.integers(0, 99)))).to_genotype(space)
    genes = data.draw(st.just(valid) | mutated(valid) | st.lists(st.integers(-1, 27), min_size=len(valid),
                                                                 max_size=len(valid)))
    arch = judged(lambda: Arch.from_genotype(space, genes))
    if arch is not None:
        assert len(genes) == len(valid) and all(type(gene) is int for gene in genes)
        assert Arch.from_genotype(space, arch.to_genotype(space)) == arch


@cases(300)
@given(st.data())
def test_arch_dicts_of_resnet(data):
    valid = RESNET.sample(random.Random(data.draw(st.integers(0, 99)))).to_dict(RESNET)
    valid = data.draw(st.sampled_from([valid, {"e": 0.2, "d": 2, "w": 0.65, "r": 160}, {"e": 0.35, "d": 0, "w": 1}]))
    values = data.draw(st.just(valid) | mutated(valid) | st.dictionaries(
        st.sampled_from(["ks", "e", "d", "w", "image_size", "r", "wid", "x"]), ODD))
    arch = judged(lambda: Arch.from_dict(RESNET, values))
    if arch is not None:
        assert set(values) <= {"e", "d", "w", "image_size", "r", "wid"} and not {"image_size", "r"} <= set(values)
        assert Arch.parse(RESNET, str(arch)) == arch
        assert Arch.from_dict(RESNET, arch.to_dict(RESNET)) == arch


@cases(200)
@given(st.sampled_from(FAMILIES).flatmap(lambda space: mutated(space.to_dict())))
def test_descriptions_of_families(values):
    found = judged(lambda: SearchSpace.from_dict(values))
    if found is not None:
        assert SearchSpace.from_dict(found.to_dict()) == found
        assert Arch.parse(found, str(found.largest)) == found.largest and found.contains(found.smallest)


@cases(200)
@given(mutated(older(SPACE.restrict(depth=[2, 3], resolutions=[12, 16]))))
def test_older_descriptions_of_spaces(values):
    found = judged(lambda: read_space(values))
    if found is not None:
        assert SPACE.name != found.name or SPACE.covers(found)
        assert older(found) == {**values, "stages": [
            {name: sorted(set(row[name])) for name in row} for row in values["stages"]],
            "resolutions": sorted(set(values["resolutions"])), "name": found.name}
        assert Arch.parse(found, str(found.largest)) == found.largest


@cases(150)
@given(st.sampled_from(["mobilenet_v3_large_32px", "mobilenet_v3_larg", "", "x"]), st.sampled_from(["?", "", "??"]),
       st.lists(st.tuples(st.sampled_from(["width_mult", "width", "", "name"]), st.sampled_from(
           ["0.5", "1", "nan", "inf", "-1", "1e9", "", "x", "8.01", "1_0", "\n"])), max_size=2))
def test_names_of_spaces(name, mark, pairs):
    text = name + mark + "&".join(f"{key}={value}" for key, value in pairs)
    found = judged(lambda: search_space(text))
    if found is not None:
        assert name == "mobilenet_v3_large_32px" and len(pairs) <= 1 and found == search_space(found.name)
