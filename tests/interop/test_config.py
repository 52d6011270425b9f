"""Configurations: NNablaNAS's files and ours mean what they should; every mistake is one line with its place."""

from __future__ import annotations

import copy
import itertools
import json
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import (
    Config,
    checked,
    full_space,
    network_space,
    no_decay_patterns,
    schema,
    stage_space,
    subnet_arch,
    valid_archs,
)
from onceforall.interop.nnabla.settings import their_places, training_of
from onceforall.space import search_space
from onceforall.training.engine.output import check_there

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "classification" / "ofa"
T = TypeVar("T")
NAMES = ["search_fullnet", "search_kernel", "search_depth_phase1", "search_depth_phase2", "search_expand_phase1",
         "search_expand_phase2", "train_subnet"]
ORIGINALS = [*NAMES, "search_comp_phase1", "search_comp_phase2"]
COMMAND = re.compile(r"^mpirun -n 8 python main\.py (--search )?-f (\S+) -a (\S+) -o (\S+)$", re.M)
SCRIPTS = sorted(EXAMPLES.rglob("jobs*.sh"))
TUTORIAL = [5, 2, 9, 9, 6, 4, 2, 1, 7, 7, 8, 9, 8, 3, 9, 9, 8, 4, 3, 1]


def example(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((EXAMPLES / f"ofa_imagenet_{name}.json").read_text())
    return values


def put(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `values` with one entry set; `...` deletes it."""
    values = copy.deepcopy(values)
    *parents, last = re.split(r"\.|(?=\[)", path)
    entry: Any = values
    for key in parents:
        entry = entry[int(key[1:-1])] if key.startswith("[") else entry[key]
    if value is ...:
        del entry[last]
    elif last.startswith("["):
        entry[int(last[1:-1])] = value
    else:
        entry[last] = value
    return values


@pytest.mark.parametrize("name", ORIGINALS)
def test_nnablanas_files_are_accepted_as_they_are(oracle: Path, name: str) -> None:
    config = Config.read(oracle / "configs" / f"ofa_imagenet_{name}.json")
    assert Config.from_dict(config.to_dict()) == config
    assert config.network_place == "network.ofa_mbv3"
    assert len(valid_archs(config)) > 0
    algorithm = "OFATrainer" if name == "train_subnet" else "OFASearcher"
    assert checked(config, algorithm, search=True) == config
    assert config.network.compound == ("comp" in name)


@pytest.mark.parametrize("name", ORIGINALS)
def test_our_examples_train_what_nnablanas_files_train(oracle: Path, name: str) -> None:
    ours = Config.read(EXAMPLES / f"ofa_imagenet_{name}.json")
    original = Config.read(oracle / "configs" / f"ofa_imagenet_{name}.json")
    assert stage_space(ours) == stage_space(original)
    assert subnet_arch(ours) == subnet_arch(original)
    assert ours.optimizer == original.optimizer
    assert ours.network.compound == original.network.compound
    wanted, got = (c.hparams.model_dump(exclude={"valid_genotypes", "teacher_network"}) for c in (original, ours))
    assert got == wanted


@pytest.mark.parametrize("name", ORIGINALS)
def test_examples_round_trip(name: str, tmp_path: Path) -> None:
    config = Config.read(EXAMPLES / f"ofa_imagenet_{name}.json")
    config.write(tmp_path / "run" / "config.json")
    assert Config.read(tmp_path / "run" / "config.json") == config
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]
    assert {"seed", "label_smoothing", "subnets_per_step"} <= config.to_dict()["hparams"].keys()


def test_stages_start_from_each_others_folders() -> None:
    jobs = (EXAMPLES / "jobs.sh").read_text()
    commands = COMMAND.findall(jobs)
    assert [Path(file).name for _, file, _, _ in commands] == [f"ofa_imagenet_{name}.json" for name in NAMES]
    assert [bool(search) for search, *_ in commands] == [False, *[True] * 5, False]
    written = {f"{folder}weights.h5" for *_, folder in commands}
    for name in NAMES[1:]:
        config = Config.from_dict(example(name))
        assert config.network.weights in written
        assert config.teacher is None or config.teacher.weights == "log/classification/ofa/imagenet/search/" \
            "K7_E6_D4/weights.h5"


@pytest.mark.parametrize("space", ["mobilenet_v3_large", "proxyless_nas"])
def test_each_stage_contains_the_one_before(space: str) -> None:
    folder = "" if space == "mobilenet_v3_large" else f"{space}/"
    configs = [Config.read(EXAMPLES / folder / f"ofa_imagenet_{name}.json") for name in NAMES[:6]]
    spaces = [stage_space(checked(config, "OFASearcher")) for config in configs]
    for before, after in itertools.pairwise(spaces):
        assert after.covers(before)
    assert spaces[5] == search_space(space)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_every_script_of_commands(script: Path) -> None:
    """Its files are there, and each stage starts from a folder that a command before it writes."""
    written: set[str] = set()
    commands = COMMAND.findall(script.read_text())
    assert len(commands) == script.read_text().count("mpirun")
    for _, file, algorithm, output in commands:
        config = checked(Config.read(EXAMPLES.parents[2] / file), algorithm)
        assert config.network.weights in {None, *written}
        assert config.teacher is None or config.teacher.weights in written
        written.add(f"{output}weights.h5")


def test_the_table_of_the_paper() -> None:
    configs = [Config.from_dict(example(name)) for name in NAMES]
    rows = [(c.hparams.epoch, c.hparams.cosine_warmup_epoch, c.optimizer.train.lr, c.hparams.warmup_lr,
             8 * c.hparams.batch_size_train, c.teacher is not None) for c in configs]
    assert rows == [(185, 5, 0.65, 0.08125, 512, False), (125, 5, 0.24, 0.03, 512, True),
                    (25, 0, 0.02, 0.0025, 1024, True), (125, 5, 0.06, 0.0075, 2048, True),
                    (25, 0, 0.02, 0.0025, 2048, True), (125, 5, 0.06, 0.0075, 2048, True),
                    (2, 0, 0.005, 0.0025, 1024, False)]
    for config in configs:
        assert (config.optimizer.train.weight_decay, config.optimizer.train_no_decay.weight_decay) == (3e-5, 0)


def test_the_genotype_of_the_tutorial() -> None:
    arch = subnet_arch(Config.from_dict(example("train_subnet")))
    assert arch is not None
    assert arch.depths == (2, 4, 3, 2, 4)
    assert str(arch).startswith("224:k7e4,k7e3/")
    assert subnet_arch(Config.from_dict(example("search_kernel"))) is None


def test_the_section_of_the_issue() -> None:
    section = {"num_classes": 1000, "bn_param": [0.9, 1e-5], "drop_rate": 0.1, "depth_candidates": [4],
               "op_candidates": ["MB6 7x7", "MB6 5x5", "MB6 3x3"],
               "weights": "log/classification/ofa/imagenet/search/K7_E6_D4/weights.h5"}
    config = Config.from_dict({**example("search_kernel"), "network": {"ofa": section}})
    assert stage_space(config).stages[0].choices == {"kernel": (3, 5, 7), "expand": (6,)}
    assert config.to_dict()["network"]["ofa"].items() >= section.items()


def test_defaults_are_the_whole_space() -> None:
    config = Config.from_dict({"dataloader": {"digits": {}}, "network": {"ofa": {"space": "mobilenet_v3_large_32px"}},
                               "optimizer": {"train": {"lr": 0.1}}, "hparams": {}})
    assert stage_space(config) == search_space("mobilenet_v3_large_32px") == full_space(config.network)
    assert [arch.resolution for arch in valid_archs(config)] == [12, 24, 32]
    assert config.hparams.mini_batch_train == config.hparams.batch_size_train == 64
    assert config.optimizer.train_no_decay == config.optimizer.train
    assert config.optimizer.train.momentum == 0.9
    assert (config.data.name, config.data.flip, config.data.train_portion) == ("digits", False, 0.9)
    assert config.ignored() == config.unsupported() == []


def test_one_value_stands_for_a_list_of_it() -> None:
    values = put(put(example("search_fullnet"), "network.ofa.op_candidates", "MB6 7x7"),
                 "network.ofa.depth_candidates", 4)
    assert Config.from_dict(values) == Config.from_dict(example("search_fullnet"))


@pytest.mark.parametrize(("listed", "continuous", "step", "sizes"), [
    ([128, 160, 192, 224], True, 4, tuple(range(128, 225, 4))), ([128, 160, 224], False, 4, (128, 160, 224)),
    ([224], True, 4, (224,)), ([128, 224], True, 32, (128, 160, 192, 224)), ([224, 128], True, 48, (144, 192))])
def test_training_resolutions(listed: list[int], continuous: bool, step: int, sizes: tuple[int, ...]) -> None:
    values = put(example("search_kernel"), "hparams.train_image_size_list", listed)
    values["hparams"] |= {"image_size_continuous": continuous, "image_size_seg": step}
    assert stage_space(Config.from_dict(values)).resolutions == sizes


def test_validation_is_the_product_without_repeats() -> None:
    values = example("search_fullnet")
    assert [arch.resolution for arch in valid_archs(Config.from_dict(values))] == [160, 224]
    del values["hparams"]["valid_genotypes"]
    assert len(valid_archs(Config.from_dict(values))) == 2
    del values["hparams"]["valid_image_size_list"]
    assert [arch.resolution for arch in valid_archs(Config.from_dict(values))] == [128, 176, 224]


def test_width_multiplier_reaches_the_space() -> None:
    network = Config.from_dict(put(example("search_kernel"), "network.ofa.width_mult", 1.2)).network
    assert full_space(network).stages[0].width == 32
    assert network_space(network).resolutions == full_space(network).resolutions


@pytest.mark.parametrize("keys", [["_b$", "/bn/_[^/]*$"], "bn#_b", "bn#bias"])
def test_no_decay_keys_exempt_batch_norm_and_biases(oracle: Path, keys: Any) -> None:
    lines = [line.split() for line in (oracle / "params10.txt").read_text().splitlines()]
    names = [line[0] for line in lines if line[-1] == "need_grad=True"]
    patterns = no_decay_patterns(Config.from_dict(put(example("search_kernel"), "hparams.no_decay_keys", keys)))
    exempt = [name for name in names if any(pattern.search(name) for pattern in patterns)]
    assert (len(exempt), len(names) - len(exempt)) == (153, 130)
    assert all(name.endswith(("/_b", "/_beta", "/_gamma")) for name in exempt)


def test_what_has_no_effect_is_named() -> None:
    values = example("search_depth_phase1")
    values["hparams"] |= {"warmup": 3, "step_decay_rate": 0.5, "epoch_steps": 2, "regularizer": {"x": 1},
                          "loss_weights": [1.0], "img_size": 160}
    values["regularizer"] = {"latency": {"weight": 0.1}}
    values["network"]["ofa"]["base_stage_width"] = [16, 16, 24, 40, 80, 112, 160, 960, 1280]
    places = [line.partition(" has no effect: ")[0] for line in Config.from_dict(values).ignored("OFASearcher")]
    assert sorted(places) == sorted([
        "hparams.input_shapes", "hparams.target_shapes", "hparams.warmup", "hparams.step_decay_rate",
        "hparams.epoch_steps", "hparams.regularizer", "hparams.loss_weights", "regularizer",
        "network.ofa.base_stage_width", "hparams.warmup_lr", "hparams.img_size"])


@pytest.mark.parametrize(("path", "value", "line"), [
    ("network.ofa.weight_init", "pytorch", "network.ofa.weight_init: 'pytorch' comes later"),
    ("network.ofa.base_stage_width", [16, 24], "network.ofa.base_stage_width: the widths of mobilenet_v3_large are"),
    ("hparams.teacher_network.ofa.weight_init", "pytorch", "hparams.teacher_network.ofa.weight_init: 'pytorch' ")])
def test_what_comes_later_is_read_but_not_used(path: str, value: Any, line: str) -> None:
    config = Config.from_dict(put(example("search_kernel"), path, value))
    assert [fault.startswith(line) for fault in config.unsupported()] == [True]
    with pytest.raises(UserError, match=re.escape(line)):
        checked(config, "OFASearcher")


ABSENT: Any = ...
KERNEL, SUBNET = "search_kernel", "train_subnet"
BAD: list[tuple[str, str, Any, str]] = [
    (KERNEL, "dataloader", ABSENT, "dataloader: is missing"),
    (KERNEL, "network", ABSENT, "network: is missing"),
    (KERNEL, "hparams", [], "hparams: [] is not an object"),
    (KERNEL, "hparms", {}, "hparms: is not a known key; did you mean hparams?"),
    (KERNEL, "epoch", 3, "epoch: is not a known key; its place is hparams.epoch"),
    (KERNEL, "dataloader", {}, "dataloader: has 0 keys (none); give exactly one of imagenet, cifar10, fashion-mnist"),
    (KERNEL, "dataloader.cifar10", {}, "dataloader: has 2 keys (imagenet, cifar10)"),
    (KERNEL, "dataloader", {"imagnet": {}}, "dataloader.imagnet: is not a known key; did you mean imagenet?"),
    (KERNEL, "dataloader", {"imagenet": None}, "dataloader.imagenet: null is not an object"),
    (KERNEL, "dataloader", {"imagenet": {}}, "dataloader.imagenet: names no pictures; give root, or train_path"),
    (KERNEL, "dataloader", {"folder": {"root": ""}}, "dataloader.folder.root: is empty"),
    (KERNEL, "dataloader", {"cifar10": {"train_path": "a"}}, "dataloader.cifar10.train_path: cifar10 is not read from"),
    (KERNEL, "dataloader.imagenet.valid_file", ABSENT, "dataloader.imagenet.valid_file: is missing"),
    (KERNEL, "dataloader.imagenet.root", "x", "dataloader.imagenet.root: 'x' stands beside train_path"),
    (KERNEL, "dataloader.imagenet.train_portion", 1.5, "dataloader.imagenet.train_portion: 1.5 is not at most 1"),
    (KERNEL, "dataloader.imagenet.train_portion", True, "dataloader.imagenet.train_portion: true is not a number"),
    (KERNEL, "dataloader.imagenet.colortwist", "True", "dataloader.imagenet.colortwist: \"True\" is not true or "
     "false; write true, without quotes"),
    (KERNEL, "dataloader.imagenet.crop_scale", [0.5, 0.1], "dataloader.imagenet.crop_scale: [0.5, 0.1] is not 0 <"),
    (KERNEL, "dataloader.imagenet.crop_scale", [0.5], "dataloader.imagenet.crop_scale[1]: is missing"),
    (KERNEL, "dataloader.imagenet.workers", -1, "dataloader.imagenet.workers: -1 is not at least 0"),
    (KERNEL, "network", {"resnet": {}}, "network.resnet: is not a known key; did you mean ofa_resnet50?"),
    (KERNEL, "network.ofa_mbv3", {}, "network: has 2 keys"),
    (KERNEL, "network.ofa.num_clases", 10, "network.ofa.num_clases: is not a known key; did you mean num_classes?"),
    (KERNEL, "network.ofa.num_classes", "1000", "network.ofa.num_classes: \"1000\" is not a whole number; write 1000"),
    (KERNEL, "network.ofa.num_classes", 1000.5, "network.ofa.num_classes: 1000.5 is not a whole number"),
    (KERNEL, "network.ofa.num_classes", True, "network.ofa.num_classes: true is not a whole number"),
    (KERNEL, "network.ofa.num_classes", 1, "network.ofa.num_classes: 1 is not at least 2"),
    (KERNEL, "network.ofa.bn_param", [0.9], "network.ofa.bn_param[1]: is missing"),
    (KERNEL, "network.ofa.bn_param", [0.9, 1e-5, 1], "network.ofa.bn_param: has 3 entries instead of 2"),
    (KERNEL, "network.ofa.bn_param", [1e-5, 0], "network.ofa.bn_param: [1e-05, 0.0] is not [decay, eps]"),
    (KERNEL, "network.ofa.drop_rate", 1, "network.ofa.drop_rate: 1 is not below 1"),
    (KERNEL, "network.ofa.width_mult", 99, "network.ofa.width_mult: 99.0 is not a number from 0.1 to 8"),
    (KERNEL, "network.ofa.space", "mobilenet_v3", "network.ofa.space: 'mobilenet_v3' is not in the catalogue"),
    (KERNEL, "network.ofa.space", "mobilenet_v3_large?width_mult=2", "network.ofa.space: 'mobilenet_v3_large?width_"),
    (KERNEL, "network.ofa.op_candidates", [], "network.ofa.op_candidates: is empty"),
    (KERNEL, "network.ofa.op_candidates", {"a": 1}, 'network.ofa.op_candidates: {"a": 1} is not a list'),
    (KERNEL, "network.ofa.op_candidates[1]", "MB6 5x3", "network.ofa.op_candidates[1]: 'MB6 5x3' is not an operator"),
    (KERNEL, "network.ofa.op_candidates[1]", "MB6 9x9", "network.ofa.op_candidates[1]: kernel 9 is not one of 3, 5, 7"),
    (KERNEL, "network.ofa.op_candidates[1]", "MB3 5x5", "network.ofa.op_candidates: lacks 'MB3 3x3'"),
    (KERNEL, "network.ofa.depth_candidates", [4, 5], "network.ofa.depth_candidates[1]: 5 is not one of 2, 3, 4"),
    (KERNEL, "network.ofa.depth_candidates", [4, 4], "network.ofa.depth_candidates[1]: 4 is listed twice"),
    (KERNEL, "network.ofa.weights", "", "network.ofa.weights: is empty"),
    (KERNEL, "network.ofa.weight_init", "zeros", "network.ofa.weight_init: \"zeros\" is not 'he_fout'"),
    (SUBNET, "network.ofa.genotype[4]", 12, "network.ofa.genotype[4]: 12 is not an index of the operators (9"),
    (SUBNET, "network.ofa.genotype[3]", 0, "network.ofa.genotype[3]: 0 follows a skip within stage 1"),
    (SUBNET, "network.ofa.genotype[1]", 9, "network.ofa.genotype[0..3]: leaves 1 blocks in stage 1; allowed: 2, 3, 4"),
    (SUBNET, "network.ofa.genotype[0]", 9, "network.ofa.genotype[1]: 2 follows a skip within stage 1"),
    (SUBNET, "network.ofa.genotype[0]", "5", "network.ofa.genotype[0]: \"5\" is not a whole number"),
    (SUBNET, "network.ofa.genotype", TUTORIAL[:19], "network.ofa.genotype: has 19 entries"),
    (KERNEL, "optimizer.train", ABSENT, "optimizer.train: is missing"),
    (KERNEL, "optimizer.valid", {}, "optimizer.valid: is not a known key"),
    (KERNEL, "optimizer.train.name", "Adam", "optimizer.train.name: \"Adam\" is not 'Nesterov', 'Momentum' or 'Sgd'"),
    (KERNEL, "optimizer.train.name", "nesterov", "did you mean Nesterov?"),
    (KERNEL, "optimizer.train.lr", ABSENT, "optimizer.train.lr: is missing; learning rate after the warm-up"),
    (KERNEL, "optimizer.train.lr", 0, "optimizer.train.lr: 0 is not above 0"),
    (KERNEL, "optimizer.train.lr", float("nan"), "optimizer.train.lr: nan is not a finite number"),
    (KERNEL, "optimizer.train.momentum", 1, "optimizer.train.momentum: 1 is not below 1"),
    (KERNEL, "optimizer.train_no_decay.lr", 0.1, "optimizer.train_no_decay.lr: 0.1 differs from optimizer.train.lr"),
    (KERNEL, "optimizer.train.lr_scheduler", "Stairs", "optimizer.train.lr_scheduler: \"Stairs\" is not"),
    (KERNEL, "optimizer", {"train": {"name": "Sgd", "lr": 1, "momentum": 0.9}}, "optimizer.train.momentum: 0.9 does "),
    (KERNEL, "hparams.task", "size", "hparams.task: \"size\" is not 'fullnet', 'kernel', 'depth', 'expand' or 'width'"),
    (KERNEL, "hparams.epochs", 5, "hparams.epochs: is not a known key; did you mean epoch?"),
    (KERNEL, "hparams.epoch", 0, "hparams.epoch: 0 is not at least 1; epochs, the warm-up counted"),
    (KERNEL, "hparams.cosine_warmup_epoch", 126, "hparams.cosine_warmup_epoch: 126 is above epoch, 125"),
    (KERNEL, "hparams.warmup_lr", -1, "hparams.warmup_lr: -1 is not at least 0"),
    (KERNEL, "hparams.mini_batch_train", 48, "hparams.batch_size_train: 64 is not a multiple of mini_batch_train, 48"),
    (KERNEL, "hparams.mini_batch_valid", 33, "hparams.batch_size_valid: 200 is not a multiple of mini_batch_valid"),
    (KERNEL, "hparams.no_decay_keys", ["_b$", "(bn"], "hparams.no_decay_keys[1]: '(bn' is not a regular expression"),
    (KERNEL, "hparams.no_decay_keys", ["_b$", ""], "hparams.no_decay_keys[1]: is empty"),
    (KERNEL, "hparams.no_decay_keys", ["(.+)+_x"], "hparams.no_decay_keys[0]: '(.+)+_x' may take for ever on a name"),
    (KERNEL, "hparams.no_decay_keys", [".*" * 4], "hparams.no_decay_keys[0]: '.*.*.*.*' may take for ever"),
    (KERNEL, "hparams.no_decay_keys", "bn##_b", "hparams.no_decay_keys: 'bn##_b' has an empty part"),
    (KERNEL, "hparams.no_decay_keys", 3, "hparams.no_decay_keys: is not a list of regular expressions"),
    (KERNEL, "hparams.lambda_kd", "1", "hparams.lambda_kd: \"1\" is not a number; write 1, without quotes"),
    (KERNEL, "hparams.teacher_network", {"ofa": {"weight": "x"}}, "hparams.teacher_network.ofa.weight: is not a known "
     "key; did you mean weights?"),
    (KERNEL, "hparams.valid_image_size_list", [], "hparams.valid_image_size_list: is empty"),
    (KERNEL, "hparams.train_image_size_list[0]", 0, "hparams.train_image_size_list[0]: 0 is not at least 8"),
    (KERNEL, "hparams.seed", 2**70, "hparams.seed: is a whole number of more than 63 bits"),
    (KERNEL, "network.ofa.weights", "\ud800", 'network.ofa.weights: "\\ud800" has half a character in it'),
    (KERNEL, "network.ofa.a\nb", 1, 'network.ofa."a\\nb": is not a known key'),
    (KERNEL, "hparams.no_decay_keys", ["(" * 10_000], "hparams.no_decay_keys[0]: '((((("),
    (KERNEL, "hparams.checkpoint_every", 0, "hparams.checkpoint_every: 0 is not above 0"),
]


@pytest.mark.parametrize(("name", "path", "value", "line"), BAD, ids=[ascii(f"{b[1]}={str(b[2])[:20]}") for b in BAD])
def test_a_mistake_is_one_line_with_its_place(name: str, path: str, value: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        Config.from_dict(put(example(name), path, value))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


UNCHECKED: list[tuple[str, str, Any, str, str]] = [
    (KERNEL, "hparams.task", None, "OFASearcher", "task: is missing; give fullnet, kernel, depth, expand or width"),
    (KERNEL, "hparams.task", "kernel", "OFATrainer", "network.ofa.genotype: is missing; OFATrainer trains one"),
    (KERNEL, "hparams.task", "kernel", "DartsSearcher", "--algorithm: 'DartsSearcher' is not known"),
    (KERNEL, "hparams.valid_genotypes[1][4]", 3, "OFASearcher", "hparams.valid_genotypes[1][5]: 1 follows a skip"),
    (KERNEL, "hparams.valid_genotypes[1][7]", 3, "OFASearcher", "hparams.valid_genotypes[1][4..7]: leaves 3 blocks"),
    (KERNEL, "hparams.valid_genotypes[1][7]", 9, "OFASearcher", "hparams.valid_genotypes[1][7]: 9 is not an index"),
    (KERNEL, "hparams.valid_image_size_list[1]", 230, "OFASearcher", "hparams.valid_image_size_list[1]: 230 is not a "
     "resolution of mobilenet_v3_large (128, 132, .., 224); choose another size"),
    (KERNEL, "hparams.train_image_size_list[0]", 64, "OFASearcher", "hparams.train_image_size_list[0]: 64 is not a "
     "resolution of mobilenet_v3_large (128, 132, .., 224); network space mobilenet_v3_large_64px has it"),
    (KERNEL, "hparams.image_size_seg", 2, "OFASearcher", "hparams.image_size_seg: 130 is not a resolution"),
    (KERNEL, "hparams.image_size_seg", 500, "OFASearcher", "hparams.image_size_seg: 500 has no multiple from 128"),
    (SUBNET, "hparams.img_size", 225, "OFATrainer", "hparams.img_size: 225 is not a resolution"),
    (KERNEL, "hparams.teacher_network", None, "OFASearcher", "hparams.teacher_network: is missing; lambda_kd above 0"),
    (KERNEL, "hparams.teacher_network.ofa.weights", None, "OFASearcher", "hparams.teacher_network.ofa.weights: is "),
    (KERNEL, "hparams.teacher_network.ofa.num_classes", 10, "OFASearcher", "teacher_network.ofa.num_classes: 10 is no"),
    (KERNEL, "hparams.teacher_network.ofa.space", "mobilenet_v3_large_64px", "OFASearcher",
     "hparams.teacher_network.ofa.space: mobilenet_v3_large_64px has no resolution 128"),
    (KERNEL, "dataloader.imagenet.train_portion", 1, "OFASearcher", "train_portion: 1 leaves no pictures"),
    (SUBNET, "optimizer", {"train": {"lr": 0.1, "lr_scheduler": "StepScheduler"}}, "OFATrainer",
     "hparams.step_decay_rate: is missing, and lr_scheduler is StepScheduler"),
    ("search_fullnet", "network.ofa.fixed_kernel", True, "OFASearcher", "network.ofa.fixed_kernel: 3 is not one of 7"),
    (KERNEL, "hparams.sampling", "best_up", "OFASearcher", "hparams.predictor: is missing, and sampling best_up"),
    (KERNEL, "hparams.strategy", "sandwich", "OFASearcher", "hparams.subnets_per_step: 1 is below 2"),
]


@pytest.mark.parametrize(("name", "path", "value", "algorithm", "line"), UNCHECKED, ids=[f"{u[1]}={u[2]}-{u[3]}"
                                                                                         for u in UNCHECKED])
def test_what_does_not_go_together_is_found_before_training(name: str, path: str, value: Any, algorithm: str,
                                                            line: str) -> None:
    config = Config.from_dict(put(example(name), path, value))
    with pytest.raises(UserError, match=re.escape(line)):
        checked(config, algorithm, search=True)


@pytest.mark.parametrize(("network", "hparams", "line"), [
    ({}, {"strategy": "sandwich", "subnets_per_step": 4}, "hparams.lambda_kd: 1 stands beside strategy sandwich"),
    ({"compound": True}, {"sampling": "authors"}, "network.ofa.compound: stands beside hparams.sampling authors"),
    ({}, {"sampling": "authors", "delay": 0.5}, "hparams.delay: stands beside hparams.sampling authors"),
    ({}, {"delay": 0.7, "rise": 0.5}, "hparams.rise: 0.5 after a delay of 0.7 is longer than the stage"),
    ({"space": "proxyless_nas", "fixed_kernel": True}, {}, "network.ofa.fixed_kernel: is for spaces of 5 stages"),
    ({"space": "attentive_nas", "op_candidates": None, "depth_candidates": None, "compound": True}, {},
     "network.ofa.compound: is true, and attentive_nas has no blocks with kernel and expand ratio, as many ratios as"),
])
def test_strategies_that_do_not_go_together(network: Any, hparams: Any, line: str) -> None:
    values = example("search_kernel")
    values["network"]["ofa"] |= network
    values["hparams"] |= {"valid_genotypes": None, **hparams}
    if network.get("space"):
        values["hparams"] |= {"lambda_kd": 0, "teacher_network": None}
    with pytest.raises(UserError, match=re.escape(line)):
        checked(Config.from_dict(values), "OFASearcher")


def test_strategies_without_effect() -> None:
    values = put(put(example("search_kernel"), "hparams.lambda_kd", 0), "hparams.teacher_network", None)
    values["hparams"] |= {"predictor": "p", "candidates": 9, "kd_loss": "alpha", "strategy": "sandwich", "delay": 0.5}
    lines = Config.from_dict(values).ignored("OFATrainer")
    for place in ("hparams.predictor", "hparams.candidates", "hparams.strategy", "hparams.delay"):
        assert any(line.startswith(f"{place} has no effect") for line in lines)
    values["hparams"]["strategy"] = "shrinking"
    assert any(line.startswith("hparams.kd_loss has no effect") for line in Config.from_dict(values).ignored())
    values["hparams"]["strategy"] = "one_that_is_added"  # and may learn from the largest
    assert not any(line.startswith("hparams.kd_loss") for line in Config.from_dict(values).ignored())
    values["network"]["ofa"] |= {"compound": True, "fixed_kernel": True}
    lines = Config.from_dict(values).ignored("OFATrainer")
    assert [line.split()[0] for line in lines if "ofa" in line] == ["network.ofa.compound"]
    values["hparams"] |= {"strategy": "sandwich", "subnets_per_step": 2, "sampling": "best_up", "lambda_kd": 1,
                          "teacher_network": {"ofa": {"compound": True, "weights": "full.h5"}}}
    lines = Config.from_dict(values).ignored("OFASearcher")
    assert "hparams.sampling has no effect: sandwich draws subnets_per_step - 2 sub-networks" in lines
    assert "hparams.teacher_network.ofa.compound has no effect: the teacher is the largest sub-network" in lines


def test_named_files_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = Config.from_dict(example("search_kernel"))
    training = training_of(config, search=True)
    for path, kind in [("log/classification/ofa/imagenet/search/K7_E6_D4/weights.h5", "file"),
                       ("data/imagenet/train.txt", "file"), ("data/imagenet/val.txt", "file"),
                       ("data/imagenet/train", "folder"), ("data/imagenet/val", "folder")]:
        line = re.escape(f"there is no {kind} '{path}'; paths start from the folder")
        with pytest.raises(UserError, match=line) as at, their_places(config):
            check_there(training)
        assert at.value.place.split(".")[:2] in (["network", "ofa"], ["dataloader", "imagenet"])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch() if kind == "file" else Path(path).mkdir()
    check_there(training)


@pytest.mark.parametrize(("content", "line"), [
    (b"", "is not JSON: line 1, column 1"), (b'{"a": 1,}', "is not JSON: line 1"), (b"[]", "holds no JSON object"),
    (b"\xff\xfe", "cannot be read: "), (b'{"hparams": {"epoch": 1, "epoch": 2}}', "hparams.epoch: is given twice"),
    (b'{"hparams": {"warmup_lr": NaN}}', "hparams.warmup_lr: nan is not a finite number"),
    (b'{"hparams": {"x": [1, -Infinity]}}', "hparams.x[1]: -inf is not a finite number"),
    (b'{"hparams": {"lr": 1e999}}', "hparams.lr: inf is not a finite number"),
    (b"[" * 100_000, "is not JSON that can be read"), (b'{"a": ' * 30 + b"1" + b"}" * 30, "nested more than 20"),
    (b'{"a": ' + b"1" * 5000 + b"}", "is not JSON that can be read")], ids=range(11))
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, line: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        Config.read(path)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.json: cannot be read: No such file"):
        Config.read(tmp_path / "nothing.json")
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        Config.read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        Config.from_dict(example("search_kernel")).write(tmp_path / "file" / "config.json")


def test_several_mistakes_name_all_places() -> None:
    values = put(put(example("search_kernel"), "hparams.epoch", "5"), "network.ofa.drop_rate", None)
    with pytest.raises(UserError) as caught:
        Config.from_dict(values)
    assert str(caught.value) == ("network.ofa.drop_rate: null is not a number; dropout before the classifier; "
                                 "and 1 more: hparams.epoch")


def test_the_schema_describes_every_key() -> None:
    printed = json.loads(json.dumps(schema()))
    assert list(printed["properties"]) == ["dataloader", "network", "optimizer", "hparams", "regularizer"]
    for section in [printed, *printed["$defs"].values()]:
        assert section["additionalProperties"] is False
        assert all(entry.get("description") for entry in section["properties"].values())


def test_reading_a_configuration_does_not_load_torch() -> None:
    code = "import sys, onceforall.interop.nnabla.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The path of every entry, as `put` takes it."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        place = f"{path}[{key}]" if isinstance(value, list) else f"{path}.{key}" if path else key
        yield place
        yield from leaves(entry, place)


JUNK: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=8),
    st.sampled_from([[], {}, [[]], {"ofa": {}}, "MB6 7x7", 4, 9, 128, "bn#bias", [4], [224], object(), b"x", 1j]))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32), junk=st.lists(JUNK, min_size=1, max_size=3))
def test_any_mutation_is_a_config_or_a_user_error(name: str, seed: int, junk: list[Any]) -> None:
    rng, values = random.Random(seed), example(name)
    for value in junk:
        place = rng.choice(list(leaves(values)))
        removable = not place.endswith("]") and rng.random() < 0.3
        values = put(values, place, ... if removable else value)
        if not values:
            break
    _read_and_use(values)


def _read_and_use(values: dict[str, Any]) -> None:
    config = _tried(lambda: Config.from_dict(values))
    if config is None:
        return
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert isinstance(config.ignored("OFATrainer") + config.unsupported(), list)
    _tried(lambda: checked(config, "OFASearcher"))
    _tried(lambda: checked(config, "OFATrainer", search=True))
    _tried(lambda: stage_space(config))
    assert all(pattern.pattern for pattern in no_decay_patterns(config))


def _tried(use: Callable[[], T]) -> T | None:
    """What `use` gives, None for a mistake in one line; every other exception gets through."""
    message = ""
    try:
        return use()
    except UserError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None
