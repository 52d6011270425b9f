"""Where a verb cannot write: one line that says why, and a remedy that fits; nothing is left, and nothing is lost."""

from __future__ import annotations

import errno
import os
from functools import partial
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from onceforall.cli import main
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.engine import checkpoint
from onceforall.weights.nets import Trained, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=[12])


@pytest.fixture(scope="module")
def net() -> Supernet:
    return Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()


@pytest.fixture
def weights(unprivileged: Path, net: Supernet) -> Path:
    path = unprivileged.parent / "weights.h5"
    save(Trained(net, SPACE), path)
    return path


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    *log, line = capsys.readouterr().err.splitlines(keepends=True)
    assert end.value.code == 2 and line.startswith("ofa: ") and "Traceback" not in "".join(log)
    return line


@pytest.mark.parametrize("name", ["x.h5", "x.pth", "x.safetensors", "new/x.h5"])
def test_convert_into_a_folder_that_cannot_be_written(unprivileged, weights, name, capsys):
    err = refused(capsys, "convert", weights, unprivileged / name)
    assert err == (f"ofa: {unprivileged / name}: cannot be written: Permission denied; make it writable, or give "
                   "another place\n")
    assert not list(unprivileged.iterdir())


def test_convert_onto_a_read_only_file_system(weights, tmp_path, capsys, monkeypatch):
    """Even removing what is not there fails on one."""
    def read_only(path: Path, *_: object, **__: object) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    for name in ("touch", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, read_only)
    err = refused(capsys, "convert", weights, tmp_path / "x.h5")
    assert "x.h5: cannot be written: Read-only file system; give a place that is not read-only" in err


@pytest.mark.parametrize("words", [
    "extract {w} --arch smallest --data digits -o {c}/net", "search {w} --data digits -o {c}/found",
    "search mobilenet_v3_large_32px --objective macs,params -o {c}/found",
    "profile {w} --subnets 30 --runner {c}/runner", "train -f {config} -o {c}/run -c cpu",
    "fit --dump-configs {c}/json", "fit -o {c}/run --device cpu", "report {journal} -o {c}/report.html"])
def test_every_verb_that_writes(unprivileged, weights, words, capsys, monkeypatch):
    place = unprivileged.parent
    (place / "journal").mkdir()
    (place / "journal" / "metrics.jsonl").write_text('{"kind": "train", "epoch": 0, "seconds": 1.0, "loss": 1.0}\n')
    (place / "config.json").write_text(
        '{"dataloader": {"digits": {}}, "network": {"ofa": {"space": "mobilenet_v3_large_32px", "num_classes": 10}}, '
        '"optimizer": {"train": {"lr": 0.1}}, "hparams": {"task": "fullnet", "lambda_kd": 0.0}}')
    monkeypatch.setattr(os, "access", partial(os.access, effective_ids=True))  # as where capabilities were never there
    given = [word.format(w=weights, c=unprivileged, journal=place / "journal", config=place / "config.json")
             for word in words.split()]
    err = refused(capsys, *given)
    assert str(unprivileged) in err and "space;" not in err
    assert "Permission denied; make it writable, or give another place" in err or "is not writable; give another" in err
    assert not list(unprivileged.iterdir())


@pytest.mark.parametrize(("number", "words"), [
    (errno.ENOSPC, "cannot be written: No space left on device; free some space"),
    (errno.EROFS, "cannot be written: Read-only file system; give a place that is not read-only"),
    (errno.EACCES, "cannot be used: Permission denied; make it writable, or give another place"),
    (errno.EISDIR, "cannot be written: Is a directory; give the name of a file"),
    (errno.ENAMETOOLONG, "cannot be written: File name too long; give a shorter name")])
def test_what_no_verb_has_foreseen(number, words, capsys, monkeypatch):
    def fails(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number), "a/file")
    monkeypatch.setattr("onceforall.cli.app.app", fails)
    assert refused(capsys, "inspect") == f"ofa: a/file: {words}\n"


def test_a_checkpoint_that_may_not_be_read_is_kept(unprivileged, net):
    """Going on from the one before it would write over it."""
    folder = unprivileged.parent / "run"
    folder.mkdir()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in (1, 2):
        checkpoint.save(folder, net, optimizer, position=checkpoint.Position(0, step), extra={"step": step})
    assert checkpoint.read_extra(folder) == {"step": 2}
    (folder / checkpoint.NEWEST).chmod(0)
    with pytest.raises(UserError, match="checkpoint.safetensors: cannot be read: Permission denied; make it readable"):
        checkpoint.read_extra(folder)
    (folder / checkpoint.NEWEST).chmod(0o644)
    (folder / checkpoint.NEWEST).write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="checkpoint.safetensors: is a pointer of Git LFS"):
        checkpoint.read_extra(folder)
