"""The report: one file that a browser draws without a network, and nothing in it that a name can break out of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from onceforall.cli import main
from onceforall.cost.measured import Measured
from onceforall.cost.population import CostTable, macs_table
from onceforall.cost.predictor import fit_best
from onceforall.cost.predictor_file import save
from onceforall.cost.spread import spread
from onceforall.interop.nnabla.config import Config
from onceforall.latency.table import LatencyTable, Timing, all_parts
from onceforall.report.gather import gather
from onceforall.report.page import figures, write
from onceforall.searching.costs import costs
from onceforall.searching.evolution import Evolution
from onceforall.searching.front import rows
from onceforall.searching.search import Request, search
from onceforall.space import search_space

SPACE = search_space("mobilenet_v3_large_32px")
CHROME = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "</script><script>document.title='broken'</script><img src=x>"


def ofa(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code, *capsys.readouterr()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder: two stages, one of them with a torn journal, and a search with everything that there can be."""
    folder = tmp_path_factory.mktemp("report") / "a run & more"
    for stage, epochs, count in (("K7_E6_D4", 3, 1), ("K357_E6_D4", 2, 3)):
        lines = [{"kind": "train", "epoch": e, "loss": 2 - e / 10} for e in range(epochs)]
        lines += [{"kind": "valid", "epoch": e, "top1": 0.5 + e / 10 + n / 20}
                  for e in range(epochs) for n in range(count)]
        (folder / stage).mkdir(parents=True)
        (folder / stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind')
    made = macs_table(SPACE)
    truth = CostTable(SPACE, made.rest / 1e9 + 0.3, np.sqrt(made.blocks) / 1e5)
    save(truth, folder / "predictor.safetensors", about={})
    whole = [{"arch": str(SPACE.smallest), "ms": 1 + i, "sum_ms": 2 + i, "held_out": i % 2 == 1} for i in range(4)]
    check = {"held_out": 2, "before": {"mape": 30.0, "tau": 1.0}, "after": {"mape": 3.0, "tau": 1.0}}
    table = LatencyTable({(None, name): Timing(0.1) for size in SPACE.resolutions for name in all_parts(SPACE, size)},
                         {"backend": "torch", "device": "a <phone>", "batch": 1, "threads": 1, "subnets": whole,
                          "check": check}, 1.5, -0.5)
    record = search(SPACE, Request(limits={"macs": 40e6}, predictor=folder / "predictor.safetensors", baseline=True,
                                   objectives=("accuracy", "macs"), tables={"<phone>": table},
                                   evolution=Evolution(population=60, generations=10)))
    codes = spread(made, 30, np.random.default_rng(0))
    fitted = fit_best(Measured(SPACE, codes, truth.of(codes)), regressors=["linear"])
    sampled = rows(codes, costs(SPACE, {"<phone>": table}), predicted=fitted.left_out, measured=truth.of(codes))
    front = [replace(row, measured=0.5) if i % 5 == 0 else row for i, row in enumerate(record.front)]
    replace(record, sampled=sampled, fitted=fitted, front=front).write(folder / "search")
    return folder


def test_every_chart_shows_its_numbers(run):
    found = figures(gather(run))
    assert list(found) == ["Pareto front", "Accuracy predictor", "Latency table <phone>", "Training"]
    values = json.loads((run / "search" / "front.json").read_text())
    traces = {trace.name: trace for trace in found["Pareto front"][1].data}
    assert list(traces) == ["random search", "measured to learn from", "front, predicted",
                            "front, on the test pictures"]
    assert traces["front, predicted"].x == pytest.approx([row["costs"]["macs"] / 1e6 for row in values["front"]])
    assert list(traces["front, predicted"].y) == [100 * row["accuracy_predicted"] for row in values["front"]]
    assert len(traces["front, on the test pictures"].x) == sum(i % 5 == 0 for i in range(len(values["front"])))
    for row, text in zip(values["front"], traces["front, predicted"].text, strict=True):
        assert row["arch"].replace("/", "") in re.sub(r"<br>|&nbsp;|/", "", text)
        assert ",".join(map(str, row["foreign"]["nnablanas"]["genotype"])) in text
    buttons = found["Pareto front"][1].layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == ["MACs, million", "latency, ms", "parameters, million", "memory, kB"]
    assert buttons[2].args[0]["x"][2] == pytest.approx([row["costs"]["params"] / 1e6 for row in values["front"]])
    lines = {button.label: [shape["x0"] for shape in button.args[1]["shapes"]] for button in buttons}
    assert lines == {"MACs, million": [40], "latency, ms": [], "parameters, million": [], "memory, kB": []}
    scatter = found["Accuracy predictor"][1].data[0]
    assert list(scatter.x) == [100 * row["accuracy_measured"] for row in values["sampled"]]
    told = {trace.name: list(trace.y) for trace in found["Latency table <phone>"][1].data[:3]}
    assert told == {"sum of parts": [2, 3, 4, 5], "corrected, fitted on": [2.5, 5.5], "corrected, held out": [4, 7]}
    assert "3.0 % after" in found["Latency table <phone>"][0]
    curves = {trace.name: trace for trace in found["Training"][1].data}
    assert [y for y in curves["loss"].y if y is not None] == [2, 1.9, 1.8, 2, 1.9]
    assert [x for x in curves["loss"].x if x is not None] == [1, 2, 3, 4, 5]
    assert [y for y in curves["smallest"].y if y is not None] == pytest.approx([50, 60])
    assert [y for y in curves["largest"].y if y is not None] == pytest.approx([50, 60, 70, 60, 70])


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason="no Chrome or Chromium is installed")
def test_a_browser_draws_it_without_a_network(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "search" / "front.json"
    values = json.loads(path.read_text())
    values["front"][0]["arch"] = HOSTILE
    values["objectives"][1] = "macs"
    path.write_text(json.dumps(values))
    (tmp_path / "run" / "K7_E6_D4").rename(tmp_path / "run" / "<b>stage<")
    code, out, _ = ofa(capsys, "report", tmp_path / "run", "-o", tmp_path / "report.html")
    assert (code, out.strip()) == (0, str(tmp_path / "report.html"))
    done = subprocess.run(
        [CHROME, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom",
         "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'chrome'}",
         f"file://{tmp_path / 'report.html'}"], capture_output=True, text=True, timeout=120, check=True)
    assert "<title>run</title>" in done.stdout
    drawn = re.sub(r"<script.*?</script>", "", done.stdout, flags=re.DOTALL)
    assert drawn.count('class="main-svg"') >= 3
    points = len(re.findall(r'class="point"', drawn))
    assert points >= len(values["front"]) + len(values["sampled"])
    assert "<img src=x>" not in drawn
    assert "top-1, %" in drawn
    assert drawn.count("<tr>") == 2 + len(values["front"])  # with the heads of both tables


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason="no Chrome or Chromium is installed")
def test_pictures(run, tmp_path, capsys):
    code, out, err = ofa(capsys, "report", run, "-o", tmp_path / "r.html", "--png", tmp_path / "png")
    assert code == 0, err
    names = ["pareto_front.png", "accuracy_predictor.png", "latency_table_phone_.png", "training.png"]
    assert out.split() == [str(tmp_path / "r.html"), *(str(tmp_path / "png" / name) for name in names)]
    for name in names:
        data = (tmp_path / "png" / name).read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 20_000


def cells(table: str) -> list[list[str]]:
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in re.findall(r"<tr>(.*?)</tr>", table)]


def tables(run, tmp_path, front) -> tuple[list[list[str]], list[list[str]]]:
    """The front's table and the folded one of a report on a run whose front is `front`."""
    write(replace(gather(run), search={**gather(run).search, "front": front}), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text().split("<h2>Sub-networks of the front</h2>")[1]
    shown, _, folded = page.partition("<details>")
    return cells(shown), cells(folded)


def test_the_table_of_a_long_front_is_folded(run, tmp_path):
    front = gather(run).search["front"]
    assert len(front) > 30
    front = [{**row, "accuracy_measured": 0.5 if i in (7, 8, 9) else None} for i, row in enumerate(front)]
    (heads, *shown), (again, *folded) = tables(run, tmp_path, front)
    assert heads == again
    numbers = [int(row[0]) for row in shown]
    assert {0, 7, 8, 9, len(front) - 1} <= set(numbers)
    assert 20 <= len(numbers) <= 23
    assert sorted(numbers) == numbers
    assert sorted([*numbers, *(int(row[0]) for row in folded)]) == list(range(len(front)))
    whole, none = tables(run, tmp_path, front[:30])
    assert (len(whole), none) == (31, [])


def test_numbers_in_words(run, tmp_path):
    """Whole numbers are whole, and nothing is predicted to be always right."""
    row = {**gather(run).search["front"][0], "accuracy_measured": 1.0,
           "costs": {"macs": 1_533_592.0, "params": 552_858.0, "memory": 18_432.0, "latency_ms": 2.0}}
    front = [{**row, "accuracy_predicted": share} for share in (0.5, 0.9989, 0.99996, 1.0)]
    front[0] = {**front[0], "accuracy_measured": None, "costs": {**row["costs"], "latency_ms": 1.25}}
    shown, _ = tables(run, tmp_path, front)
    assert shown[0][:7] == ["row", "predicted", "measured", "macs", "params", "memory", "latency_ms"]
    costs = ["1,533,592", "552,858", "18,432"]
    assert [line[1:7] for line in shown[1:]] == [
        ["50.00 %", "", *costs, "1.250"], ["99.89 %", "100.00 %", *costs, "2.000"],
        ["above 99.9 %", "100.00 %", *costs, "2.000"], ["above 99.9 %", "100.00 %", *costs, "2.000"]]
    sampled = [{**row, "accuracy_predicted": 1.004}]
    search = {**gather(run).search, "front": front, "sampled": sampled, "baseline": []}
    drawn = figures(replace(gather(run), search=search))
    chart = {trace.name: trace for trace in drawn["Pareto front"][1].data}
    assert list(chart["front, predicted"].y) == pytest.approx([50, 99.89, 99.9, 99.9])
    assert list(chart["front, on the test pictures"].y) == [100, 100, 100]
    assert chart["front, predicted"].text[3].startswith("predicted above 99.9 %, measured 100.00 %<br>")
    assert list(drawn["Accuracy predictor"][1].data[0].y) == [99.9]


def test_augmentation_is_told(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    assert "Training pictures" not in figures(gather(run))["Training"][0]
    for stage, flip in (("K7_E6_D4", False), ("K357_E6_D4", True)):
        config = Config.from_dict({
            "dataloader": {"digits": {"flip": flip}}, "network": {"ofa": {"num_classes": 10}},
            "optimizer": {"train": {"lr": 0.1}}, "hparams": {"task": "fullnet"}})
        config.write(tmp_path / "run" / stage / "config.json")
    words = "Training pictures: random crops of 70 to 100 % of the area, {}, colours kept."
    found = figures(gather(tmp_path / "run"))["Training"][0]
    assert words.format("not mirrored") in found
    assert words.format("mirrored at random") in found
    (tmp_path / "run" / "K7_E6_D4" / "config.json").write_text("{")
    found = figures(gather(tmp_path / "run"))["Training"][0]
    assert found.count("Training pictures") == 1


def test_stages_stand_in_the_order_of_training(run, tmp_path):
    for name in ("K357_E6_D4", "K7_E6_D4", "another"):
        (tmp_path / name).mkdir()
        shutil.copy(run / "K7_E6_D4" / "metrics.jsonl", tmp_path / name)
    assert list(gather(tmp_path).stages) == ["K7_E6_D4", "K357_E6_D4", "another"]


def test_parts_alone(run):
    assert list(figures(gather(run / "K7_E6_D4"))) == ["Training"]
    assert list(figures(gather(run / "search"))) == ["Pareto front", "Accuracy predictor", "Latency table <phone>"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda f: None, "is no folder; give a run's"),
    (lambda f: f.mkdir(), "holds neither metrics.jsonl nor front.json, nor what was exported; train"),
    (lambda f: (f.mkdir(), (f / "front.json").write_text("{")), "front.json: is no front"),
    (lambda f: (f.mkdir(), (f / "metrics.jsonl").write_text("x\n{}\n")), "metrics.jsonl:1: is no record of a run"),
])
def test_nothing_to_show(make, message, tmp_path, capsys):
    make(tmp_path / "run")
    code, _, err = ofa(capsys, "report", tmp_path / "run", "-o", tmp_path / "r.html")
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "r.html").exists()
