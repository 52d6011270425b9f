"""The pictures a verb works on: those of --data, else those of the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onceforall.cli.source import run_config
from onceforall.space import UserError

if TYPE_CHECKING:
    from onceforall.nn import Supernet
    from onceforall.train.evaluate import Compute, Evaluator



def evaluator_for(source: Path, net: Supernet, *, data: str | None, root: str | None, compute: Compute) -> Evaluator:
    """An evaluator of `net` on the data set that the options name, or on the one the run was trained on."""
    from onceforall.data import NAMED, DataSpec
    from onceforall.interop.weights import trained_on, weights_file
    from onceforall.train.evaluate import Evaluator
    from onceforall.train.setup import check_classes, data_of, data_spec

    config, search = run_config(source)
    images = 2000 if config is None else config.hparams.calibration_images
    if root is not None and data is None:
        raise UserError("--root", "is given without --data", f"say which data it holds: {', '.join(NAMED)}")
    if data is not None:
        spec = DataSpec(data, root=root) if data in NAMED else DataSpec("folder", root=root or data)
    elif config is not None:
        spec = data_spec(config, search=search)
    else:
        raise UserError("--data", "is missing, and there is no config.json beside the weights",
                        f"give {', '.join(NAMED)} or a folder")
    pictures, trained = data_of(spec), trained_on(weights_file(source))
    if "mean" in trained:  # other pictures are normalised as those it was trained on
        pictures = replace(pictures, mean=tuple(trained["mean"]), std=tuple(trained["std"]))
    check_classes(pictures, net.num_classes, place=f"{source} num_classes")
    return Evaluator(pictures, compute, calibration_images=images, workers=spec.workers,
                     strict=spec.strict)
