"""One file, many budgets: sub-networks that share weights answer as the extracted ones, switch, and are proved."""

from __future__ import annotations

import json
import random
import runpy
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import onceforall
from onceforall.cost import macs
from onceforall.deploy import elastic_write
from onceforall.deploy.elastic import Elastic
from onceforall.deploy.elastic_write import spread_rows, write_elastic
from onceforall.errors import UserError
from onceforall.interop.convert import convert
from onceforall.nn import Supernet, extract
from onceforall.searching.front import Row
from onceforall.weights.nets import Trained, open_weights, save

ARCHS = 5


@pytest.fixture(scope="module")
def rows(supernet) -> list[Row]:
    """Descending in MACs, so that the file has to sort; of both resolutions and all kernels."""
    space, rng = supernet.space, random.Random(5)
    archs = [space.smallest, space.largest.at(12), space.sample(rng).at(12), space.sample(rng).at(16), space.largest]
    costs = [{"macs": macs(space, arch), "latency_ms.phone": 1.5 * i} for i, arch in enumerate(archs)]
    return [Row(arch, cost, 0.5 + i / 100, 0.9 - i / 100) for i, (arch, cost) in enumerate(zip(archs, costs,
                                                                                            strict=True))][::-1]


@pytest.fixture(scope="module")
def file(supernet, rows, evaluator, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "elastic.safetensors"
    write_elastic(supernet, rows, evaluator, path)
    return path


@pytest.fixture
def net(file) -> Elastic:
    return Elastic.load(file)


@pytest.fixture(scope="module")
def extracted(supernet, rows, evaluator):
    return {row.arch: evaluator.subnet(supernet, row.arch) for row in rows}


def images(resolution: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(count))


def test_every_stored_subnet_answers_as_the_extracted_one(net, extracted):
    assert {arch.resolution for arch in extracted} == {12, 16}
    for arch, plain in extracted.items():
        for count in (1, 3):
            batch = images(arch.resolution, count)
            assert torch.equal(net.use(arch)(batch), plain(batch))
            assert torch.equal(net(batch), plain(batch))


@pytest.mark.slow
def test_an_extracted_copy_is_the_recalibrated_net(net, extracted):
    for arch, plain in extracted.items():
        copy = net.extracted(str(arch))
        assert copy.state_dict().keys() == plain.state_dict().keys()
        for name, tensor in copy.state_dict().items():
            assert torch.equal(tensor, plain.state_dict()[name]), name
        assert not copy.training
        batch = images(arch.resolution)
        assert torch.equal(copy(batch), plain(batch))


def test_a_changed_copy_changes_nothing_else(net, extracted):
    arch = net.rows[0].arch
    with torch.no_grad():
        for tensor in net.extracted(arch).state_dict().values():
            tensor.zero_()
    assert torch.equal(net.use(arch)(images(arch.resolution)), extracted[arch](images(arch.resolution)))


def test_rows_come_back_by_measured_accuracy(net, rows):
    assert net.rows == tuple(sorted(rows, key=lambda row: row.measured))
    assert net.arch == net.rows[-1].arch
    assert {type(row.costs["macs"]) for row in net.rows} == {int}


@pytest.mark.parametrize("change", [
    {"measured": None},  # predicted accuracies are known of all
    {"measured": None, "predicted": None},  # then the first cost
])
def test_other_orders(net, change):
    first = replace(net.rows[0], **change)
    again = replace(net, rows=(first, *net.rows[1:]))
    keys = [row.predicted if first.predicted else row.costs["macs"] for row in again.rows]
    assert keys == sorted(keys)
    assert keys != [row.predicted if first.predicted else row.costs["macs"] for row in net.rows]


def test_within_takes_the_most_accurate(net):
    for row in net.rows:
        assert net.choose(**row.costs).measured >= row.measured
    best = net.rows[-1]
    assert net.within() is net.use(best.arch)
    cheaper = [row for row in net.rows if row.costs["macs"] < best.costs["macs"]]
    limit = max(row.costs["macs"] for row in cheaper) if cheaper else best.costs["macs"]
    found = net.within(macs=limit)
    assert found is net.use(max((r for r in net.rows if r.costs["macs"] <= limit), key=lambda r: r.measured).arch)


def test_what_cannot_be_chosen_is_said(net, supernet):
    before = net.arch
    least = min(row.costs["macs"] for row in net.rows)
    with pytest.raises(UserError, match=f"no sub-network stored in .* is within; the smallest there is: macs {least}"):
        net.within(macs=10)
    with pytest.raises(UserError, match="energy: is not a cost in .*; its costs are macs, latency_ms.phone"):
        net.within(energy=1)
    with pytest.raises(UserError, match="is not one of the 5 sub-networks stored in .*; `ofa extract RUN"):
        net.use(supernet.space.middle)
    with pytest.raises(UserError, match="has no ':' after the resolution"):
        net.use("nonsense")
    assert net.arch == before


def test_costs_measured_here(net):
    times = {row.arch: float(i) for i, row in enumerate(reversed(net.rows))}
    net.use(net.rows[1].arch)
    timed = net.with_costs("latency_ms", times)
    assert timed.arch == net.rows[1].arch
    assert timed.choose(latency_ms=1).costs["latency_ms"] == 0 or timed.choose(latency_ms=1).arch in times
    assert timed.use(net.rows[0].arch) is net.use(net.rows[0].arch)
    assert "latency_ms" not in net.rows[0].costs
    with pytest.raises(UserError, match="latency_ms: has no value for 4 of 5 stored sub-networks"):
        net.with_costs("latency_ms", {net.rows[0].arch: 1.0})


def test_the_file_opens_as_its_supernet(file, supernet):
    opened = open_weights(file)
    assert isinstance(opened.net, Supernet)
    assert all(torch.equal(tensor, opened.net.state_dict()[name]) for name, tensor in supernet.state_dict().items())
    arch = supernet.space.middle
    opened.net.to(memory_format=torch.channels_last)
    assert torch.equal(opened.net(images(16), arch), supernet(images(16), arch))


def test_conversion_takes_the_supernet_alone(file, supernet, tmp_path):
    for name in ("weights.h5", "plain.safetensors"):
        convert(file, tmp_path / name)
        state = open_weights(tmp_path / name).net.state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in supernet.state_dict().items())
    with pytest.raises(UserError, match="has no sub-networks"):
        Elastic.load(tmp_path / "plain.safetensors")


def test_pictures_are_made_ready_as_for_the_run(net, digits):
    assert net.classes == tuple(digits.classes)
    ready = net.preprocessing(net.rows[0].arch)
    assert (ready.mean, ready.std) == (digits.mean, digits.std)
    assert ready.crop == net.rows[0].arch.resolution


def test_a_run_folder_stands_for_its_file(file):
    assert onceforall.Elastic.load(str(file.parent)).source == file


def test_memory_is_the_largest_nets(net, supernet, extracted):
    """Beside the supernet's tensors there are statistics and transformed kernels, and no second copy of a weight."""
    def size(nets) -> int:
        held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for n in nets
                for t in n.state_dict().values()}
        return sum(held.values())

    nets = [net.use(row.arch) for row in net.rows]
    statistics = sum(2 * 4 * m.num_features + 8 for n in nets for m in n.modules()
                     if isinstance(m, torch.nn.BatchNorm2d))
    kernels = sum(p.numel() * 4 for n in nets for name, p in n.named_parameters() if "depthwise" in name)
    assert size([net.supernet, *nets]) <= size([supernet]) + statistics + kernels
    assert size([net.supernet, *nets]) < 0.6 * size(extracted.values())


def test_threads_hold_different_subnets(net, extracted):
    wrong = []

    def serve(arch) -> None:
        held, batch = net.use(arch), images(arch.resolution)
        expected = extracted[arch](batch)
        for _ in range(30):
            with torch.inference_mode():
                if not torch.equal(held(batch), expected):
                    wrong.append(arch)

    threads = [threading.Thread(target=serve, args=(row.arch,)) for row in (net.rows[0], net.rows[-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_subnet_that_is_held_stays_what_it_is(net, extracted):
    first, second = net.rows[0].arch, net.rows[-1].arch
    held = net.use(first)
    net.use(second)
    net(images(second.resolution))
    assert torch.equal(held(images(first.resolution)), extracted[first](images(first.resolution)))


def test_a_subnet_that_is_moved_leaves_the_others(net, extracted):
    arch = net.rows[0].arch
    net.use(arch).double()
    for row in net.rows[1:]:
        assert torch.equal(net.use(row.arch)(images(row.arch.resolution)), extracted[row.arch](
            images(row.arch.resolution)))
    assert net.use(arch)(images(arch.resolution).double()).dtype == torch.float64


@pytest.mark.slow
def test_loading_does_without_what_only_a_search_needs():
    code = ("import sys; from onceforall import Elastic; "
            "sys.exit(bool({'scipy', 'sklearn', 'moocore', 'plotly'} & sys.modules.keys()))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_failed_proof_leaves_the_file_aside(supernet, rows, evaluator, tmp_path, monkeypatch):
    true = elastic_write.statistics_of
    monkeypatch.setattr(elastic_write, "statistics_of", lambda net: true(net) * 1.001)
    path = tmp_path / "elastic.safetensors"
    path.write_bytes(b"of before")
    with pytest.raises(UserError, match="answers otherwise in the file .* kept as .*elastic.safetensors.unproved"):
        write_elastic(supernet, rows[:2], evaluator, path)
    assert path.read_bytes() == b"of before"
    assert (tmp_path / "elastic.safetensors.unproved").exists()


def test_writing_reports_and_needs_rows(supernet, rows, evaluator, tmp_path):
    heard = []
    write_elastic(supernet, [rows[0], rows[0]], evaluator, tmp_path / "e.safetensors", listener=heard.append)
    assert [(r["done"], r["of"]) for r in heard] == [(0, 1), (1, 1)]
    assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]
    with pytest.raises(UserError, match="no sub-networks are given"):
        write_elastic(supernet, [], evaluator, tmp_path / "f.safetensors")


def test_the_example_serves_pictures(file, tmp_path, monkeypatch, capsys):
    path = tmp_path / "one.png"
    Image.new("RGB", (30, 20), "red").save(path)
    script = Path(__file__).resolve().parents[2] / "examples" / "elastic_inference.py"
    threads = str(torch.get_num_threads())
    monkeypatch.setattr("sys.argv", [str(script), str(file.parent), str(path), "--requests", "3", "--threads", threads])
    runpy.run_path(str(script), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("one.png: deadline ") and ", by 1" in line for line in lines)


@pytest.mark.parametrize("predicted", [True, False])
def test_a_long_front_is_thinned(rows, predicted):
    given = rows if predicted else [replace(row, predicted=None) for row in rows]
    found = spread_rows(given, ("accuracy", "macs"), 3)
    assert len(found) == 3 and set(map(id, found)) <= set(map(id, given))
    assert len(spread_rows(given, ("macs",), 99)) == ARCHS


def test_what_is_not_there(tmp_path, supernet):
    for source in (tmp_path, tmp_path / "no.safetensors"):
        with pytest.raises(UserError, match="is not there; `ofa export RUN --to elastic` writes one"):
            Elastic.load(source)


def test_other_files_are_refused(tmp_path, supernet, weights):
    save(Trained(supernet, supernet.space), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="has no sub-networks stored beside the weights"):
        Elastic.load(tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        Elastic.load(weights)
    save(Trained(extract(supernet, supernet.space.smallest), supernet.space, supernet.space.smallest),
         tmp_path / "sub.safetensors")
    with pytest.raises(UserError, match="has no sub-networks stored beside the weights"):
        Elastic.load(tmp_path / "sub.safetensors")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(file, tmp_path, share):
    whole = file.read_bytes()
    path = tmp_path / "elastic.safetensors"
    path.write_bytes(whole[:int(len(whole) * share)])
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        Elastic.load(path)


def changed(file, path, change):
    """A copy of the file, with `change(values, arrays)` applied to its entry and its arrays."""
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    arrays, values = load_file(file), json.loads(header["elastic"])
    change(values, arrays)
    save_file(arrays, path, {**header, "elastic": json.dumps(values)})
    return path


def test_old_statistics_are_named(file, tmp_path, caplog):
    """Files that do not say how BN was recalibrated hold statistics of pictures in the order of the data set."""
    Elastic.load(file)
    assert not caplog.records
    old = changed(file, tmp_path / "elastic.safetensors", lambda values, arrays: values.pop("calibration"))
    assert len(Elastic.load(old).rows) == 5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "its BN statistics are old" in caplog.text
    assert "ofa export RUN --to elastic" in caplog.text


def damage_row(**change):
    def of(values, arrays):
        values["rows"][0].update(change)
    return of


def damage_statistics(change):
    def of(values, arrays):
        arrays["statistics.0"] = change(arrays["statistics.0"])
    return of


@pytest.mark.parametrize(("damage", "message"), [
    (lambda values, arrays: values.clear(), "has a damaged `elastic` entry (rows: Field required)"),
    (lambda values, arrays: values.update(rows=[]), "has a damaged `elastic` entry (rows: "),
    (lambda values, arrays: values.update(format=2), "has a damaged `elastic` entry (format: "),
    (lambda values, arrays: values["preprocessing"].update(std=[0, 1, 1]), "(preprocessing.std.0: "),
    (lambda values, arrays: values["rows"].pop(), "statistics of 5 sub-networks for 4 rows"),
    (lambda values, arrays: values["rows"].append(values["rows"][0]), "its rows repeat a sub-network"),
    (lambda values, arrays: arrays.pop("statistics.1"), "statistics of 4 sub-networks for 5 rows"),
    (lambda values, arrays: arrays.update({"statistics.x": arrays.pop("statistics.1")}), "statistics of 5 sub-"),
    (lambda values, arrays: arrays.update(other=torch.zeros(1)), "has 1 arrays too many, first other"),
    (lambda values, arrays: arrays.pop("stem.conv.weight"), "lacks 1 of"),
    (damage_row(arch="99:k3e3"), "row 0: arch: "),
    (damage_row(costs={}), "have different costs"),
    (damage_row(costs={"macs": float("nan")}), "has a damaged `elastic` entry (rows.0.costs.macs: "),
    (damage_row(batches=-1), "has a damaged `elastic` entry (rows.0.batches: "),
    (damage_statistics(lambda a: a[:, 1:].contiguous()), "statistics.0: is damaged"),
    (damage_statistics(lambda a: -a), "statistics.0: is damaged"),
    (damage_statistics(lambda a: a * torch.nan), "statistics.0: is damaged"),
    (damage_statistics(lambda a: a[0].contiguous()), "statistics.0: is damaged"),
])
def test_damage_is_named(file, tmp_path, damage, message):
    path = changed(file, tmp_path / "elastic.safetensors", damage)
    with pytest.raises(UserError) as error:
        Elastic.load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
