"""docs/extending.md: its code runs, from top to bottom, and touches the files that its table counts."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from forked import run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (an? [^|]*?) \| .* \| (`.*`) \| (\d) \|$", PAGE, re.MULTILINE)


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    done = run([sys.executable, "-c", "\n\n".join(blocks)], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"^[\d,]+ sub-networks a resolution, [\d,]+ to [\d,]+ MACs$", done.stdout, re.MULTILINE)
    assert (tmp_path / "smallest" / "model.onnx").exists()
    assert (tmp_path / "run" / "search" / "front.json").exists()


def test_each_touches_at_most_two_files():
    """The registers are where the table says, and there is no other place that lists what they hold."""
    assert [what for what, _, _ in ROWS] == ["a search space", "an elastic dimension", "a kind of block", "a strategy",
                                          "a pretrained source", "an export target"]
    for _, files, count in ROWS:
        found = re.findall(r"`(.*?)`", files)
        assert len(found) == int(count) <= 2
        assert all((ROOT / "src" / "onceforall" / file).is_file() for file in found)
    registers = {"CATALOG": "space/catalog.py", "KINDS": "space/kinds.py", "STRATEGIES": "training/strategy.py",
                 "PRETRAINED": "pretrained/sources.py", "TARGETS": "deploy/targets.py"}
    for name, file in registers.items():
        defined = [path for path in (ROOT / "src").rglob("*.py")
                   if re.search(rf"^{name}\b[^=\n]*= ", path.read_text(encoding="utf-8"), re.MULTILINE)]
        assert defined == [ROOT / "src" / "onceforall" / file]
    words = ("proxyless_nas", "attentive_nas", '"bottleneck"', '"sandwich"')
    homes = {"space/catalog.py", "space/kinds.py", "training/strategy.py", "interop/infer.py",
             "interop/nnabla/config.py", "interop/nnabla/config_file.py",
             "recipes/catalog.py",  # a recipe names the strategy of each stage
             "pretrained/blocks.py"}  # which kinds it finds in networks of others
    for path in (ROOT / "src" / "onceforall").rglob("*.py"):
        if path.relative_to(ROOT / "src" / "onceforall").as_posix() not in homes:
            assert not any(word in path.read_text(encoding="utf-8") for word in words), path
