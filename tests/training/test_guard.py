"""Guards: a run whose loss is not finite, or whose largest sub-network collapses, goes back and on more slowly."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small import config

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.training import loop
from onceforall.training.engine import checkpoint
from onceforall.training.engine import run as run_module
from onceforall.training.engine.guard import Guard, Setback
from onceforall.training.engine.run import train
from onceforall.training.setup import Options


@pytest.mark.parametrize(("best", "top1", "chance"), [(0.9, 0.1, 0.1), (0.6, 0.002, 0.001), (0.99, 0.52, 0.5)])
def test_a_collapse(best, top1, chance):
    with pytest.raises(Setback, match=r"fell from .* \(chance: "):
        Guard(best=best).check(top1, 1.0, chance=chance)


@pytest.mark.parametrize(("best", "top1", "chance"), [(0.9, 0.4, 0.1), (0.15, 0.1, 0.1), (0.0, 0.1, 0.1),
                                                      (0.55, 0.5, 0.5)])
def test_no_collapse(best, top1, chance):
    assert Guard(row=2, rate=0.25, best=best).check(top1, 1.0, chance=chance) == Guard(0, 0.25, max(best, top1))


def test_a_validation_loss_that_is_not_finite():
    with pytest.raises(Setback, match="validation loss of the largest sub-network is nan"):
        Guard().check(0.5, math.nan, chance=0.1)


def broken_steps(monkeypatch, *, of_epoch: int, times: int) -> None:
    """The first `times` visits of an epoch's seventh step destroy the weights."""
    step, left = loop.train_step, [times]

    def breaking(learner, *arguments, **options):
        out = step(learner, *arguments, **options)
        if where[0] == (of_epoch, 6) and left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(learner.net.parameters()).fill_(math.nan)
        return out

    where = [(0, 0)]

    def steps(learner, stage, batches, *, data, epoch, start=0):
        where[0] = (epoch, start)
        for report in loop.run_epoch(learner, stage, batches, data=data, epoch=epoch, start=start):
            where[0] = (epoch, report.step + 1)
            yield report

    monkeypatch.setattr(loop, "train_step", breaking)
    monkeypatch.setattr(run_module, "run_epoch", steps)


def heard_by(folder: Path, configuration: Config) -> list[dict]:
    records: list[dict] = []
    train(training_of(configuration, search=True), folder, Options(listener=lambda r: records.append(dict(r))))
    return records


@pytest.mark.slow
def test_a_loss_that_is_not_finite_goes_back(monkeypatch, tmp_path):
    broken_steps(monkeypatch, of_epoch=1, times=1)
    records = heard_by(tmp_path / "run", config(epoch=3))
    (setback,) = [r for r in records if r["kind"] == "setback"]
    assert setback == {"kind": "setback", "epoch": 1, "reason": "the training loss is not finite", "back_to": 1,
                       "rate": 0.5}
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["epoch"]) for r in metrics] == [(kind, e) for e in range(3) for kind in ("train", "valid")]
    assert all(math.isfinite(r["loss"]) for r in metrics)
    extra = checkpoint.read_extra(tmp_path / "run")
    assert extra["guard"]["rate"] == 0.5  # it stays until the stage ends
    assert extra["guard"]["row"] == 0


@pytest.mark.slow
def test_too_many_in_a_row_end_the_run(monkeypatch, tmp_path):
    broken_steps(monkeypatch, of_epoch=1, times=100)
    with pytest.raises(UserError, match="run epoch 2: the training loss is not finite, after going back 3 times in a "
                                        "row, last to 0.125 of the learning rate; lower stage.optimizer.lr"):
        train(training_of(config(epoch=3), search=True), tmp_path / "run", Options())
    monkeypatch.undo()
    train(training_of(config(epoch=3), search=True), tmp_path / "run", Options())  # from the good epoch
    assert (tmp_path / "run" / "weights.h5").exists()


def test_guards_can_be_off(tmp_path):
    values = config(epoch=1, setbacks=0).to_dict()
    for group in values["optimizer"].values():
        group["lr"] = 1000.0
    with pytest.raises(UserError, match="the training loss is not finite; lower stage.optimizer.lr"):
        train(training_of(Config.from_dict(values), search=True), tmp_path / "run", Options())


@pytest.mark.slow
def test_a_setback_survives_a_stop(monkeypatch, tmp_path):
    """Stopped right after it, the run ends with the same bits as one that was not."""
    configuration = config(epoch=3, setback_clip=1.0)
    broken_steps(monkeypatch, of_epoch=1, times=1)
    train(training_of(configuration, search=True), tmp_path / "whole", Options())
    monkeypatch.undo()
    broken_steps(monkeypatch, of_epoch=1, times=1)

    def stop(record):
        if record["kind"] == "setback":
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(training_of(configuration, search=True), tmp_path / "stopped", Options(listener=stop))
    monkeypatch.undo()
    clipped = []
    clip = torch.nn.utils.clip_grad_norm_
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *a: clipped.append(a[1]) or clip(*a))
    train(training_of(configuration, search=True), tmp_path / "stopped", Options())
    one, two = (load_file(tmp_path / name / checkpoint.NEWEST) for name in
                ("whole", "stopped"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert set(clipped) == {1.0}


@pytest.mark.slow
def test_a_collapse_in_validation_goes_back(monkeypatch, tmp_path):
    check, seen = Guard.check, []

    def collapsing(self, top1, loss, *, chance):
        seen.append(top1)
        return check(self, 0.1 if len(seen) == 2 else 0.9, loss, chance=chance)

    monkeypatch.setattr(Guard, "check", collapsing)
    records = heard_by(tmp_path / "run", config(epoch=3))
    assert [r["reason"] for r in records if r["kind"] == "setback"] == [
        "the top-1 of the largest sub-network fell from 90.0 to 10.0 % (chance: 10.3 %)"]
    assert len(seen) == 4
