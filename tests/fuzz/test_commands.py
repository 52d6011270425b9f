"""Command lines of every verb: each works, or ends with code 2 and one line, and writes nothing."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path

import pytest
from fuzzing import cases
from hypothesis import given
from hypothesis import strategies as st

from onceforall.cli import main
from onceforall.space import UserError

SPACE = "mobilenet_v3_large_32px?width_mult=0.15"
SOURCES = [SPACE, "mobilenet_v3_large", "nowhere", "", ".", "file.txt", "mobilenet_v3_large?width_mult=x", "a?b", "*"]
VALUES = st.one_of(st.sampled_from(
    ["", "0", "-1", "1", "7", "nan", "inf", "1e400", "5,2,9", "largest", "smallest", "32:k7e6", "cpu", "tpu", "digits",
     "file.txt", "nowhere.json", ".", "macs", "True", "9" * 40, "\u202e", "a b"]), st.text(max_size=8).filter(
         lambda text: "\0" not in text and text.isprintable()))
VERBS = {  # options of each verb that take a value, and whether it takes a SOURCE
    "inspect": (("--arch", "--genotype", "--resolution", "--front", "--row", "--space"), True),
    "evaluate": (("--arch", "--genotype", "--data", "--root", "--device"), True),
    "extract": (("--arch", "--genotype", "--front", "--row", "--data", "-o"), True),
    "finetune": (("--data", "--epochs", "--lr", "--batch", "--seed", "-o"), True),
    "export": (("--to", "--device"), True),
    "convert": (("--space",), True),
    "predict": ((), True),
    "report": (("-o",), True),
    "train": (("-f", "-a", "-c", "-d", "-t", "--checkpoint-every"), False),
    "fit": (("--data", "--root", "--recipe", "--epochs-scale", "--device", "-t", "--workers"), False),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with one file that is of no use."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "file.txt").write_text("text")
    return folder


def run(words: list[str], folder: Path) -> None:
    """Raises UserError for what ends with code 2 and one line."""
    errors = io.StringIO()
    here = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            main(words)
    except SystemExit as end:
        code = end.code
    finally:
        os.chdir(here)
    assert code in (0, 2), (code, errors.getvalue())
    if code == 2:
        lines = errors.getvalue().strip().splitlines()
        assert lines[-1].startswith("ofa: "), lines
        assert not any("Traceback" in line for line in lines)
        raise UserError("command", lines[-1])


@pytest.mark.parametrize("verb", sorted(VERBS))
@cases(30)
@given(data=st.data())
def test_commands(outcome, place, verb, data):
    options, source = VERBS[verb]
    words = [verb, *([data.draw(st.sampled_from(SOURCES))] if source else [])]
    for option in data.draw(st.lists(st.sampled_from(options), max_size=3)) if options else []:
        words += [option, data.draw(VALUES)]
    if verb == "fit":
        words += ["--dump-configs", "configs", "--recipe", "none"]  # never a whole training
    outcome(lambda: run(words, place))
    left = {path.name for path in place.rglob("*")} - {"file.txt"}
    assert not left, (words, left)
