"""How many threads torch computes with: asked for, OMP_NUM_THREADS, free cores; a run that goes on keeps its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small import config

from onceforall.cli import main
from onceforall.cli.running import compute_of
from onceforall.interop.nnabla.settings import training_of
from onceforall.training.engine import checkpoint, threads
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.run import train
from onceforall.training.engine.stop import Stopped
from onceforall.training.engine.threads import choose_threads, keep_threads
from onceforall.training.setup import Options


@pytest.fixture(autouse=True)
def given_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Eight cores that are free to be set: how many of them a load average and a look at it take."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_LOAD", tmp_path / "loadavg")
    torch.set_num_threads(8)

    def set_(load: float, running: int | None) -> None:
        monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
        if running is not None:  # the thread that looks runs, too
            (tmp_path / "loadavg").write_text(f"{load} 0.00 0.00 {running + 1}/93 6570\n")
    return set_


@pytest.mark.parametrize(("load", "running", "wanted"), [
    (0.0, 0, 8), (0.4, 9, 8), (0.9, 1, 7), (1.6, 5, 6), (7.0, 7, 1), (7.6, 8, 1), (30.0, 30, 1),
    (8.0, 0, 8), (8.0, 1, 7),  # what ran a minute ago takes nothing now
    (3.2, None, 5)])  # macOS has the load average alone
def test_the_cores_that_are_free(machine, caplog, load, running, wanted):
    machine(load, running)
    choose_threads(None, Processes())
    assert torch.get_num_threads() == wanted
    assert len(caplog.records) == (wanted < 8)
    if wanted < 8:
        taken = min(8 - wanted if wanted > 1 else round(load), round(load))
        assert f"take {taken} of 8 cores: computing with {wanted} thread" in caplog.text
        assert "--threads" in caplog.text


def test_what_is_asked_for_goes_before_what_is_free(machine, monkeypatch, caplog):
    machine(7.0, 7)
    choose_threads(5, Processes())
    assert torch.get_num_threads() == 5
    monkeypatch.setenv("OMP_NUM_THREADS", "3")  # which torch has read by itself
    choose_threads(None, Processes())
    assert torch.get_num_threads() == 5
    choose_threads(4, Processes())
    assert torch.get_num_threads() == 4
    assert caplog.text == ""


@pytest.mark.parametrize(("load", "wanted"), [(0.0, 4), (2.0, 3), (7.0, 1)])
def test_processes_of_one_machine_share_what_is_free(machine, caplog, load, wanted):
    machine(load, 8)
    for rank in (0, 1):
        choose_threads(None, Processes(rank, 2, rank, 2))
        assert torch.get_num_threads() == wanted
    assert len(caplog.records) == (wanted < 4)  # the first process says it


def test_fewer_are_never_made_more(machine):
    torch.set_num_threads(2)
    machine(1.0, 1)
    choose_threads(None, Processes())
    assert torch.get_num_threads() == 2


def test_the_compute_device_comes_with_threads(machine):
    machine(3.0, 3)
    compute_of("cpu", 0, "float", Processes(), threads=3)
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("verb", "number"), [
    ("fit", "0"), ("train", "-1"), ("finetune", "x"), ("evaluate", "1025"), ("search", "1.5"), ("extract", "")])
def test_wrong_numbers(capsys, verb, number):
    with pytest.raises(SystemExit) as end:
        main([verb, *([] if verb in ("fit", "train") else ["nothing"]), "--threads", number])
    errors = capsys.readouterr().err
    assert end.value.code == 2
    assert errors.startswith("ofa: Invalid value for '--threads'")
    assert errors.count("\n") == 1


def stopped(folder, options):
    """A run that ends after its first steps."""
    def stop(record):
        if record["kind"] == "step":
            raise Stopped
    with pytest.raises(Stopped):
        train(training_of(config(), search=True), folder, replace(options, listener=stop))


def recorded(folder):
    return checkpoint.read_extra(folder)["made_by"]["threads"]


def test_a_run_goes_on_with_the_threads_that_it_began_with(tmp_path, caplog, monkeypatch):
    torch.set_num_threads(1)
    stopped(tmp_path, Options())
    assert recorded(tmp_path) == 1
    torch.set_num_threads(2)
    with caplog.at_level("WARNING", "onceforall"):
        stopped(tmp_path, Options())
    assert (torch.get_num_threads(), recorded(tmp_path)) == (1, 1)
    assert "goes on with 1 thread, as the run began" in caplog.text
    assert "last bits" not in caplog.text
    torch.set_num_threads(2)
    with monkeypatch.context() as patch:  # so that the search after the last stage scores with the same bits
        patch.setattr("onceforall.training.engine.run.finished", lambda _: True)
        train(training_of(config(), search=True), tmp_path, Options())
    assert torch.get_num_threads() == 1
    caplog.clear()
    torch.set_num_threads(2)
    with caplog.at_level("WARNING", "onceforall"):
        stopped(tmp_path, Options(threads=2))  # the user insists
    assert torch.get_num_threads() == 2
    assert "began with threads 1 and goes on with 2: the last bits will differ" in caplog.text


@pytest.mark.parametrize(("world", "rank", "began", "wanted"), [
    (1, 0, 2, 2), (2, 0, 3, 3), (2, 1, [3, 4], 4),
    (1, 0, [3, 4], 1), (1, 0, "2", 1), (1, 0, 0, 1), (1, 0, 10 ** 9, 1), (1, 0, None, 1)])
def test_each_process_keeps_its_own(world, rank, began, wanted):
    torch.set_num_threads(1)
    keep_threads({"made_by": {"threads": began}, "options": {"processes": world}}, Processes(rank, world))
    assert torch.get_num_threads() == wanted


def test_another_number_of_processes_has_other_shares():
    torch.set_num_threads(1)
    keep_threads({"made_by": {"threads": 2}, "options": {"processes": 1}}, Processes(0, 2))
    assert torch.get_num_threads() == 1
