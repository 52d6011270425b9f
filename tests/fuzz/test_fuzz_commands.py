"""Command lines of the verbs: they work, or are refused with one line and exit code 2, and then write nothing."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import pytest
from fuzzing import FIGURES, SPACE, cases, watched
from hypothesis import given
from hypothesis import strategies as st
from test_fuzz_files import CONFIG, FRONT, ROWS, TABLE

from onceforall.cli import main

NUMBERS = ["0", "-1", "1", "3", "1e9", "nan", "inf", "x", "", "99999999999999999999", "1_0", "٣"]
TEXTS = ["largest", "smallest", str(SPACE.middle), "12:k3e5", "0,0,9", ",".join(["9"] * 20), "a\nb", "é'\"", "\udcff",
         "--", "mobilenet_v3_large_32px?width_mult=0.15", "mobilenet_v3_large_32px?width_mult=9", "../x", *NUMBERS]
OPTIONS = {
    "inspect": ["--arch", "--genotype", "--front", "--row", "--resolution", "--space", "--json"],
    "evaluate": ["--arch", "--genotype", "--front", "--row", "--resolution", "--data", "--root", "--device"],
    "extract": ["--arch", "--genotype", "--row", "--resolution", "--data", "--device", "-o"],
    "export": ["--to", "--batch", "--max-loss", "--rows", "--keep", "--fp16", "--int8", "--full-range", "--explain",
               "-o"],
    "search": ["--table", "--predictor", "--collect", "--max-latency-ms", "--max-macs", "--max-params", "--objective",
               "--resolutions", "--population", "--generations", "--seed", "--measure", "-o"],
    "predict": ["--top", "--json"], "report": ["-o"], "convert": ["--to", "--space", "-o"],
    "finetune": ["--data", "--teacher", "--epochs", "--lr", "--batch", "--seed", "-o"],
    "profile": ["--backend", "--device", "--threads", "--batch", "--resolutions", "--classes", "--subnets", "--rounds",
                "--seed", "-o"],
    "predictor fit": ["--space", "--seed"], "predictor test": ["--space", "--json"]}
ALONE = {"--json", "--fp16", "--int8", "--full-range", "--explain"}


@pytest.fixture
def files(tmp_path_factory, nets, monkeypatch):
    """A folder to run in, with a file of each kind."""
    place = tmp_path_factory.mktemp("commands")
    monkeypatch.chdir(place)
    for name, value in (("config.json", CONFIG), ("table.json", TABLE), ("front.json", FRONT)):
        (place / name).write_text(json.dumps(value))
    (place / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (place / "empty").write_bytes(b"")
    (place / "folder").mkdir()
    return ["config.json", "table.json", "front.json", "rows.jsonl", "empty", "folder", "missing", ".",
            str(nets["supernet.h5"]), str(nets["subnet.pth"]), str(nets["subnet.safetensors"])]


def _ran(words: list[str]) -> int:
    err, out = io.StringIO(), io.StringIO()
    with watched(), contextlib.redirect_stderr(err), contextlib.redirect_stdout(out):
        with pytest.raises(SystemExit) as ended:
            main(words)
        code = ended.value.code
        lines = err.getvalue().splitlines()
        if code:
            assert code == 2 and len(lines) == 1 and lines[0].startswith("ofa: "), (words, code, err.getvalue())
    FIGURES.accepted += code == 0
    FIGURES.refused += code == 2
    return int(code or 0)


@pytest.mark.slow
@cases(350)
@given(data=st.data())
def test_command_lines(files, tmp_path, data):
    verb = data.draw(st.sampled_from(list(OPTIONS)))
    value = st.sampled_from(files) | st.sampled_from(TEXTS)
    words = verb.split() + data.draw(st.lists(value, max_size=2))
    for option in data.draw(st.lists(st.sampled_from([*OPTIONS[verb], "--nope"]), max_size=3)):
        words += [option] if option in ALONE else [option, str(tmp_path / "made") if option == "-o" else data.draw(
            st.sampled_from(NUMBERS) if option in ("--population", "--generations") else value)]
    if verb == "search":  # small, unless the case says otherwise
        words[1:1] = ["--population", "4", "--generations", "1", "--measure", "0"]
    made = tmp_path / "made"
    if _ran(words):
        assert not made.exists(), words
    elif made.is_dir():
        shutil.rmtree(made)
    else:
        made.unlink(missing_ok=True)


@pytest.mark.slow
@cases(100)
@given(source=st.sampled_from(["mobilenet_v3_large_32px?width_mult=0.15"]), option=st.sampled_from(
    ["--arch", "--genotype", "--resolution"]), text=st.sampled_from(TEXTS) | st.text(max_size=12))
def test_inspected_subnets(source, option, text):
    _ran(["inspect", source, option, text])
