"""What is registered from outside the package works from training to the exported file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forked import run
from safetensors import safe_open

HERE = Path(__file__).parent
CONFIG = {
    "dataloader": {"digits": {}}, "network": {"ofa": {"space": "fused_net", "num_classes": 10}},
    "optimizer": {"train": {"lr": 0.05, "weight_decay": 3e-5}},
    "hparams": {"task": "expand", "epoch": 1, "train_image_size_list": [8, 16], "image_size_continuous": False,
                "batch_size_train": 256},
}


def ofa(folder: Path, *words: str, registered: bool = True) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which imports the outsider's file unless `registered` is false."""
    code = f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + ("import fused\n" if registered else "")
    code += "from onceforall.cli import main\nmain(sys.argv[1:])\n"
    return run([sys.executable, "-c", code, *words], cwd=folder)


@pytest.mark.slow
def test_a_block_of_other_layers(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "fused.json").write_text(json.dumps(CONFIG))
    for words in (
            "train -f fused.json -a OFASearcher --search -o run", "extract run --arch smallest -o smallest",
            "export smallest --to onnx", "convert run copy.safetensors",
            "search run --objective accuracy,macs --collect 20 --refine 0 --measure 1 --population 20 --generations 3"):
        done = ofa(tmp_path, *words.split())
        assert done.returncode == 0, done.stderr[-2000:]
    assert "weights.h5 is not written: NNablaNAS has no names" in (tmp_path / "run" / "log.txt").read_text()
    assert {path.name for path in (tmp_path / "run").glob("weights*")} == {"weights.safetensors"}
    assert json.loads((tmp_path / "smallest" / "model.json").read_text())["exports"]["model.onnx"]
    with safe_open(tmp_path / "run" / "weights.safetensors", "pt") as file:
        assert "stages.0.0.grow.conv.weight" in file.keys()  # noqa: SIM118  # no mapping
    refused = ofa(tmp_path, "convert", "run", "copy.h5")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "NNablaNAS and the authors have no names" in refused.stderr and ".safetensors" in refused.stderr
    assert not list(tmp_path.glob("copy.h5*"))
    unknown = ofa(tmp_path, "inspect", "run", registered=False)
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1)
    assert "'fused' is not a kind of block" in unknown.stderr
