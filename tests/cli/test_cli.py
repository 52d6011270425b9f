"""The command line: forms that stay, one line for a mistake, exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from few_blocks import few_blocks

import onceforall
from onceforall.cli import main
from onceforall.cli.source import bytes_of
from onceforall.cost import predictor
from onceforall.errors import UserError
from onceforall.recipes import RECIPES, STAGES, WHOLE, fit, pick
from onceforall.space import CATALOG

ROOT = Path(__file__).resolve().parents[2]
ELASTIC = 2
FIT = ("fit", "--epochs-scale", "0.01", "--seed", "3", "--device", "cpu")
TUTORIAL = "5,2,9,9,6,4,2,1,7,7,8,9,8,3,9,9,8,4,3,1"


def ofa(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


def test_inspect_gives_the_figures(capsys):
    code, out, _ = ofa(capsys, "inspect", "mobilenet_v3_large", "--json")
    about = json.loads(out)
    assert code == 0
    assert list(about) == ["space", "arch", "genotype", "resolution", "params", "macs", "count", "layers"]
    assert (about["params"], about["macs"], about["resolution"]) == (7_664_760, 566_170_656, 224)
    assert about["count"] == 21_758_655_492_572_485_851
    assert sum(layer["macs"] for layer in about["layers"]) == about["macs"]
    code, out, _ = ofa(capsys, "inspect", "mobilenet_v3_large", "--genotype", TUTORIAL, "--json")
    about = json.loads(out)
    assert (about["params"], about["macs"]) == (5_025_272, 265_982_144)
    code, out, _ = ofa(capsys, "inspect", "mobilenet_v3_large", "--arch", about["arch"])
    assert code == 0
    assert "265,982,144 at 224 pixels" in out
    assert TUTORIAL in out


@pytest.mark.parametrize(("arguments", "message"), [
    (["inspect", "mobilenet_v4"], "mobilenet_v4: is neither a run folder nor a weights file"),
    (["inspect", "mobilenet_v3_large", "--arch", "huge"], "arch: 'huge' has no ':'"),
    (["inspect", "mobilenet_v3_large", "--genotype", "1,2,x"], "--genotype: '1,2,x' is not a list of integers"),
    (["inspect", "mobilenet_v3_large", "--genotype", "1,1_0"], "--genotype: '1,1_0' is not a list of integers"),
    (["inspect", "mobilenet_v3_large", "--resolution", "100"], "arch resolution: 100 is not one of"),
    (["inspect", "mobilenet_v3_large", "--arch", "largest", "--genotype", "1"], "--genotype: stands beside --arch"),
    (["inspect"], "Missing argument 'source'"),
    (["train"], "--config-file: is missing"),
    (["train", "-f", "nothing.json"], "nothing.json"),
    (["train", "-f", "{root}/examples/classification/ofa/ofa_imagenet_search_fullnet.json", "-a", "Fairnas"],
     "--algorithm: 'Fairnas' is not known"),
    (["train", "-f", "{root}/examples/classification/ofa/ofa_imagenet_search_fullnet.json", "-t", "int8"],
     "--type-config: 'int8' is not one of float, half, bfloat16"),
    (["fit", "--data", "/nowhere/at/all"], "/nowhere/at/all"),
    (["fit", "--recipe", "best"], "--recipe: 'best' is not a recipe; known: digits"),
    (["fit", "--seed", "-1"], "--seed: -1 is not a number from 0 to 2^32 - 1"),
    (["fit", "--epochs-scale", "0"], "--epochs-scale: 0.0 is not a number above 0"),
    (["inspect", "mobilenet_v3_larg"], "did you mean mobilenet_v3_large?"),
    (["evaluate", "mobilenet_v3_large"], "mobilenet_v3_large: is a search space, which has no weights"),
    (["evaluate", "/nowhere"], "/nowhere: is neither a run folder nor a weights file"),
    (["fit", "--root", "x"], "--root: 'x' stands beside --data digits"),
    (["fit", "--cache", "20X"], "--cache: '20X' is no size; as 20G, 500M, or 0"),
    (["fit", "--cache", "-1G"], "--cache: '-1G' is no size"),
    (["fit", "--device", "tpu"], "--device: 'tpu' is not one of cpu"),
    (["frobnicate"], "No such command 'frobnicate'"),
])
def test_a_mistake_is_one_line_and_exit_code_2(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = ofa(capsys, *(a.format(root=ROOT) for a in arguments))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())  # nothing written


@pytest.mark.parametrize(("text", "count"), [
    ("0", 0), ("0G", 0), ("4096", 4096), ("1K", 1024), ("1.5k", 1536), ("500M", 500 * 1024**2), ("20G", 20 * 1024**3),
    ("2gb", 2 * 1024**3), *((text, None) for text in ("", "G", "B", "nan", "inf", "1e99", "-1", "2T", "1 2", "20GG"))])
def test_a_number_of_bytes(text, count):
    if count is None:
        with pytest.raises(UserError, match=r"--cache: .* is no size; as 20G, 500M, or 0"):
            bytes_of("--cache", text)
    else:
        assert bytes_of("--cache", text) == count


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is empty"), (b"\x89HDF\r\n\x1a\n" + b"x" * 50, "is not a readable HDF5"),
    (b"import os\nprint('weights')\n", "is no weights file"),
])
def test_a_file_that_is_no_weights_is_one_line(capsys, tmp_path, content, message):
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    code, _, err = ofa(capsys, "inspect", str(path))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_any_verb_with_a_line(capsys, monkeypatch, number):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
    monkeypatch.setattr("onceforall.cli.inspect.search_space", lambda _: os.kill(os.getpid(), number))
    code, _, err = ofa(capsys, "inspect", "mobilenet_v3_large")
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert code == 128 + number
    assert err.strip() == f"ofa: stopped by {number.name}"


@pytest.mark.parametrize(("error", "reason"), [
    (MemoryError(), "MemoryError"),
    (MemoryError("Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback\n  x\nMemoryError: 9"),
     "MemoryError: 9"),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                  "to allocate 4 bytes. Error code 12 (Cannot allocate memory)"), "(Cannot allocate memory)"),
    (RuntimeError("could not create a primitive"), "could not create a primitive"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), "CUDA out of memory."),
    (RuntimeError("can't start new thread"), "can't start new thread")])
def test_too_little_memory_is_one_line(capsys, monkeypatch, error, reason):
    code, _, err = failing(capsys, monkeypatch, error)
    assert code == 2
    assert err.startswith("ofa: memory: there is too little (")
    assert reason in err
    assert "fewer workers" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("error", [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"),
    RuntimeError("could not create a primitive descriptor for a convolution"),
    RuntimeError("[enforce fail at inline_container.cc:863] . PytorchStreamWriter failed writing file"),
    RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback\n  x\nRuntimeError: bug")])
def test_what_is_nobodys_mistake_keeps_its_traceback(capsys, monkeypatch, error):
    with pytest.raises(type(error)) as caught:
        failing(capsys, monkeypatch, error)
    assert caught.value is error


def failing(capsys, monkeypatch, error):
    def fail(_: str) -> None:
        raise error
    monkeypatch.setattr("onceforall.cli.inspect.search_space", fail)
    return ofa(capsys, "inspect", "mobilenet_v3_large")


def test_print_schema_and_help(capsys):
    code, out, _ = ofa(capsys, "train", "--print-schema")
    assert code == 0
    assert {"dataloader", "network", "optimizer", "hparams"} <= json.loads(out)["properties"].keys()
    code, out, _ = ofa(capsys, "--help")
    assert code == 0
    for verb in ("fit", "train", "inspect", "evaluate", "extract", "finetune"):
        assert re.search(rf"^  {verb} ", out, re.MULTILINE)


def test_help_does_not_load_torch():
    code = "import sys\nfrom onceforall.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n" \
           "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


@pytest.fixture(scope="module")
def few():
    """`ofa fit` takes few steps, and measures and stores few sub-networks at its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOG, "few_blocks", few_blocks)
        patch.setitem(RECIPES, "digits", replace(RECIPES["digits"], space="few_blocks", width_mult=0.15, batch=128,
                                                 calibration_images=100))
        patch.setattr(predictor, "_EPOCHS", 10)
        patch.setattr(fit, "Request", partial(fit.Request, collect=20, elastic=ELASTIC))
        patch.setattr(pick, "Evolution", partial(pick.Evolution, population=100, generations=50))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, few) -> Path:
    """A whole `ofa fit` with as few epochs as there can be."""
    folder = tmp_path_factory.mktemp("fit") / "run"
    with pytest.raises(SystemExit) as end:
        main([*FIT, "-o", str(folder)])
    assert end.value.code == 0
    return folder


@pytest.mark.slow
def test_fit_from_end_to_end(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert list(summary) == ["stages", "subnets", "tuned", "chosen_on"]
    assert summary["tuned"] == []  # that is what a run from a public network has
    assert [s["name"] for s in summary["stages"]] == [row.name for row in STAGES]
    assert all(list(s) == ["name", "epochs", "seconds", "smallest", "middle", "largest", "curve"]
               for s in summary["stages"])
    seeds = [json.loads((run / row.folder / "config.json").read_text())["stage"]["seed"] for row in STAGES]
    assert [*seeds, json.loads((run / "search" / "front.json").read_text())["seed"]] == 7 * [3]
    assert {p.name for p in run.iterdir() if p.is_dir()} == {row.folder for row in STAGES} | {"subnets", "search"}
    for row in summary["subnets"]:
        assert list(row) == ["arch", "resolution", "macs", "params", "memory", "top1", "path", "foreign"]
        plain = onceforall.load_subnet(run / row["path"])
        assert sum(p.numel() for p in plain.parameters()) == row["params"]
        assert plain(torch.rand(2, 3, row["resolution"], row["resolution"])).shape == (2, 10)
        code, out, _ = ofa(capsys, "evaluate", str(run), "--arch", row["arch"], "--json")
        score = json.loads(out)
        assert code == 0
        assert list(score) == ["arch", "resolution", "top1", "top5", "loss", "images", "classes"]
        assert score["top1"] == pytest.approx(row["top1"], abs=1e-9)  # the same path, the same statistics
        assert score["images"] == 359
    assert [r["macs"] for r in summary["subnets"]] == sorted(r["macs"] for r in summary["subnets"])


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "place", "after"), [
    ({"summary.json": '{"stages": ['}, "summary.json: is no summary of a run", True),
    ({"summary.json": "[]"}, "summary.json: is no summary of a run", False),
    ({"summary.json": None, "K7_E6_D4/metrics.jsonl": "{\nx\n"}, "metrics.jsonl:1: is no record of a run", False),
    ({"summary.json": None, "K7_E6_D4/metrics.jsonl": ""}, "holds no validation of the last epoch; put", False),
])
def test_damage_in_a_finished_run(run, capsys, damage, place, after):
    command = (*FIT, "-o", str(run))
    whole = {name: (run / name).read_bytes() for name in damage}
    summary = json.loads((run / "summary.json").read_text())
    try:
        for name, text in damage.items():
            (run / name).unlink() if text is None else (run / name).write_text(text)
        code, _, err = ofa(capsys, *command)
        assert code == 2
        assert place in err.splitlines()[-1]
        if after:  # the remedy
            (run / "summary.json").unlink()
            assert ofa(capsys, *command)[0] == 0
            again = json.loads((run / "summary.json").read_text())
            assert [row["top1"] for row in again["subnets"]] == [row["top1"] for row in summary["subnets"]]
    finally:
        for name, content in whole.items():
            (run / name).write_bytes(content)


@pytest.mark.slow
def test_a_row_of_the_front_goes_everywhere(run, capsys, tmp_path):
    front = json.loads((run / "search" / "front.json").read_text())["front"]
    number = next(i for i, row in enumerate(front) if row["accuracy_measured"] is not None)
    chosen = ("--front", str(run / "search"), "--row", str(number))
    code, out, _ = ofa(capsys, "inspect", str(run), *chosen, "--json")
    about = json.loads(out)
    assert code == 0
    assert (about["arch"], about["genotype"], about["macs"]) == (
        front[number]["arch"], front[number]["foreign"]["nnablanas"]["genotype"], front[number]["costs"]["macs"])
    _, out, _ = ofa(capsys, "evaluate", str(run), *chosen, "--json")
    assert json.loads(out)["top1"] == front[number]["accuracy_measured"]
    code, _, _ = ofa(capsys, "extract", str(run), *chosen, "-o", str(tmp_path / "subnet"))
    assert code == 0
    assert json.loads((tmp_path / "subnet" / "model.json").read_text())["arch"] == about["arch"]
    for words, message in ((("--front", str(run / "search")), "--front: is given alone"),
                           (("--row", "1"), "--row: is given alone"),
                           ((*chosen, "--arch", "largest"), "--front: stands beside --arch"),
                           (("--front", str(run / "summary.json"), "--row", "0"), "is no front"),
                           (("--front", str(run / "search"), "--row", "-1"), "--row: -1 is not a row of")):
        code, _, err = ofa(capsys, "inspect", str(run), *words)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_search_of_a_run(run, capsys, tmp_path):
    words = ("search", str(run), "--collect", "20", "--refine", "0", "--population", "50", "--generations", "5",
             "--measure", "2", "-o", str(tmp_path))
    code, out, _ = ofa(capsys, *words, "--max-macs", "5M", "--json")
    found = json.loads(out)
    assert code == 0
    assert sum(row["accuracy_measured"] is not None for row in found["front"]) == min(2, len(found["front"]))
    assert all(row["costs"]["macs"] <= 5e6 for row in found["front"])
    assert len((tmp_path / "held_out.jsonl").read_text().splitlines()) == 20
    before = (tmp_path / "held_out.jsonl").read_text()
    code, out, _ = ofa(capsys, *words)  # nothing is measured twice
    assert code == 0
    assert (tmp_path / "held_out.jsonl").read_text() == before
    assert re.search(rf"ofa extract {re.escape(str(run))} --front {re.escape(str(tmp_path))} --row \d+ -o subnet", out)
    code, _, err = ofa(capsys, "search", str(run / "subnets" / "smallest"))
    assert code == 2
    assert "holds a single sub-network: there is nothing to search" in err
    code, _, err = ofa(capsys, "search", str(run / STAGES[-1].folder / "weights.h5"))
    assert code == 2
    assert "-o: is missing" in err


@pytest.mark.slow
def test_one_file_of_the_run_serves_many_budgets(run, capsys, tmp_path):
    net = onceforall.Elastic.load(run)
    front = json.loads((run / "search" / "front.json").read_text())["front"]
    assert {str(row.arch) for row in net.rows} <= {row["arch"] for row in front}
    assert len(net.rows) == min(ELASTIC, len(front))
    arch, file = net.rows[0].arch, str(run / "elastic.safetensors")
    images = torch.rand(2, 3, arch.resolution, arch.resolution)
    for words in ((file,), (str(run),)):  # with the statistics of the file, and with new ones
        code, _, _ = ofa(capsys, "extract", *words, "--arch", str(arch), "-o", str(tmp_path / "subnet"))
        assert code == 0
        assert torch.equal(onceforall.load_subnet(tmp_path / "subnet")(images), net.use(arch)(images))
    scores = [ofa(capsys, "evaluate", source, "--arch", "smallest", "--json")[1] for source in (file, str(run))]
    assert scores[0] == scores[1]
    code, out, _ = ofa(capsys, "export", str(run), "--to", "elastic", "--rows", "3", "--json")
    assert code == 0
    assert len(json.loads(out)) == len(onceforall.Elastic.load(run).rows) == min(3, len(front))
    for words, message in (((str(run), "--to", "elastic", "--int8"), "--to: 'elastic' stands beside other targets"),
                           ((str(run), "--to", "elastic", "--front", "nowhere"), "nowhere: cannot be read"),
                           ((str(run), "--to", "onnx", "--front", "x"), "--front: has no effect on onnx"),
                           ((str(tmp_path / "subnet"), "--to", "elastic"), "holds a single sub-network")):
        code, _, err = ofa(capsys, "export", *words)
        assert code == 2
        assert message in err
        assert err.count("\n") == 1


@pytest.mark.slow
def test_fit_again_says_it_is_done_and_prints_the_same_table(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in run.glob("*/weights.h5")}
    code, out, err = ofa(capsys, *FIT, "-o", str(run))
    assert code == 0
    assert "expand_phase2" in out
    assert "ofa evaluate" in out
    assert "is finished: nothing to do" in err
    assert before == {p: p.stat().st_mtime_ns for p in run.glob("*/weights.h5")}
    for words, key in (("--epochs-scale", "0.5"), "epochs"), (("--seed", "4"), "seed"):
        code, _, err = ofa(capsys, *FIT, *words, "-o", str(run))
        assert code == 2
        assert f"holds a run of another configuration: stage.{key} is " in err
    shutil.copytree(run / STAGES[0].folder, run / WHOLE.folder)
    code, _, err = ofa(capsys, *FIT, "-o", str(run))
    shutil.rmtree(run / WHOLE.folder)
    assert code == 2
    assert f"{run}: holds whole, a stage of another recipe; go on with that one's --recipe, or take another" in err


@pytest.mark.parametrize("words", [(), ("--debug",)])
def test_a_worker_that_dies_in_the_middle_of_something_else(words, capsys, monkeypatch):
    def dying(*_, **__):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")

    monkeypatch.setattr("onceforall.cli.app.app", dying)
    if words:
        with pytest.raises(RuntimeError, match="killed by signal"):
            main(["fit", *words])
        return
    code, _, err = ofa(capsys, "fit")
    assert code == 2
    assert err == ("ofa: data.workers: DataLoader worker (pid 7) is killed by signal: Killed; use fewer workers, 0 to "
                   "load in this process\n")


@pytest.mark.slow
def test_other_pictures_are_normalised_as_the_runs(run, tmp_path):
    from PIL import Image

    from onceforall.cli.pictures import Asked, scored
    from onceforall.cli.source import Which
    from onceforall.data import DataSpec, load_data
    for i in range(20):
        path = tmp_path / "train" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (200, 10 * i, 0)).save(path)
    found = scored(Asked(str(run), None, str(tmp_path), None, "cpu", None, None), Which("smallest", None, None))
    assert found.data.mean == load_data(DataSpec("digits")).mean
    assert found.data.classes == tuple("0123456789")  # the network's, of which two have pictures


@pytest.mark.slow
def test_extract_is_loaded_with_one_line(run, capsys, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    code, out, err = ofa(capsys, "extract", str(run), "-o", str(blocked / "net"))
    assert code == 2
    assert "cannot be made" in err
    code, out, _ = ofa(capsys, "extract", str(run), "--arch", "smallest@16", "-o", str(tmp_path / "net"))
    assert code == 0
    assert "onceforall.load_subnet" in out
    plain = onceforall.load_subnet(tmp_path / "net")
    net = onceforall.load(run)
    about = json.loads((tmp_path / "net" / "model.json").read_text())
    assert onceforall.Arch.parse(net.space, about["arch"]) == net.space.smallest.at(16)
    assert about["classes"] == [str(i) for i in range(10)]
    assert torch.equal(plain.head.classifier.weight, net.head.classifier.weight)
    code, out, _ = ofa(capsys, "evaluate", str(tmp_path / "net"), "--data", "digits", "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["top1"] == about["accuracy"]["top1"]
    code, out, _ = ofa(capsys, "inspect", str(tmp_path / "net"), "--json")
    assert (json.loads(out)["arch"], json.loads(out)["macs"]) == (about["arch"], about["macs"])
    code, _, err = ofa(capsys, "inspect", str(tmp_path / "net"), "--arch", "largest")
    assert code == 2
    assert "there is only 16:k3e3" in err


@pytest.mark.slow
def test_the_dumped_configurations_give_the_same_training(run, capsys, tmp_path):
    """The first two stages, run one by one from their JSON files, end with the bits of `ofa fit`."""
    code, out, _ = ofa(capsys, *FIT, "--dump-configs", str(tmp_path / "json"),
                       "-o", str(tmp_path / "again"))
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 6
    for line, row in list(zip(lines, STAGES, strict=True))[:2]:
        code, _, _ = ofa(capsys, *shlex.split(line)[1:], "-c", "cpu")
        assert code == 0
        from onceforall.interop.nnabla.weights import read
        one, two = (read(folder / row.folder / "weights.h5").arrays for folder in (run, tmp_path / "again"))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.slow
def test_fit_on_a_folder_of_pictures(few, capsys, tmp_path):
    """Two colours, two classes, one of them with a name of several words; the recipe follows from the size."""
    from PIL import Image
    for split, count in (("train", 40), ("val", 10)):
        for i in range(count):
            path = tmp_path / "pictures" / split / ("rather red", "blue")[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 30), [(150 + i, 40, i), (i, 40, 150 + i)][i % 2]).save(path)
    run = tmp_path / "run"
    code, out, _ = ofa(capsys, "fit", "--data", str(tmp_path / "pictures"), "--epochs-scale", "0.01", "--device", "cpu",
                       "-o", str(run))
    assert code == 0
    assert "ofa export" in out
    summary = json.loads((run / "summary.json").read_text())
    assert [row["name"] for row in summary["stages"]] == ["whole"]
    about = json.loads((run / summary["subnets"][0]["path"] / "model.json").read_text())
    assert about["classes"] == ["blue", "rather red"]
    assert about["accuracy"]["images"] == 10
    assert about["space"]["name"] == "mobilenet_v3_large_32px?width_mult=0.5"


def test_every_recipes_stages_are_linked(tmp_path):
    from onceforall.data import DataSpec
    from onceforall.interop.nnabla.settings import config_of, training_of
    from onceforall.space import search_space
    from onceforall.training.engine.places import without_paths
    for preset in RECIPES.values():
        spec = DataSpec(preset.data, root=None if preset.data == "digits" else "pictures", augment=preset.augment)
        made = list(preset.recipe(spec, num_classes=10).trainings(tmp_path).values())
        spaces = [training.part for training in made]
        assert all(b.covers(a) for a, b in pairwise(spaces))
        assert len(made) == (1 if preset.name.endswith("-cpu") else 6)
        before = [str(tmp_path / stage.folder / "weights.safetensors") for stage in preset.stages[:-1]]
        assert [training.network.weights for training in made] == [None, *before]
        assert spaces[-1] == search_space(preset.space, width_mult=preset.width_mult).restrict(
            resolutions=spaces[-1].resolutions)
        assert made[0].teacher is None
        assert [training.teacher is not None for training in made[1:]] == [
            way == "shrinking" for way in preset.strategy[1:]]
        for training in made:  # in NNablaNAS's form, and back
            assert without_paths(training_of(config_of(training), search=True)) == without_paths(training)


@pytest.mark.slow
def test_a_finished_run_is_shipped(run, capsys, tmp_path):
    pytest.importorskip("onnxruntime")
    shutil.copytree(run, tmp_path / "run")
    code, out, _ = ofa(capsys, *FIT, "-o", str(tmp_path / "run"), "--ship", "onnx")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert code == 0
    assert sorted(row["subnet"] for row in summary["shipped"]) == sorted(
        Path(row["path"]).name for row in summary["subnets"])
    for row in summary["shipped"]:
        assert (tmp_path / "run" / "subnets" / row["subnet"] / "model.onnx").stat().st_size == row["size"]
        assert row["kept"]
        assert row["top1"] == next(was["top1"] for was in summary["subnets"] if was["arch"] == row["arch"])
    assert "As shipped, by time" in out
    code, _, err = ofa(capsys, *FIT, "-o", str(tmp_path / "run"), "--ship", "onnx:int4")
    assert (code, err) == (2, "ofa: --ship: 'int4' in 'onnx:int4' is not one of fp32, fp16, int8; as onnx:int8\n")
