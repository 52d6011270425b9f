"""What a verb scores, and on which pictures: those of --data, else those of the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onceforall.cli.running import compute_of
from onceforall.cli.source import Which, arch_of, run_config
from onceforall.space import UserError

if TYPE_CHECKING:
    from onceforall.data import DataSpec
    from onceforall.export.folder import Scored
    from onceforall.interop.weights import Trained
    from onceforall.train.evaluate import Compute, Evaluator


@dataclass(frozen=True)
class Asked:
    """SOURCE, its pictures, and how to compute, as the options of a verb name them."""

    source: str
    space: str | None
    data: str | None
    root: str | None
    device: str
    workers: int | None
    threads: int | None


def scored(asked: Asked, which: Which) -> Scored:
    """The sub-network that `which` names, scored: one of a supernet is extracted and its BN recalibrated first, one
    that stands alone in SOURCE is left as it is."""
    from onceforall.export.folder import Scored
    from onceforall.interop.weights import open_weights
    from onceforall.nn import Supernet
    from onceforall.train.distributed import Processes

    compute = compute_of(asked.device, 0, "float", Processes(), threads=asked.threads)
    trained = open_weights(asked.source, space=asked.space)
    arch, net = arch_of(trained, which), trained.net
    evaluator = evaluator_of(Path(asked.source), trained, data=asked.data, root=asked.root, compute=compute,
                             workers=asked.workers)
    compute.place(net)
    subnet = evaluator.subnet(net, arch) if isinstance(net, Supernet) else net
    score = evaluator.score_net(subnet, arch.resolution, evaluator.data.test)
    return Scored(subnet, trained.space, arch, evaluator.data, score)


def evaluator_of(source: Path, trained: Trained, *, data: str | None, root: str | None,
                 compute: Compute, workers: int | None = None) -> Evaluator:
    """An evaluator on the data set that the options name, else on the one that SOURCE was trained on; `workers` instead
    of the processes that read pictures by default.

    Raises UserError where the data has more classes than the net.
    """
    from onceforall.data import NAMED, DataSpec
    from onceforall.data.pictures import IMAGENET_MEAN, IMAGENET_STD
    from onceforall.train.evaluate import Evaluator
    from onceforall.train.setup import check_classes, data_of, data_spec

    try:
        config, search = run_config(source)
    except UserError:
        if data is None:
            raise
        config, search = None, False  # the --data given does without
    if root is not None and data is None:
        raise UserError("--root", "is given without --data", f"say which data it holds: {', '.join(NAMED)}")
    if data is not None:
        spec = DataSpec(data, root=root) if data in NAMED else DataSpec("folder", root=root or data)
    elif config is not None:
        spec = data_spec(config, search=search)
    else:
        spec = _described(source)
    pictures, trained_on = data_of(spec), trained.pictures
    check_classes(pictures, trained.num_classes, place=f"{source} num_classes")
    if config is None or "mean" in trained_on:  # as in training; a foreign file does not say: as both other codes do
        pictures = replace(pictures, mean=tuple(trained_on.get("mean", IMAGENET_MEAN)),
                           std=tuple(trained_on.get("std", IMAGENET_STD)))
    images = 2000 if config is None else config.hparams.calibration_images
    return Evaluator(pictures, compute, calibration_images=images,
                     workers=spec.workers if workers is None else workers, strict=spec.strict)


def _described(source: Path) -> DataSpec:
    """The data set that an extracted sub-network's description names."""
    from onceforall.data import NAMED
    from onceforall.export.description import ABOUT, read_description
    from onceforall.interop.weights import weights_file

    folder = weights_file(source).parent
    spec = read_description(folder).data_spec() if (folder / ABOUT).exists() else None
    if spec is None:
        raise UserError("--data", f"is missing, and nothing in {folder} says which", f"give {', '.join(NAMED)} or a "
                        "folder")
    return spec
