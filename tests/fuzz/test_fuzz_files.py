"""Configurations, latency tables, measured rows, predictors, fronts and descriptions, damaged."""

from __future__ import annotations

import json
import math
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from fuzzing import ODD, SPACE, cases, damaged, json_bytes, judged
from hypothesis import given
from hypothesis import strategies as st

from onceforall.cost.measured import read_rows
from onceforall.cost.population import macs_table
from onceforall.cost.predictor_file import load, save
from onceforall.interop.nnabla.config import Config
from onceforall.interop.nnabla.settings import training_of
from onceforall.latency.table import all_parts, read_table
from onceforall.searching.front import Row
from onceforall.searching.record import Record, front_arch, read_record
from onceforall.training.course import course_of
from onceforall.training.stage import Training
from onceforall.training.strategy import Moment

_GROUP = {"name": "Nesterov", "lr": 0.1, "momentum": 0.9, "weight_decay": 3e-5, "lr_scheduler": "CosineScheduler"}
CONFIG = {
    "dataloader": {"digits": {"train_portion": 0.9, "crop_scale": [0.7, 1], "flip": False, "workers": 0}},
    "network": {"ofa": {"space": "mobilenet_v3_large_32px", "num_classes": 10, "bn_param": [0.9, 1e-5],
                        "width_mult": 0.15, "op_candidates": ["MB6 3x3", "MB6 5x5"], "depth_candidates": [2, 4],
                        "compound": True}},
    "optimizer": {"train": _GROUP, "train_no_decay": {**_GROUP, "weight_decay": 0}},
    "hparams": {"task": "expand", "epoch": 2, "batch_size_train": 32, "batch_size_valid": 32, "seed": 1,
                "train_image_size_list": [12, 16], "valid_image_size_list": [12], "no_decay_keys": ["_b$"],
                "valid_genotypes": [[0] * 20, [1, 1, 2, 2] * 5], "lambda_kd": 0, "strategy": "sandwich",
                "sampling": "seed", "subnets_per_step": 3, "delay": 0.5, "rise": 0.25, "kd_loss": "alpha"}}
_LISTS = {"train_image_size_list": [128], "valid_image_size_list": [128]}
RESNET = {**CONFIG, "network": {"ofa_resnet50": {
    "num_classes": 10, "width_mult": 0.15, "depth_list": [0, 2], "expand_ratio_list": [0.25, 0.35],
    "width_mult_list": [0.8, 1.0], "genotype": {"d": [0, 2, 0, 2, 0], "e": 0.35, "w": [0.8, 1.0] * 3}}},
    "hparams": {**CONFIG["hparams"], **_LISTS, "task": "width", "valid_genotypes": [[0, 0.25, 0.8]]}}
_STAIRS = {**_GROUP, "lr_scheduler": "StepScheduler"}
XCEPTION = {**CONFIG, "network": {"ofa_xception": {"num_classes": 10, "width_mult": 0.15, "op_candidates": [
    "XP1 7x7 3", "XP0.8 7x7 3"], "genotype": [0, 1] * 4}},
    "optimizer": {"train": _STAIRS, "train_no_decay": {**_STAIRS, "weight_decay": 0}},
    "hparams": {**CONFIG["hparams"], **_LISTS, "valid_genotypes": [[1] * 8], "step_decay_rate": 0.94, "epoch_steps": 2}}
TABLE = {"about": {"device": "x"}, "scale": 1.0, "offset_ms": 0.1, "timings": [
    {"resolution": 12, "layer": name, "ms": 0.5, "spread_ms": 0.1, "n": 3} for name in list(all_parts(SPACE, 12))[:4]]}
ROWS = [{**SPACE.middle.to_dict(SPACE), "top1": 0.5}, {"arch": str(SPACE.largest), "top1": 1}]
_ROW = Row(SPACE.smallest, {"macs": 5.0, "params": 7.0}, 0.5, 0.4)
FRONT = Record(SPACE, 10, ("accuracy", "macs"), {}, [_ROW, _ROW], 5, 1.0).to_dict()


@pytest.fixture
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("case")


@pytest.mark.slow
@cases(600)
@given(data=json_bytes(CONFIG) | json_bytes(RESNET) | json_bytes(XCEPTION),
       algorithm=st.sampled_from(["OFASearcher", "OFATrainer"]))
def test_configurations(place, data, algorithm):
    path = place / "config.json"
    path.write_bytes(data)
    config = judged(lambda: Config.read(path))
    training = None if config is None else judged(lambda: training_of(config, algorithm))
    if training is not None:
        assert Config.from_dict(config.to_dict()) == config
        assert Training.from_dict(json.loads(json.dumps(training.to_dict()))) == training
        course = judged(lambda: course_of(training))
        if course is not None:
            for step in (0, 5, 9):
                terms = course.strategy(course.space, random.Random(0), Moment(step, 10))
                assert terms
                assert all(course.space.contains(term.arch) for term in terms)


@cases(150)
@given(st.sampled_from([(), ("dataloader",), ("dataloader", "digits"), ("network",), ("network", "ofa"), ("optimizer",),
                        ("optimizer", "train"), ("hparams",)]), st.text(max_size=8), ODD)
def test_unknown_keys_of_configurations(place, key, value):
    values = json.loads(json.dumps(CONFIG))
    inside = values
    for part in place:
        inside = inside[part]
    if key in ("root", "folder", "digits", "imagenet", "cifar10", "seed", "epoch"):
        return
    inside[key] = value
    assert judged(lambda: Config.from_dict(values)) is None


@cases(250)
@given(data=json_bytes(TABLE))
def test_latency_tables(place, data):
    _table(place / "table.json", data)


@cases(200)
@given(data=st.data())
def test_latency_tables_as_csv(place, data):
    rows = [list(TABLE["timings"][0])] + [list(map(str, row.values())) for row in TABLE["timings"]]
    for _ in range(data.draw(st.integers(0, 2))):
        row = data.draw(st.sampled_from(rows))
        row[data.draw(st.integers(0, 4))] = str(data.draw(ODD))
    text = "\n".join(map(",".join, rows)).encode("utf-8", "replace")
    _table(place / "table.csv", data.draw(st.just(text) | damaged(text)))


@cases(200)
@given(data=st.data())
def test_latency_tables_as_yaml(place, data):
    text = b"Conv-input:1x1x3-output:1x1x8: {mean: 0.5, std: 0.1, count: 3}\nx: {mean: 1, std: 2, count: 4}\n"
    known = [b"", b"[" * 20_000, b"a: !!python/object/apply:os.system ['touch x']", b'a: {mean: !!int "", std: 0}',
             b'a: {mean: !!float "", std: 0}', b"a: !!timestamp x", b"a: &a [*a]", b"- 1", b"a: {mean: .nan, std: 1}",
             b"&a a: {mean: *a}", b"!!set {a}", b"a: {mean: 1, std: 1, count: 1}\na: {mean: 2, std: 1, count: 1}"]
    name = data.draw(st.sampled_from(["12_table.yaml", "x.yaml", "².yaml", "12.yaml"]))
    _table(place / name, data.draw(st.sampled_from(known) | damaged(text)))
    (place / name).unlink()


def _table(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    table = judged(lambda: read_table(path))
    if table is not None:
        assert table.timings and table.scale > 0 and math.isfinite(table.offset_ms)
        for (size, name), timing in table.timings.items():
            assert (size is None or (type(size) is int and size > 0)) and name
            assert 0 <= timing.ms < 1e9 and timing.spread_ms >= 0 and timing.n >= 1


@cases(250)
@given(data=st.data())
def test_measured_rows(place, data):
    path = place / "rows.jsonl"
    lines = [json.dumps(row).encode() for row in ROWS]
    lines[data.draw(st.integers(0, 1))] = data.draw(json_bytes(data.draw(st.sampled_from(ROWS))))
    path.write_bytes(b"\n".join(lines))
    found = judged(lambda: read_rows(path, SPACE))
    if found is not None:
        assert ((found.top1 >= 0) & (found.top1 <= 1)).all()
        for row in map(json.loads, filter(str.strip, path.read_text(encoding="utf-8-sig").splitlines())):
            assert row.keys() in ({"arch", "top1"}, ROWS[0].keys(), ROWS[0].keys() - {"image_size"})
            assert not isinstance(row["top1"], bool)


@pytest.mark.slow
@cases(200)
@given(data=st.data())
def test_predictors(place, data):
    path = place / "predictor.safetensors"
    save(macs_table(SPACE), path, about={"regressor": "table"})
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:8 + length])
    if data.draw(st.booleans()):
        header["__metadata__"]["onceforall.predictor"] = data.draw(json_bytes(json.loads(
            header["__metadata__"]["onceforall.predictor"]))).decode("utf-8", "replace")
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length:])
    else:
        path.write_bytes(data.draw(damaged(whole)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = judged(lambda: load(path, space=SPACE))
    if found is not None:
        assert np.isfinite(found.of(np.array([found.space.encode(found.space.largest)]))).all()


@cases(250)
@given(data=json_bytes(FRONT), row=st.integers(-1, 2))
def test_fronts(place, data, row):
    path = place / "front.json"
    path.write_bytes(data)
    arch = judged(lambda: front_arch(path, row, SPACE))
    if arch is not None:
        assert SPACE.contains(arch)
        arch.check_foreign(SPACE, read_record(path)["front"][row]["foreign"])
        for found in read_record(path)["front"]:
            assert all(math.isfinite(cost) for cost in found["costs"].values())
            measured, predicted = found["accuracy_measured"], found["accuracy_predicted"]
            assert measured is None or 0 <= measured <= 1
            assert predicted is None or math.isfinite(predicted)
