"""A small configuration on the digits, for tests that train for real."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from onceforall.interop.nnabla.config import Config

SPACE = {"space": "mobilenet_v3_large_32px", "width_mult": 0.15, "num_classes": 10}
OPERATORS = {"fullnet": ["MB6 7x7"], "kernel": ["MB6 7x7", "MB6 5x5", "MB6 3x3"],
             "expand": ["MB4 3x3", "MB4 5x5", "MB4 7x7", "MB6 3x3", "MB6 5x5", "MB6 7x7"]}


def config(task: str = "fullnet", *, weights: Path | None = None, teacher: Path | None = None, dropout: float = 0.1,
           depth: int = 2, **hparams: Any) -> Config:
    """A stage of a few steps on 16 pixels, of `depth` blocks in each stage of the network; `hparams` overrides."""
    network: dict[str, Any] = {**SPACE, "drop_rate": dropout, "op_candidates": OPERATORS[task],
                               "depth_candidates": [depth]}
    values: dict[str, Any] = {
        "task": task, "epoch": 2, "batch_size_train": 64, "train_image_size_list": [12, 16],
        "valid_image_size_list": [16], "calibration_images": 100, "batch_size_valid": 200, "print_frequency": 5}
    if weights is not None:
        network["weights"] = str(weights)
    if teacher is not None:
        values["lambda_kd"] = 1.0
        values["teacher_network"] = {"ofa": {**SPACE, "drop_rate": 0.0, "op_candidates": ["MB6 7x7"],
                                             "depth_candidates": [depth], "weights": str(teacher)}}
    return Config.from_dict({
        "dataloader": {"digits": {}}, "network": {"ofa": network},
        "optimizer": {"train": {"lr": 0.05, "weight_decay": 3e-5}}, "hparams": {**values, **hparams}})


deep = partial(config, depth=4)  # its steps take long enough to be hit by a signal
