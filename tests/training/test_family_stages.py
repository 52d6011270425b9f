"""The commands of every family's jobs.sh, one after the other, with few and small pictures and narrow nets."""

from __future__ import annotations

import json
import random
import shlex
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from onceforall.cli import main
from onceforall.interop.nnabla.config import Config, stage_space, subnet_arch
from onceforall.space import search_space
from onceforall.weights.nets import open_weights

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path("examples/classification/ofa")
FAMILIES = sorted(path.parent.name for path in (ROOT / EXAMPLES).glob("*/jobs.sh"))


def made_small(config: dict[str, Any]) -> dict[str, Any]:
    """A few pictures, a step or two, narrow nets, the smallest size of the space; everything else as it is."""
    config["dataloader"] = {"folder": {"root": "pictures", "train_portion": 0.8, "workers": 0}}
    hparams = config["hparams"]
    teacher = hparams.get("teacher_network")
    for choice in (config["network"], *([teacher] if teacher else [])):
        for network in choice.values():
            network |= {"num_classes": 2, "width_mult": 0.15}
    hparams |= {"epoch": 1, "cosine_warmup_epoch": 0, "calibration_images": 8,
                **{f"{kind}_{part}": 8 for kind in ("batch_size", "mini_batch") for part in ("train", "valid")}}
    if "train_image_size_list" in hparams:
        size = hparams["train_image_size_list"][0]
        hparams |= {"train_image_size_list": [size], "valid_image_size_list": [size]}
        if "valid_genotypes" in hparams:
            hparams["valid_genotypes"] = hparams["valid_genotypes"][:1]
    else:
        hparams["img_size"] = min(hparams["img_size"], 192)
    return config


def test_there_is_a_folder_for_each_family():
    assert FAMILIES == ["attentive_nas", "ofa_resnet50", "ofa_xception", "proxyless_nas"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_stages_in_a_row(family, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    noise = random.Random(0)
    for part, name, i in product(("train", "val"), ("cat", "dog"), range(10)):
        (path := Path("pictures", part, name)).mkdir(parents=True, exist_ok=True)
        Image.frombytes("RGB", (40, 40), noise.randbytes(4800)).save(path / f"{i}.png")
    lines = [line for line in (ROOT / EXAMPLES / family / "jobs.sh").read_text().splitlines() if line[:6] == "mpirun"]
    used, before = set(), None
    for line in lines:
        words = shlex.split(line)
        assert words[:5] == ["mpirun", "-n", "8", "python", "main.py"]
        path = Path(words[words.index("-f") + 1])
        used.add(path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made_small(json.loads((ROOT / path).read_text()))))
        with pytest.raises(SystemExit) as end:
            main(["train", "-c", "cpu", *words[5:]])
        assert end.value.code == 0, capsys.readouterr().err
        config, trained = Config.read(path), open_weights(Path(words[words.index("-o") + 1]) / "weights.h5")
        if "OFATrainer" in words:
            assert trained.arch == subnet_arch(config)
            continue
        assert trained.space.count == stage_space(config).count
        assert before is None or (trained.space.covers(before) and trained.space.count > before.count)
        before = trained.space
    assert used == {file.name for file in (ROOT / EXAMPLES / family).glob("*.json")}
    last = [line for line in lines if "OFASearcher" in line][-1]
    space = stage_space(Config.read(ROOT / last.split("-f ")[1].split()[0]))
    assert space.count == search_space(space.name).count  # in the end the whole of it
