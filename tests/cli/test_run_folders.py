"""A run's folder, renamed and seen from elsewhere; the commands that `fit` prints at its end; names and wrong files."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image

from onceforall.cli import main
from onceforall.cli.app import app
from onceforall.cli.progress import closing_table
from onceforall.deploy import classify
from onceforall.deploy.description import read_description
from onceforall.recipes import RECIPES, fit, pick
from onceforall.recipes.preset import STAGES, Preset
from onceforall.training.evaluate import Evaluator
from onceforall.training.setup import Options
from onceforall.training.stage import Training
from onceforall.weights.nets import weights_file

TINY = Preset("tiny", "folder", "mobilenet_v3_large_32px", 0.15, (12, 16), 16, batch=8, epochs=(1, 1), lr=(0.01, 0.01),
              warmup=(0, 0), subnets=(1, 1), stages=STAGES[:2], calibration_images=20)
CHINESE = "红"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"


def ofa(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(str(end.value.code)), out.out, out.err


@pytest.fixture(scope="module")
def monkey() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "tiny", TINY)
        patch.setattr(fit, "pick", _pick)
        yield patch


def _pick(request: fit.Request, stages: Mapping[str, Training], run: Path, options: Options) -> dict[str, Any]:
    """Two sub-networks without a search."""
    last, training = list(stages.items())[-1]
    weights = weights_file(run / last)
    net = pick.load_supernet(weights)
    evaluator = Evaluator(pick.data_of(training.data), options.compute, calibration_images=20)
    return {"subnets": [pick._save(evaluator, net, arch, run / "subnets" / name, source=weights)
                        for name, arch in (("smallest", net.space.smallest), ("largest", net.space.largest))]}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, monkey: pytest.MonkeyPatch) -> Path:
    """A working directory with 40 pictures in `d`, and in `runs/x` a run that was stopped in its second stage."""
    home = tmp_path_factory.mktemp("home")
    torch.manual_seed(0)
    for split, count in (("train", 32), ("val", 8)):
        for i in range(count):
            path = home / "d" / split / (CHINESE, "b c")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (16, 16), (200 - 100 * (i % 2), i, 5 * i)).save(path)
    (home / "elsewhere").mkdir()
    monkey.chdir(home)

    def stop(record: Any) -> None:
        if record["kind"] == "step" and "K357" in stages[-1]:
            raise KeyboardInterrupt
        stages.append(record.get("output", stages[-1]))
    stages = [""]
    with pytest.raises(KeyboardInterrupt):
        fit.fit(fit.Request("d", recipe="tiny"), Path("runs/x"), Options(listener=stop))
    return home


@pytest.fixture(scope="module")
def run(home: Path, monkey: pytest.MonkeyPatch) -> Path:
    """The run, renamed and brought to its end from another folder."""
    run = home / "runs" / "mine & co"
    (home / "runs" / "x").rename(run)
    monkey.chdir(home / "elsewhere")
    heard: list[str] = []
    fit.fit(fit.Request("../d/", recipe="tiny"), Path("../runs/mine & co"), Options(
        listener=lambda r: heard.append(r["output"]) if r["kind"] == "stage" else None))
    assert heard == ["../runs/mine & co/K357_E6_D4"]  # the first stage is finished
    return run


def test_a_checkpoint_of_a_run_that_has_not_ended(home, capsys):
    if not (home / "runs" / "x").exists():
        pytest.skip("the run went on already")
    checkpoint = home / "runs/x/K357_E6_D4/checkpoint.safetensors"
    code, _, err = ofa(capsys, "evaluate", checkpoint)
    assert code == 2
    assert "is a checkpoint, from which a stopped run goes on, not a weights file; the run has not ended" in err


@pytest.mark.slow
def test_a_renamed_run_is_found_finished(run, home, monkeypatch, caplog):
    monkeypatch.chdir(home)
    summary = fit.fit(fit.Request("./d", recipe="tiny"), Path("runs/mine & co"), Options())
    assert "is finished: nothing to do" in caplog.text
    assert [row["path"] for row in summary["subnets"]] == ["subnets/smallest", "subnets/largest"]


@pytest.mark.slow
@pytest.mark.parametrize("source", [".", "K357_E6_D4", "subnets/largest"])
def test_it_evaluates_from_any_folder(run, home, source, monkeypatch, capsys):
    scores = []
    for folder in (home, home / "elsewhere", run):
        monkeypatch.chdir(folder)
        code, out, err = ofa(capsys, "evaluate", run / source, "--json")
        assert code == 0, err
        scores.append(json.loads(out))
    assert scores[0] == scores[1] == scores[2] and scores[0]["images"] == 8


def test_model_json_has_an_absolute_root(run, home):
    assert read_description(run / "subnets" / "largest").data == {
        "name": "folder", "root": f"{home}/elsewhere/../d", "train_portion": 0.9, "strict": False}


def test_a_folder_that_is_not_there_is_named_in_full(run, home, monkeypatch, capsys):
    monkeypatch.chdir(home / "elsewhere")
    code, _, err = ofa(capsys, "evaluate", run, "--data", "d")
    assert (code, err.count("\n")) == (2, 1)
    assert f"data.root: d is not a folder ({home}/elsewhere/d); " in err


def test_the_commands_at_the_end_can_be_copied(run, home, monkeypatch, capsys):
    """Each is parsed as a shell would; the quick ones run."""
    monkeypatch.chdir(home)
    closing_table(json.loads((run / "summary.json").read_text()), Path("runs/mine & co"))
    lines = capsys.readouterr().out.partition("\nNext:\n")[2].split("\n")
    commands = [shlex.split(line) for line in lines if line]
    assert [words[:2] for words in commands] == [["ofa", "inspect"], ["ofa", "evaluate"], ["ofa", "export"],
                                                 ["ofa", "search"], ["tensorboard", "--logdir"]]
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for program, verb, *words in commands:
        folder = Path(words[0])
        assert folder.is_dir()
        if program == "ofa":
            known[verb].make_context(verb, list(words))
        if verb in ("inspect", "evaluate"):
            code, _, err = ofa(capsys, verb, *words)
            assert (code, folder) == (0, Path("runs/mine & co/subnets/largest")), err


def test_the_summary_of_an_earlier_version(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    for row in summary["subnets"]:
        row["path"] = f"runs/x/{row['path']}"
    closing_table(summary, run)
    out = capsys.readouterr().out
    assert f"ofa inspect '{run}/subnets/largest'" in out and "runs/x" not in out


def test_the_dumped_commands_can_be_copied(home, tmp_path, monkeypatch, capsys, monkey):
    monkeypatch.chdir(home)
    code, out, err = ofa(capsys, "fit", "--data", "d", "--recipe", "tiny", "-o", "it's mine", "--device", "cpu",
                         "--dump-configs", tmp_path / "a b")
    assert code == 0, err
    for line, row in zip(out.splitlines(), TINY.stages, strict=True):
        words = shlex.split(line)
        assert words[:4] == ["ofa", "train", "--search", "-f"] and Path(words[4]).is_file()
        assert words[5:] == ["-o", f"it's mine/{row.folder}"]


def on_latin1(run: Callable[[], None]) -> str:
    """What a terminal as of PYTHONIOENCODING=latin-1 shows."""
    shown = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(shown, encoding="latin-1", write_through=True)):
        run()
        return shown.getvalue().decode("latin-1")


def test_names_that_the_terminal_cannot_show(run, home):
    def predict() -> None:
        with pytest.raises(SystemExit) as end:
            main(["predict", str(run / "subnets" / "largest"), str(home / "d" / "val" / CHINESE)])
        assert end.value.code == 0
        closing_table(json.loads((run / "summary.json").read_text()), Path(CHINESE))
    shown = on_latin1(predict)
    assert shown.count("%  \\u7ea2\n") == 4 and shown.count("%  b c\n") == 4
    assert "ofa search '\\u7ea2' --max-macs" in shown


def test_names_that_the_terminal_of_classify_cannot_show(run, home, monkeypatch):
    about = {"preprocessing": read_description(run / "subnets" / "largest").preprocessing.model_dump(),
             "classes": [CHINESE, "b c"]}
    monkeypatch.setattr(classify, "opened", lambda path: (lambda images: torch.tensor([[2.0, 1.0]]).numpy(), about))
    monkeypatch.setattr(sys, "argv", ["classify.py", "model.onnx", str(home / "d" / "val" / CHINESE / "0.png")])
    assert "   73.1 %  \\u7ea2\n" in on_latin1(classify.main)


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "copy.safetensors"])
def test_a_checkpoint_is_not_called_damaged(run, tmp_path, name, capsys):
    stage = run / "K357_E6_D4"
    checkpoint = stage / "checkpoint.safetensors" if name.startswith("check") else tmp_path / name
    if not checkpoint.exists():
        checkpoint.write_bytes((stage / "checkpoint.safetensors").read_bytes())
    for words in (("evaluate",), ("inspect",), ("extract", "-o", tmp_path / "out"), ("search", "-o", tmp_path / "out")):
        code, _, err = ofa(capsys, words[0], checkpoint, *words[1:])
        assert (code, err.count("\n")) == (2, 1)
        assert f"{name}: is a checkpoint, from which a stopped run goes on, not a weights file; " in err
        assert "damaged" not in err and str(checkpoint.with_name("weights.safetensors")) in err


@pytest.mark.parametrize("words", [
    "evaluate {f}.h5", "evaluate {f}.safetensors", "inspect {f}.pth", "extract {f}.h5 -o {o}", "convert {f}.h5 {o}.pth",
    "search {f}.h5 -o {o}", "profile {f}.h5 -o {o}.json", "predict {f}.onnx p.png", "evaluate {d}", "predict {d} p.png",
    "export {d} --to onnx", "finetune {d} -o {o}", "finetune {good} --teacher {f}.h5 -o {o}", "predictor test {f}.h5 r",
    "search mobilenet_v3_large_32px --predictor {f}.h5"])
def test_pointers_of_git_lfs(run, tmp_path, words, capsys):
    for suffix in (".h5", ".safetensors", ".pth", ".onnx"):
        (tmp_path / f"file{suffix}").write_text(POINTER)
    (tmp_path / "net").mkdir()
    good = run / "subnets" / "largest"
    (tmp_path / "net" / "model.json").write_bytes((good / "model.json").read_bytes())
    (tmp_path / "net" / "model.safetensors").write_text(POINTER)
    given = [word.format(f=tmp_path / "file", o=tmp_path / "out", d=tmp_path / "net", good=good)
             for word in words.split()]
    code, _, err = ofa(capsys, *given)
    assert (code, err.count("\n")) == (2, 1), err
    assert "is a pointer of Git LFS, not the file itself; `git lfs pull` fetches the file" in err
    assert not list(tmp_path.glob("out*"))


def test_classify_names_a_pointer_of_git_lfs(tmp_path):
    (tmp_path / "model.onnx").write_text(POINTER)
    with pytest.raises(classify.RefusedError, match="pointer of Git LFS, not the file itself; `git lfs pull`"):
        classify.opened(str(tmp_path / "model.onnx"))
