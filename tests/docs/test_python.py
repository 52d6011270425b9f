"""docs/python.md: its code runs, from top to bottom."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import onceforall

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.py").write_text("\n\n".join(blocks), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path("page.py", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert "epoch: is not a known key; did you mean epochs?" in lines[0]
    assert lines[1].startswith("['full', 'all'] ")
    assert (tmp_path / "subnet" / "model.json").exists()


def test_the_table_names_every_setting():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    homes = [f"onceforall.training.{name}" for name in ("network", "settings", "stage")]
    assert {*named, "Network"} == {name for home in homes for name in onceforall._HOMES[home]}
