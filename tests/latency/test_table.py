"""Latency tables: the authors' phone, there and back in every form, what is refused."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import yaml

from onceforall.errors import UserError
from onceforall.latency.table import LatencyTable, Timing, all_parts, latency, read_table, write_table
from onceforall.space import lower, search_space
from onceforall.space.parts import names

WIDE = search_space("mobilenet_v3_large", width_mult=1.2)
SMALL = search_space("mobilenet_v3_large_32px").restrict(resolutions=(12, 32))


@pytest.fixture(scope="module")
def note10(reference_data):
    return read_table(reference_data / "mit" / "note10_latency")


@pytest.fixture(scope="module")
def small():
    rng = random.Random(0)
    parts = {name: None for size in SMALL.resolutions for name in all_parts(SMALL, size)}
    return LatencyTable({(None, name): Timing(rng.random(), 0.01, 30) for name in parts}, {"device": "x"}, 1.1, 0.25)


def test_the_authors_table_covers_its_resolutions(note10):
    table = note10.of(WIDE)
    assert table.space.resolutions == (160, 176, 192, 208, 224)
    rng = random.Random(1)
    archs = [table.space.sample(rng) for _ in range(200)]
    codes = np.array([table.space.encode(arch) for arch in archs])
    np.testing.assert_allclose(table.of(codes), [latency(WIDE, arch, note10) for arch in archs], rtol=1e-12)
    with pytest.raises(UserError, match=r"has no expanded_conv-.* at 160 pixels: it is not of"):
        note10.of(search_space("mobilenet_v3_large"))
    with pytest.raises(UserError, match="at 128 pixels"):
        latency(WIDE, WIDE.smallest, note10)


def test_as_the_authors_add_up(note10, reference_data):
    """Their estimator on the same file, filled past its reader, which current YAML breaks."""
    tutorial = pytest.importorskip("ofa.tutorial.latency_table", reason="the authors' code is not installed")
    for size in (160, 224):
        estimator = tutorial.LatencyEstimator.__new__(tutorial.LatencyEstimator)
        file = reference_data / "mit" / "note10_latency" / f"{size}_lookup_table.yaml"
        estimator.lut = yaml.safe_load(file.read_text())
        rng = random.Random(size)
        for arch in [WIDE.sample(rng).at(size) for _ in range(20)]:
            spec = {**arch.to_dict(WIDE), "r": [size]}
            assert latency(WIDE, arch, note10) == pytest.approx(estimator.predict_network_latency_given_spec(spec))


def test_population_and_single_agree(small):
    table, rng = small.of(SMALL), random.Random(2)
    archs = [SMALL.sample(rng) for _ in range(300)]
    codes = np.array([SMALL.encode(arch) for arch in archs])
    np.testing.assert_allclose(table.of(codes), [latency(SMALL, arch, small) for arch in archs], rtol=1e-12)
    plan = lower(SMALL, archs[0])
    expected = 0.25 + 1.1 * sum(small.timings[None, name].ms for name in names(plan))
    assert small.ms(plan) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["table.json", "table.csv"])
def test_there_and_back(small, tmp_path, name):
    write_table(small, tmp_path / name)
    back = read_table(tmp_path / name)
    assert back.timings == small.timings
    if name.endswith("json"):
        assert (back.about, back.scale, back.offset_ms) == (small.about, 1.1, 0.25)


@pytest.mark.parametrize(("name", "text", "message"), [
    ("t.json", "", "is no latency table"), ("t.json", "[]", "is no latency table"), ("t.json", "{}", "'scale'"),
    ("t.json", json.dumps({"timings": [{"layer": "x"}], "about": {}, "scale": 1, "offset_ms": 0}), "row 1: is no tim"),
    ("t.csv", "resolution,layer,ms,spread_ms,n\n160,x,-1,0,1\n", "row 1: -1.0 ms is no time"),
    ("t.csv", "resolution,layer,ms,spread_ms,n\n160,x,nan,0,1\n", "row 1: nan ms is no time"),
    ("t.csv", "resolution,layer,ms,spread_ms,n\n160,x,a,0,1\n", "row 1: is no timing"),
    ("t.yaml", "a: 1", "does not begin with a resolution"), ("160_t.yaml", "a: 1", "is no latency table"),
    ("160_t.yaml", "a: [", "is no latency table"), ("160_t.yaml", "!!python/object/apply:os.getcwd []", "is no lat"),
])
def test_what_is_no_table_is_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_table(tmp_path / name)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"holds no .yaml|cannot be read"):
        read_table(tmp_path / "nothing")


@pytest.mark.parametrize("change", [{"scale": -1}, {"scale": float("nan")}, {"offset_ms": float("inf")}, {"about": [1]},
                                    {"scale": "a"}, {"timings": 5}])
def test_a_table_with_a_correction_that_is_none(small, tmp_path, change):
    write_table(small, tmp_path / "t.json")
    (tmp_path / "t.json").write_text(json.dumps({**json.loads((tmp_path / "t.json").read_text()), **change}))
    with pytest.raises(UserError, match=r"t\.json: is no latency table \(.*\); `ofa profile` writes one"):
        read_table(tmp_path / "t.json")


def test_a_correction_of_another_space(small):
    with pytest.raises(UserError, match="gives a sub-network -.* ms: its correction is not of"):
        LatencyTable(small.timings, {}, 1.0, -100.0).of(SMALL)
