"""docs/python.md: its code runs, from top to bottom."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onceforall

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "page.py").write_text("\n\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert "epoch: is not a known key; did you mean epochs?" in lines[0]
    assert lines[1].startswith("['full', 'all'] ")
    assert (tmp_path / "subnet" / "model.json").exists()


def test_the_table_names_every_setting():
    named = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    homes = [f"onceforall.training.{name}" for name in ("network", "settings", "stage")]
    assert {*named, "Network"} == {name for home in homes for name in onceforall._HOMES[home]}
