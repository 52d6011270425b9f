"""What is registered from outside the package works in fresh processes, from training to the exported file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run
from safetensors import safe_open
from safetensors.torch import load_file

HERE = Path(__file__).parent
HEAD = f"import os, sys; sys.path.insert(0, {str(HERE)!r})\nimport onceforall as ofa\n"
REGISTERED = "import fused, pickled\n"
TRAIN = """
def listener(record):
    if record["kind"] == "step" and [str(record["step"])] == sys.argv[2:]:
        os._exit(9)

stage = ofa.Stage(epochs=2, strategy="turns:turns", loss=ofa.Loss(labels="focal:focal"),
                  schedule=ofa.Schedule(shape="turns:falling"), optimizer=ofa.Optimizer(name="adamw", lr=1e-2),
                  batches=ofa.Batches(size=64), safety=ofa.Safety(checkpoint_steps=2), validate_archs=["largest"])
ofa.train("fused_net", "rings:splits", stages={"all": stage}, output=sys.argv[1], device="cpu", listener=listener)
"""
SHIP = """
from onceforall.searching.evolution import Evolution
from onceforall.searching.study import Plan
run = ofa.Run(sys.argv[1], device="cpu")
front = run.search(max_macs=1e6, plan=Plan(20, 0), evolution=Evolution(20, 3), measure=2)
subnet = run.extract(front.best(macs=1e6).arch)
subnet.save(sys.argv[2])
print(subnet.top1, *subnet.export(to=["onnx", "pickle"]))
"""


def python(folder: Path, code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own."""
    return run([sys.executable, "-c", HEAD + code, *words], cwd=folder)


@pytest.mark.slow
def test_one_of_each_kind(tmp_path):
    """Space, block, strategy, schedule, loss, AdamW, pictures and target; killed once, and resumed to the bit."""
    pytest.importorskip("onnxruntime")
    for words, code in ((["whole"], 0), (["killed", "7"], 9), (["killed"], 0)):
        done = python(tmp_path, REGISTERED + TRAIN, *words)
        assert done.returncode == code, done.stderr[-2000:]
    whole, killed = (load_file(tmp_path / name / "all" / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys() and "stages.0.0.grow.conv.weight" in whole
    assert all((tensor == killed[name]).all() for name, tensor in whole.items())
    assert "weights.h5 is not written: NNablaNAS has no names" in (tmp_path / "whole" / "all" / "log.txt").read_text()
    assert {path.name for path in (tmp_path / "whole" / "all").glob("weights*")} == {"weights.safetensors"}
    with safe_open(tmp_path / "whole" / "all" / "weights.safetensors", "pt") as file:
        assert '"kind":"fused"' in "".join(file.metadata().values()).replace(" ", "")
    shipped = python(tmp_path, REGISTERED + SHIP, "whole", "subnet")
    assert shipped.returncode == 0, shipped.stderr[-2000:]
    top1, *files = shipped.stdout.split()
    assert float(top1) > 0.7 and files == ["model.onnx", "model.pt"]
    assert set(json.loads((tmp_path / "subnet" / "model.json").read_text())["exports"]) == set(files)


@pytest.mark.slow
def test_commands_on_what_they_do_not_know(tmp_path):
    code = "from onceforall.cli import main\nmain(sys.argv[1:])\n"
    made = python(tmp_path, REGISTERED + "from onceforall.weights.nets import Trained, save\nfrom pathlib import Path\n"
                  "space = ofa.search_space('fused_net')\n"
                  "save(Trained(ofa.Supernet(space, 3), space), Path('weights.safetensors'))")
    assert made.returncode == 0, made.stderr[-2000:]
    refused = python(tmp_path, REGISTERED + code, "convert", "weights.safetensors", "copy.h5")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "NNablaNAS and the authors have no names" in refused.stderr and ".safetensors" in refused.stderr
    assert not list(tmp_path.glob("copy.h5*"))
    unknown = python(tmp_path, code, "inspect", "weights.safetensors")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "'fused' is not a kind of block" in unknown.stderr
