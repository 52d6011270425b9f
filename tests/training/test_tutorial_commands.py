"""The tutorial's seven commands, word for word from jobs.sh, under mpirun and on real pictures."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from onceforall.interop.nnabla.weights import read

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path("examples/classification/ofa")
COMMANDS = [line for line in (ROOT / EXAMPLES / "jobs.sh").read_text().splitlines() if line.startswith("mpirun")]
ARRAYS = [371, 411, 411, 411, 411, 411, 288]  # K7 has no kernel matrices; the sub-network is a static net
# a process takes seconds to start; test_distributed.py compares steps of depth and expand in two with those of one
PROCESSES = [2, 2, 1, 1, 1, 1, 2]
STEPS = {"epoch": 1, "cosine_warmup_epoch": 0, "batch_size_train": 20, "mini_batch_train": 10, "batch_size_valid": 10,
         "mini_batch_valid": 10, "calibration_images": 20, "print_frequency": 1}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, reference_data) -> Path:
    """A folder with main.py, the pictures, and the examples' configurations made small."""
    if shutil.which("mpirun") is None:
        pytest.skip("mpirun is not here (Debian: openmpi-bin)")
    folder = tmp_path_factory.mktemp("tutorial")
    shutil.copy(ROOT / "main.py", folder)
    with tarfile.open(reference_data / "imagenet-sample.tar") as archive:
        archive.extractall(folder / "pictures", filter="data")
    paths = sorted(p.relative_to(folder / "pictures") for p in (folder / "pictures").rglob("*.JPEG"))
    assert len(paths) == 160
    lines = [f"{path} {label}\n" for label, path in enumerate(paths)]
    (folder / "train.txt").write_text("".join(lines[:80]))
    (folder / "valid.txt").write_text("".join(lines[:20]))
    (folder / EXAMPLES).mkdir(parents=True)
    for source in (ROOT / EXAMPLES).glob("*.json"):
        (folder / EXAMPLES / source.name).write_text(json.dumps(made_small(json.loads(source.read_text()))))
    return folder


def made_small(config: dict[str, Any]) -> dict[str, Any]:
    """Other paths, few steps, small pictures, a narrow network of the same blocks; everything else as it is."""
    config["dataloader"]["imagenet"] = {
        "train_path": "pictures", "train_file": "train.txt", "valid_path": "pictures", "valid_file": "valid.txt",
        "train_portion": 0.9, "colortwist": True, "workers": 0}
    hparams = config["hparams"]
    for networks in (config["network"], hparams.get("teacher_network", {})):
        for network in networks.values():
            network["width_mult"] = 0.15
    hparams.update(STEPS)
    if "train_image_size_list" in hparams:
        hparams.update(train_image_size_list=[128, 132], valid_image_size_list=[128])
        hparams["valid_genotypes"] = [hparams["valid_genotypes"][0]]
    else:
        hparams["img_size"] = 128
    return config


@pytest.mark.slow
def test_seven_commands_in_a_row(workplace):
    assert len(COMMANDS) == 7
    for command, arrays, processes in zip(COMMANDS, ARRAYS, PROCESSES, strict=True):
        words = shlex.split(command)
        assert words[:4] == ["mpirun", "-n", "8", "python"]
        words[:4] = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(processes), sys.executable]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(words, cwd=workplace, env=env, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        output = workplace / words[words.index("-o") + 1]
        found = read(output / "weights.h5").arrays
        assert len(found) == arrays
        records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        assert records[-1]["kind"] == "valid"
        assert records[-1]["images"] == 20  # a class of one picture is not split: the list of valid_file validates
        assert ("40 kernel matrices start at identity" in done.stderr) == ("K357_E6_D4/" in command.split()[-1])
        assert records[0]["images"] == 80  # every picture once, whether one process takes all or each of two its half
