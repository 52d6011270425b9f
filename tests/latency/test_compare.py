"""Latency tables beside each other: the order of sub-networks, the parts that differ, and tables that say nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from onceforall.cli import main
from onceforall.cost.counts import layer_macs
from onceforall.errors import UserError
from onceforall.latency.compare import SUBNETS, compare, doubts
from onceforall.latency.table import LatencyTable, Timing, all_parts, write_table
from onceforall.searching.evolution import Evolution
from onceforall.searching.search import Request, search
from onceforall.space import BlockPlan, Layer, search_space
from onceforall.space.parts import Pool

SPACE = search_space("mobilenet_v3_large_32px").restrict(resolutions=(16, 32))


def cost(part) -> float:
    """Milliseconds by MACs, and something for each layer."""
    layers = part.layers if isinstance(part, BlockPlan) else () if isinstance(part, Pool) else (part,)
    return 0.01 + sum(1e-6 * layer_macs(layer) for layer in layers if isinstance(layer, Layer))


def table(change=lambda name, ms: ms, *, spread: float = 0.001, n: int = 100, **about) -> LatencyTable:
    found = {name: part for size in SPACE.resolutions for name, part in all_parts(SPACE, size).items()}
    return LatencyTable({(None, name): Timing(change(name, cost(part)), spread, n) for name, part in found.items()},
                        {"device": "x", "space": SPACE.to_dict(), "classes": 1000, **about})


def test_equal_devices_and_one_that_is_slow_at_large_kernels():
    slow = table(lambda name, ms: ms * (9 if "kernel:7" in name else 2))
    seen = compare({"a": table(), "twice": table(lambda name, ms: 2 * ms), "slow": slow}, SPACE)
    assert {name: len(ms) for name, ms in seen.ms.items()} == dict.fromkeys(("a", "twice", "slow"), SUBNETS)
    assert seen.ms["twice"] == pytest.approx([2 * ms for ms in seen.ms["a"]])
    assert seen.taus[0][:2] == pytest.approx([1, 1])
    assert seen.taus[0][2] == seen.taus[2][0] < 0.9
    assert [row.factor for row in seen.others["twice"]] == pytest.approx([1.0] * len(seen.others["twice"]))
    assert list(seen.others) == ["twice", "slow"]
    first, last = seen.others["slow"][0], seen.others["slow"][-1]
    assert "kernel:7" in first.part
    assert (first.factor, last.factor) == (pytest.approx(4.5), pytest.approx(1))


def test_resolutions_that_all_tables_have():
    small = SPACE.restrict(resolutions=(16,))
    part = LatencyTable({key: timing for key, timing in table().timings.items() if key[1] in all_parts(small, 16)})
    assert compare({"a": part, "b": table()}, SPACE) == compare({"a": part, "b": part}, small)
    assert doubts(part, SPACE) == []
    with pytest.raises(UserError, match="b: has no .* it is not of"):
        compare({"a": table(), "b": LatencyTable({(None, "x"): Timing(1.0)})}, SPACE)


@pytest.mark.parametrize(("bad", "message"), [
    (table(lambda name, ms: float(round(ms))), "took no time by its clock"),
    (table(spread=30.0, n=5), "sub-networks differ by .* ms, and a sum is known to"),
    (table(check={"after": {"tau": 0.2, "mape": 30.0}}), "with a Kendall's tau of 0.20"),
])
def test_tables_that_say_little(bad, message):
    assert doubts(table(), SPACE) == []
    (text,) = doubts(bad, SPACE)
    assert re.search(message, text)


def test_a_search_says_so():
    heard = []
    request = Request(("latency_ms", "params"), tables={"phone": table(spread=30.0, n=5)},
                      evolution=Evolution(20, 2, seed=0), measure=0)
    search(SPACE, request, num_classes=1000, listener=heard.append)
    (note,) = (record["text"] for record in heard if record["kind"] == "note")
    assert note.startswith("the latency table phone says little: sub-networks differ by")
    heard.clear()
    search(SPACE, replace(request, tables={"phone": table()}), num_classes=1000, listener=heard.append)
    assert not [record for record in heard if record["kind"] == "note"]


def test_the_command(capsys, tmp_path):
    write_table(table(threads=1, backend="onnxruntime"), tmp_path / "cpu.json")
    write_table(table(lambda name, ms: ms * (9 if "kernel:7" in name else 2), spread=30.0, n=5), tmp_path / "b.csv")
    words = ["latency", str(tmp_path / "cpu.json"), f"phone={tmp_path / 'b.csv'}"]
    with pytest.raises(SystemExit) as end:
        main(words)
    out = capsys.readouterr().out
    assert end.value.code == 0
    assert "tau, cpu" in out
    assert "tau, phone" in out
    assert "4.50" in out
    assert "phone says little: sub-networks differ by" in out
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    values = json.loads(capsys.readouterr().out)
    assert end.value.code == 0
    assert list(values["doubts"]) == ["cpu", "phone"]
    assert values["doubts"]["cpu"] == []
    with pytest.raises(SystemExit) as end:
        main(["latency", str(tmp_path / "b.csv")])
    assert end.value.code == 2
    assert "--space: is missing, and the tables do not say it" in capsys.readouterr().err
