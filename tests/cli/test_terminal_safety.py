"""Names that hold escape sequences or rich's markup, on a terminal."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from onceforall.cli import main
from onceforall.cli.progress import Progress
from onceforall.cli.running import log_to_stderr
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.journal import Journal

EVIL = "a\x1b]0;title\x07\x9b2J[/x]\u202e"


def test_a_users_mistake_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", EVIL + "\nb"])
    err = capsys.readouterr().err
    assert end.value.code == 2
    assert err.count("\n") == 1 and err.rstrip("\n").isprintable() and r"a\x1b]0;title\x07\x9b2J[/x]\u202e\nb" in err


def test_log_lines_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("onceforall")
    before = logger.handlers[:], logger.level
    try:
        log_to_stderr(Processes())
        logger.warning("%s: left out\nand a table", EVIL)
    finally:
        logger.handlers[:], logger.level = before
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.isprintable() for line in lines)


def test_the_lines_of_a_log_file_are_text(tmp_path: Path) -> None:
    with Journal(tmp_path, writes=True):
        logging.getLogger("onceforall").warning("%s", EVIL)
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 and lines[0].isprintable() and r"a\x1b]0;title" in lines[0]


@pytest.mark.parametrize("terminal", [True, False])
def test_names_are_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                             terminal: bool) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with Progress(shown=True) as progress:
        progress.hear({"kind": "stage", "output": "/x/[red]a", "epochs": 2, "steps": 3, "epoch": 1, "step": 1})
    assert "[red]a: resuming at epoch 2" in capsys.readouterr().err
