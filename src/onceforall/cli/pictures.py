"""The pictures a verb works on: those of --data, else those of the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onceforall.cli.source import run_config
from onceforall.space import UserError

if TYPE_CHECKING:
    from onceforall.train.evaluate import Compute, Evaluator

NAMED = ("digits", "fashion-mnist", "cifar10")


def evaluator_for(source: Path, data: str | None, root: str | None, compute: Compute) -> Evaluator:
    """An evaluator on the data set that the options name, or on the one the run was trained on."""
    from onceforall.data import DataSpec
    from onceforall.train.evaluate import Evaluator
    from onceforall.train.setup import data_of, data_spec

    config = run_config(source)
    images = 2000 if config is None else config.hparams.calibration_images
    if data is not None:
        spec = DataSpec(data, root=root) if data in NAMED else DataSpec("folder", root=root or data)
    elif config is not None:
        spec = data_spec(config, search=True)
    else:
        raise UserError("--data", "is missing, and there is no config.json beside the weights",
                        f"give {', '.join(NAMED)} or a folder")
    return Evaluator(data_of(spec), compute, calibration_images=images, workers=spec.workers)
