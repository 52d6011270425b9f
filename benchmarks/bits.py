"""Trains the same in two commits, and compares every array of what comes out, bit for bit.

    python benchmarks/bits.py COMMIT [--only fit,tutorial] [--short] [--jobs 2] [--keep FOLDER]

COMMIT is compared with the working tree. Both run with one thread, and with convolutions whose sums have a fixed order
(ONCEFORALL_CONV=own). The cases are commands, so that the two trees may differ inside as they like:

    fit         `ofa fit` on the digits: every stage, and the sub-networks that it saves
    tutorial    two stages of the tutorial under `mpirun -n 2`
    strategies  a stage by the sandwich rule, and one of CompOFA's compound space
    finetune    `ofa finetune` of a sub-network that `ofa extract` wrote
    families    twenty steps of Xception-41, and of ResNet50D

--short trains the digits of `fit` for a few epochs. Each tree reads what it wrote by its own `onceforall.load` and
`load_subnet`, so that neither the form of a file nor the names in it matter. Exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples/classification/ofa"
MPIRUN = "mpirun --allow-run-as-root --oversubscribe -n 2"
DIGITS = {"space": "mobilenet_v3_large_32px", "width_mult": 0.25, "num_classes": 10}
READ = """
import hashlib, json, sys
import onceforall
def digests(kind, path):
    net = onceforall.load(path) if kind == "net" else onceforall.load_subnet(path)
    return {name: str(value.dtype) + " " + hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
            for name, value in net.state_dict().items()}
json.dump({path: digests(*path.split(":")) for path in sys.argv[1:]}, sys.stdout)
"""


@dataclass(frozen=True)
class Tree:
    """The source of a commit, and the folder in which it works."""

    source: Path
    place: Path

    def run(self, *words: str) -> str:
        """What a command prints that runs with this source; where it fails, so does the comparison."""
        env = {**os.environ, "PYTHONPATH": str(self.source / "src"), "ONCEFORALL_CONV": "own", "OMP_NUM_THREADS": "1",
               "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(words, cwd=self.place, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.source}: {shlex.join(words)}: {done.returncode}\n{done.stderr[-3000:]}")
        return done.stdout

    def ofa(self, command: str) -> None:
        """A command of ours."""
        self.run(sys.executable, "-c", "from onceforall.cli import main; main()", *shlex.split(command))

    def stage(self, name: str, config: dict[str, Any], *, starter: str = "") -> None:
        """A stage by a configuration, into the folder of that name."""
        (self.place / f"{name}.json").write_text(json.dumps(config))
        self.run(*shlex.split(starter), sys.executable, str(self.source / "main.py"), "--search", "-f", f"{name}.json",
                 "-a", "OFASearcher", "-o", name)

    def digests(self, nets: list[str]) -> dict[str, dict[str, str]]:
        """Of every array, by net and name."""
        found: dict[str, dict[str, str]] = json.loads(self.run(sys.executable, "-c", READ, *nets))
        return found


def fit(tree: Tree, short: bool) -> list[str]:
    """The stages of `ofa fit` on the digits, and the sub-networks beside them."""
    tree.ofa(f"fit -o fit {'--epochs-scale 0.1' if short else ''}")
    stages = sorted(path.parent for path in tree.place.glob("fit/*/config.json"))
    subnets = sorted(path.parent for path in tree.place.glob("fit/subnets/*/model.json"))
    return [f"net:{path.relative_to(tree.place)}" for path in stages] + [
        f"subnet:{path.relative_to(tree.place)}" for path in subnets]


def tutorial(tree: Tree, _: bool) -> list[str]:
    """The largest network, and elastic kernel sizes with it as the teacher; two processes of two steps an epoch."""
    for name, epochs in (("fullnet", 1), ("kernel", 2)):
        config = _small(f"ofa_imagenet_search_{name}.json", size=128, batch=20, epochs=epochs)
        config["hparams"]["mini_batch_train"] = 10
        if name == "kernel":
            config["network"]["ofa"]["weights"] = "fullnet/weights.h5"
            config["hparams"]["teacher_network"]["ofa"]["weights"] = "fullnet/weights.h5"
        tree.stage(name, config, starter=MPIRUN)
    return ["net:fullnet", "net:kernel"]


def strategies(tree: Tree, _: bool) -> list[str]:
    """Two epochs each of the sandwich rule and of compound scaling."""
    operators = [f"MB{expand} {kernel}x{kernel}" for expand in (3, 4, 6) for kernel in (3, 5, 7)]
    for name, network, hparams in (("sandwich", {}, {"strategy": "sandwich"}), ("compofa", {"compound": True}, {})):
        tree.stage(name, {
            "dataloader": {"digits": {"workers": 0}},
            "network": {"ofa": {**DIGITS, "op_candidates": operators, "depth_candidates": [2, 3, 4], **network}},
            "optimizer": {"train": {"lr": 0.05, "weight_decay": 3e-5}},
            "hparams": {"task": "expand", "epoch": 2, "batch_size_train": 64, "train_image_size_list": [12, 16],
                        "valid_image_size_list": [16], "calibration_images": 200, "subnets_per_step": 4, **hparams}})
    return ["net:sandwich", "net:compofa"]


def finetune(tree: Tree, _: bool) -> list[str]:
    """An epoch for a sub-network of one stage."""
    tree.ofa("fit -o run --epochs-scale 0.1")
    tree.ofa("extract run --arch smallest -o subnet")
    tree.ofa("finetune subnet -o finetuned --epochs 1")
    return ["subnet:subnet", "subnet:finetuned"]


def families(tree: Tree, _: bool) -> list[str]:
    """Twenty steps each of two other networks, with what their configurations leave out of weight decay."""
    for name in ("xception", "resnet50"):
        tree.stage(name, _small(f"ofa_{name}/ofa_imagenet_search_fullnet.json", size=128, batch=8, epochs=1))
    return ["net:xception", "net:resnet50"]


CASES: dict[str, Callable[[Tree, bool], list[str]]] = {
    case.__name__: case for case in (fit, tutorial, strategies, finetune, families)}


def _small(example: str, *, size: int, batch: int, epochs: int) -> dict[str, Any]:
    """A configuration of the tutorial for 160 enlarged digits."""
    config: dict[str, Any] = json.loads((EXAMPLES / example).read_text())
    config["dataloader"] = {"imagenet": {
        "train_path": "pictures", "train_file": "list.txt", "valid_path": "pictures", "valid_file": "list.txt",
        "train_portion": 0.75, "colortwist": True, "workers": 0}}
    hparams = config["hparams"]
    hparams.update({
        "epoch": epochs, "cosine_warmup_epoch": 0, "batch_size_train": batch, "mini_batch_train": batch,
        "batch_size_valid": 40, "mini_batch_valid": 40, "calibration_images": 40, "train_image_size_list": [size],
        "valid_image_size_list": [size], "valid_genotypes": hparams["valid_genotypes"][:1]})
    return config


def _write_pictures(place: Path) -> None:
    """160 digits, ten times enlarged, and their list."""
    (place / "pictures").mkdir(parents=True)
    digits = load_digits()
    for i, picture in enumerate(digits.images[:160]):
        Image.fromarray((picture * 15.9).astype("uint8")).resize((80, 80)).save(place / f"pictures/{i:03d}.png")
    (place / "list.txt").write_text("".join(f"{i:03d}.png {digits.target[i]}\n" for i in range(160)))


def compare(case: str, trees: list[Tree], *, short: bool) -> tuple[int, list[str]]:
    """How many arrays a case has, and which differ."""
    found = []
    for tree in trees:
        _write_pictures(tree.place)
        found.append(tree.digests(CASES[case](tree, short)))
    old, new = ({f"{net} {name}": digest for net, arrays in side.items() for name, digest in arrays.items()}
                for side in found)
    return len(old), sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def main() -> None:
    """Run the cases in both trees and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--keep", type=Path, help="where to work, instead of in a folder that is removed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.keep or Path(temporary)).resolve()
        before = folder / "source"
        before.mkdir(parents=True)
        archive = subprocess.run(["git", "archive", options.commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "x"], cwd=before, input=archive, check=True)

        def run(case: str) -> tuple[int, list[str]]:
            trees = [Tree(before, folder / "before" / case), Tree(ROOT, folder / "now" / case)]
            return compare(case, trees, short=options.short)

        cases, failed = options.only.split(","), False
        with ThreadPoolExecutor(options.jobs) as pool:
            for case, (count, differing) in zip(cases, pool.map(run, cases), strict=True):
                failed |= bool(differing)
                print(f"{case:12} {count} arrays, {len(differing)} differ", *differing[:10], sep="\n    ", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
