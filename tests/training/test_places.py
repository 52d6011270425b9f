"""Places: a folder under any of its names resumes one run, another folder does not; messages say where it lies."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from small import SPACE

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.output import check_output
from onceforall.training.engine.places import PATHS, read_run, write_config, write_paths
from onceforall.training.setup import Options
from onceforall.training.stage import Training


def config(root: str | None = "d", *, data: str = "folder", weights: str | None = None, teacher: str | None = None,
           predictor: str | None = None, seed: int = 0, **loader: str) -> Training:
    return training_of(foreign(root, data, weights, teacher, predictor, seed, loader))


def foreign(root: str | None, data: str, weights: str | None, teacher: str | None, predictor: str | None, seed: int,
            loader: dict[str, str]) -> Config:
    network = {**SPACE, **({} if weights is None else {"weights": weights})}
    hparams: dict[str, Any] = {"task": "fullnet", "lambda_kd": 0.0, "predictor": predictor, "seed": seed}
    if teacher is not None:
        hparams |= {"lambda_kd": 1.0, "teacher_network": {"ofa": {**SPACE, "weights": teacher}}}
    return Config.from_dict({
        "dataloader": {data: loader or ({} if root is None else {"root": root})}, "network": {"ofa": network},
        "optimizer": {"train": {"lr": 0.05}}, "hparams": {k: v for k, v in hparams.items() if v is not None}})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with folders `d` and `other`, and a run's first stage; `link` is another name of it."""
    for folder in ("home/d", "home/other", "home/runs/x/K7", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "home/runs/x/K7/weights.h5").write_bytes(b"")
    (tmp_path / "link").symlink_to("home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def begin(run: Training, output: str | Path) -> Path:
    """A run's folder as it is once training has begun."""
    Path(output).mkdir(parents=True, exist_ok=True)
    write_paths(run, Path(output))
    write_config(run, Path(output))
    return Path(output).absolute()


def refused(run: Training, output: Path, options: Options | None = None) -> str:
    with pytest.raises(UserError) as error:
        check_output(run, output, options or Options())
    return str(error.value)


def test_config_json_is_as_the_user_wrote_it(home):
    begin(config(weights="runs/x/K7/weights.h5"), "runs/x/K357")
    written = json.loads((home / "runs/x/K357/config.json").read_text())
    assert written["data"]["root"] == "d"
    assert written["network"]["weights"] == "runs/x/K7/weights.h5"
    assert json.loads((home / "runs/x/K357" / PATHS).read_text()) == {
        "data.root": [f"{home}/d"],
        "network.weights": [f"{home}/runs/x/K7/weights.h5", "../K7/weights.h5"]}


@pytest.mark.parametrize("spelling", ["d", "d/", "./d", "d/.", "x/../d", "{home}/d", "{home}/../link/d", "../link/d/",
                                      "../home//d"])
def test_any_spelling_goes_on(home, spelling):
    (home / "x").mkdir()
    output = begin(config(), "run")
    check_output(config(spelling.format(home=home)), output, Options())
    begin(config(spelling.format(home=home)), "other run")
    check_output(config(), Path("other run"), Options())


@pytest.mark.parametrize("spelling", ["other", "../elsewhere", "/", "missing", "d/other"])
def test_another_folder_is_refused_with_both(home, spelling):
    output = begin(config(), "run")
    message = refused(config(spelling), output)
    assert f"data.root is d ({home}/d) there, and {spelling} ({(home / spelling).absolute()})" in message
    assert message.endswith("; give another output folder: -o")


def test_from_another_working_directory(home, monkeypatch):
    output = begin(config(), "run")
    monkeypatch.chdir(home.parent / "elsewhere")
    check_output(config("../home/d"), output, Options())
    assert f"root is d ({home}/d) there, and d ({home.parent}/elsewhere/d) is asked for" in refused(config("d"), output)
    Path("d").mkdir()  # another one of the same name
    assert f"and d ({home.parent}/elsewhere/d) is asked for" in refused(config("d"), output)
    assert read_run(output).data.root == f"{home}/d"


@pytest.mark.parametrize("given", [
    {"weights": "{}"}, {"teacher": "{}"}, {"predictor": "{}"},
    {"train_path": "{}", "train_file": "a", "valid_path": "b", "valid_file": "c"},
    {"train_path": "a", "train_file": "{}", "valid_path": "b", "valid_file": "c"},
    {"train_path": "a", "train_file": "b", "valid_path": "{}", "valid_file": "c"},
    {"train_path": "a", "train_file": "b", "valid_path": "c", "valid_file": "{}"}])
def test_every_path_of_a_configuration(home, given):
    def with_path(path: str) -> Training:
        return config(**{key: value.format(path) for key, value in given.items()})
    output = begin(with_path("d"), "run")
    check_output(with_path(f"{home}/../link/d/"), output, Options())
    assert f"is d ({home}/d) there, and other ({home}/other) is asked for" in refused(with_path("other"), output)


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_run_knows_its_own_stages(home, how):
    begin(config(weights="runs/x/K7/weights.h5", teacher="runs/x/K7/weights.h5"), "runs/x/K357")
    how("runs/x", "runs/y")
    output = home / "runs/y/K357"
    check_output(config(weights="runs/y/K7/weights.h5", teacher="./runs/y/K7/weights.h5"), output, Options())
    begin(config(weights="runs/y/K7/weights.h5"), "runs/z/K357")
    assert "network.weights is" in refused(config(weights="runs/z/K7/weights.h5"), home / "runs/z/K357")


def test_data_in_the_run_folder_moves_with_it(home):
    shutil.move("d", "runs/x/d")
    begin(config("runs/x/d"), "runs/x/K7")
    shutil.move("runs/x", "runs/y")
    assert Path(read_run(Path("runs/y/K7")).data.root or "").samefile("runs/y/d")
    check_output(config("runs/y/d"), Path("runs/y/K7"), Options())


def test_a_project_that_moved_as_a_whole(home, caplog, monkeypatch):
    """The same words, and what they meant is gone."""
    begin(config(), "runs/x/K7")
    home.rename(home.parent / "moved")
    monkeypatch.chdir(home.parent / "moved")
    with caplog.at_level(logging.WARNING, "onceforall"):
        check_output(config("./d"), Path("runs/x/K7"), Options())
    assert caplog.messages == [f"data.root: {home}/d is no longer there: going on with {Path.cwd()}/d"]
    assert read_run(Path("runs/x/K7")).data.root == f"{Path.cwd()}/d"
    refused(config("other"), Path("runs/x/K7"))


def test_runs_from_before_paths_json(home):
    def old(run: Training, output: str) -> None:
        (begin(run, output) / PATHS).unlink()
    old(config(weights="runs/x/K7/weights.h5"), "runs/x/K357")
    check_output(config(f"{home}/d", weights="runs/x/../x/K7/weights.h5"), Path("runs/x/K357"), Options())
    message = refused(config("other", weights="runs/x/K7/weights.h5"), Path("runs/x/K357"))
    assert f"root is d ({home}/d) there" in message
    assert read_run(Path("runs/x/K357")).data.root == f"{home}/d"
    shutil.move("runs/x", "runs/y")
    check_output(config(weights="runs/y/K7/weights.h5"), Path("runs/y/K357"), Options())


def test_processes_in_other_folders(home, monkeypatch):
    """The first one alone compares paths: those of the others start from folders of their own."""
    output = begin(config(), "run")
    monkeypatch.chdir(home.parent / "elsewhere")
    refused(config(), output, Options(processes=Processes(0, 2, 0, 2)))
    check_output(config(), output, Options(processes=Processes(1, 2, 1, 2)))
    assert "stage.seed is 0 there, and 7 is asked for" in refused(config(seed=7), output,
                                                                  Options(processes=Processes(1, 2, 1, 2)))


def test_data_sets_by_name_are_found_from_elsewhere(home, monkeypatch):
    (home / "datasets").mkdir()
    output = begin(config(None, data="fashion-mnist"), "run")
    check_output(config("datasets/", data="fashion-mnist"), output, Options())
    assert "root is not given there, and other (" in refused(config("other", data="fashion-mnist"), output)
    monkeypatch.chdir(home.parent / "elsewhere")
    assert read_run(output).data.root == f"{home}/datasets"
    check_output(config(None, data="fashion-mnist"), output, Options())  # the same by its name
    (home / "datasets/train").mkdir()
    assert read_run(output).data.root is None  # which would be read as a folder of pictures
    assert read_run(begin(config(None, data="digits"), "digits")).data.root is None


@pytest.mark.parametrize("text", ["", "[]", '{"a": "b"}', '{"a": [1]}', "\xff"])
def test_a_damaged_paths_json(home, text):
    output = begin(config(), "run")
    (output / PATHS).write_bytes(text.encode("latin-1"))
    assert "paths.json: is damaged (" in refused(config(), output)


def test_a_run_without_a_root_against_one_with(home):
    lists = dict.fromkeys(("train_path", "train_file", "valid_path", "valid_file"), "d")
    output = begin(config(None, **lists), "run")
    assert 'data.name is "list" there, and "folder" is asked for' in refused(config(), output)


def test_writing_says_why_it_cannot(home):
    (home / "run").write_bytes(b"")
    with pytest.raises(UserError, match="run/paths.json: cannot be written: .*; a file stands where a folder"):
        write_paths(config(), Path("run"))


def test_a_run_of_an_older_version(home, monkeypatch):
    """Its config.json is in NNablaNAS's form, and so are the keys of its paths.json."""
    output = home / "runs/x/K357"
    output.mkdir()
    weights = "runs/x/K7/weights.h5"
    foreign("d", "folder", weights, weights, None, 0, {}).write(output / "config.json")
    (output / PATHS).write_text(json.dumps({
        "dataloader.folder.root": [f"{home}/d"], "network.ofa.weights": ["/gone", "../K7/weights.h5"],
        "hparams.teacher_network.ofa.weights": ["/gone", "../K7/weights.h5"]}))
    with pytest.raises(UserError, match="data.train_portion is 0.9 there, and 1.0 is asked for"):
        check_output(config(weights=weights, teacher=weights), output, Options())
    monkeypatch.chdir(home.parent / "elsewhere")
    found = read_run(output)
    assert found.data.root == f"{home}/d"
    assert Path(found.network.weights).samefile(home / weights)
    assert Path(found.stage.teacher.network.weights).samefile(home / weights)
    assert found.stage.teacher.network.space == found.network.space
