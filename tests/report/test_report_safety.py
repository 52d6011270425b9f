"""A report of a run whose files are made to harm: what they hold is text in it, and it writes where it was told."""

from __future__ import annotations

import html
import json
import os
import re
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onceforall.report.gather import gather
from onceforall.report.page import figures, write, write_png

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&<a href='https://a.b'>"


class Page(HTMLParser):
    """The tags of a page, and its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    stage = run / EVIL.replace("/", "\\")
    stage.mkdir(parents=True)
    records = [{"kind": kind, "epoch": 0, "loss": 1.0, "top1": 0.5} for kind in ("train", "valid")]
    (stage / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    row = {"arch": EVIL, "resolution": 32, "costs": {EVIL: 1.5}, "accuracy_predicted": 0.5, "accuracy_measured": 0.5,
           "foreign": {EVIL: {EVIL: EVIL}}}
    whole = {"arch": EVIL, "ms": 1.0, "sum_ms": 1.0, "held_out": True}
    errors = {"mape": 1.0, "tau": 1.0}
    table = {"scale": 1.0, "offset_ms": 0.0, "about": {
        "backend": EVIL, "device": EVIL, "subnets": [whole],
        "check": {"held_out": 1, "before": errors, "after": errors}}}
    (run / "search").mkdir()
    (run / "search" / "front.json").write_text(json.dumps({
        "space": {"name": EVIL}, "objectives": [EVIL], "limits": {EVIL: 2.0}, "front": [row], "sampled": [row],
        "predictor": {"regressor": EVIL, "errors": {EVIL: {"rows": 1, "rmse": 0.1, "tau": 1.0}}},
        "evaluations": 1, "tables": {"../../" + EVIL: table}}), encoding="utf-8")
    return run


def test_what_a_run_holds_is_text(run: Path, tmp_path: Path) -> None:
    write(gather(run), tmp_path / "report.html")
    page = Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tags.count("script") == 1 + len(figures(gather(run)))
    assert not {"img", "a"} & set(page.tags)


def test_the_charts_labels_hold_no_markup_of_others(run: Path) -> None:
    """Plotly reads labels and hover texts as a little HTML."""
    made = figures(gather(run))
    assert len(made) == 4
    for _, figure in made.values():
        assert not re.search("<(script|img|a) ", json.dumps(figure.to_plotly_json(), default=str))
    assert html.escape(EVIL.replace("/", "\\")) in json.dumps(made["Training"][1].to_plotly_json(), default=str,
                                                           ensure_ascii=False).replace("\\\\", "\\")


def test_names_that_are_no_text(run: Path, tmp_path: Path) -> None:
    odd = os.path.join(os.fsencode(tmp_path), b"run\xff")
    os.rename(run, odd)
    stage = next(p for p in Path(os.fsdecode(odd)).iterdir() if p.name != "search")
    os.rename(stage, os.path.join(odd, b"stage\xff\n"))
    write(gather(Path(os.fsdecode(odd))), tmp_path / "report.html")
    assert r"run\udcff" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_pictures_of_charts_stay_in_their_folder(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    kaleido = types.SimpleNamespace(write_fig_sync=lambda figure, path, opts: written.append(path))
    monkeypatch.setitem(sys.modules, "kaleido", kaleido)
    write_png(gather(run), tmp_path / "png")
    assert written and all(Path(path).resolve().parent == tmp_path / "png" for path in written)
