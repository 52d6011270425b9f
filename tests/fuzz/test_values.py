"""Configurations, encodings of sub-networks, tables, rows and fronts: each works, or is refused in one line."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fuzzing import cases, changed, damaged, text_of
from hypothesis import given
from hypothesis import strategies as st

from onceforall.cost import macs, params
from onceforall.cost.latency import LatencyTable, Timing, all_parts, read_table, write_table
from onceforall.cost.measured import read_rows
from onceforall.interop.config import Config, checked, stage_space, subnet_arch, valid_archs
from onceforall.search.record import read_front, read_record
from onceforall.space import Arch, SearchSpace, lower, search_space
from onceforall.space.arch_dict import encode
from onceforall.train.stage import stage_of

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "classification" / "ofa"
CONFIGS = {path.stem: json.loads(path.read_text()) for path in sorted(EXAMPLES.glob("*.json"))}
SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "file"


def use(config: Config, algorithm: str) -> None:
    """What a command asks of a configuration before it trains."""
    checked(config, algorithm, files=False)
    stage_space(config)
    subnet_arch(config)
    valid_archs(config)
    stage_of(config, subnet=algorithm == "OFATrainer")
    assert Config.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize("name", sorted(CONFIGS))
@cases(60)
@given(data=st.data(), search=st.booleans())
def test_configurations(outcome, name, data, search):
    values = data.draw(changed(CONFIGS[name]))
    outcome(lambda: use(Config.from_dict(values), "OFASearcher" if "search" in name else "OFATrainer"))


@cases(120)
@given(data=st.data())
def test_configuration_files(outcome, file, data):
    name = data.draw(st.sampled_from(sorted(CONFIGS)))
    path = file.with_suffix(".json")
    path.write_bytes(data.draw(damaged(text_of(CONFIGS[name]).encode())))
    outcome(lambda: Config.read(path))


def belongs(arch: Any) -> None:
    """Whatever is accepted is of the space, once and for all."""
    if arch is not None:
        assert SPACE.contains(arch)
        assert Arch.parse(SPACE, str(arch)) == arch == SPACE.decode(SPACE.encode(arch))
        assert macs(SPACE, arch) > 0 < params(SPACE, arch)
        assert all(type(choice) is int for stage in arch.stages for block in stage for _, choice in block.choices)


@cases(150)
@given(genes=st.one_of(
    st.lists(st.integers(0, 9), min_size=20, max_size=20), st.lists(st.integers(-2, 11), max_size=24),
    st.lists(st.one_of(st.integers(0, 9), st.floats(0, 9), st.booleans(), st.none(), st.text(max_size=2)), min_size=20,
             max_size=20)), resolution=st.one_of(st.none(), st.integers(0, 300)))
def test_genotypes(outcome, genes, resolution):
    belongs(outcome(lambda: Arch.from_genotype(SPACE, genes, resolution=resolution)))


@cases(150)
@given(data=st.data(), seed=st.integers(0, 9999))
def test_arch_dicts(outcome, data, seed):
    values = data.draw(changed(encode(SPACE, SPACE.sample(random.Random(seed)))))
    belongs(outcome(lambda: Arch.from_dict(SPACE, values)))


@cases(200)
@given(data=st.data(), seed=st.integers(0, 9999))
def test_arch_strings(outcome, data, seed):
    text = bytearray(data.draw(damaged(str(SPACE.sample(random.Random(seed))).encode())))
    belongs(outcome(lambda: Arch.parse(SPACE, text.decode("utf-8", "replace"))))


@cases(60)
@given(text=st.one_of(st.text(max_size=40), st.sampled_from(["largest", "smallest", "middle", "32:", ":", "32:k" * 9])))
def test_any_text_as_arch(outcome, text):
    belongs(outcome(lambda: Arch.parse(SPACE, text)))


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    names = all_parts(SPACE, 32, num_classes=10)
    return LatencyTable({(32, name): Timing(0.1, 0.01, 30) for name in names}, {"device": "x"}, 1.1, 0.25)


@pytest.mark.parametrize("suffix", [".json", ".csv"])
@cases(100)
@given(data=st.data())
def test_latency_tables(outcome, file, table, suffix, data):
    path = file.with_suffix(suffix)
    write_table(table, path)
    if suffix == ".json" and data.draw(st.booleans()):
        path.write_text(text_of(data.draw(changed(json.loads(path.read_text())))))
    else:
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = outcome(lambda: read_table(path))
    if found is not None:
        with suppress(ValueError):  # a UserError: a layer it lacks
            assert 0 <= found.ms(lower(SPACE, SPACE.smallest.at(32), 10)) < 1e12


@cases(80)
@given(data=st.data())
def test_tables_in_yaml(outcome, file, data):
    path = file.with_name("160_lookup_table.yaml")
    text = "".join(f"Conv-input:{i}x{i}x3:\n  mean: 0.{i}\n  std: 0.1\n  count: 10\n" for i in range(1, 5))
    path.write_bytes(data.draw(damaged(text.encode())))
    outcome(lambda: read_table(path))


@cases(120)
@given(data=st.data(), seed=st.integers(0, 9999))
def test_measured_rows(outcome, file, data, seed):
    rng = random.Random(seed)
    rows = [{"arch": str(SPACE.sample(rng)), "top1": rng.random()} for _ in range(4)]
    text = "\n".join(text_of(data.draw(changed(row))) for row in rows)
    file.write_bytes(data.draw(damaged(text.encode())) if data.draw(st.booleans()) else text.encode())
    found = outcome(lambda: read_rows(file, SPACE))
    assert found is None or ((found.top1 >= 0) & (found.top1 <= 1)).all()


@cases(150)
@given(data=st.data())
def test_fronts(outcome, file, data):
    row = {"arch": str(SPACE.smallest), "macs": 10, "params": 5}
    values = {"space": SPACE.to_dict(), "objectives": ["macs"], "limits": {}, "front": [row, row], "search": {}}
    path = file.with_suffix(".json")
    path.write_text(text_of(data.draw(changed(values))))
    outcome(lambda: read_record(path))
    outcome(lambda: read_front(path, SPACE))


@cases(150)
@given(data=st.data())
def test_spaces(outcome, data):
    """What files say of their space."""
    values = data.draw(changed(json.loads(json.dumps(SPACE.to_dict()))))
    found = outcome(lambda: SearchSpace.from_dict(values))
    assert found is None or found.contains(found.largest)
