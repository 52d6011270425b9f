"""Output folder: what a run leaves there, and whether a run may begin or go on in it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from onceforall.data import ArrayPictures, DataSet, Pictures
from onceforall.interop.config import Config
from onceforall.space import UserError
from onceforall.train import checkpoint
from onceforall.train.distributed import gathered
from onceforall.train.setup import Options

_OF_ONE = frozenset({"workers", "prefetch", "pin_memory", "print_frequency"})  # what each process heeds alone
MAY_CHANGE = frozenset({"workers", "print_frequency", "checkpoint_every", "checkpoint_every_steps", "download",
                        "setbacks", "setback_rate", "setback_clip"})  # between a run's start and its resuming
CONFIG, WEIGHTS = "config.json", "weights.h5"


def finished(output: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    return checkpoint.exists(output) and (output / WEIGHTS).exists() and bool(
        checkpoint.read_extra(output).get("finished"))


def lasting(options: Options) -> dict[str, Any]:
    """What has to stay the same when a stopped run is resumed; but for the number of processes, all of it."""
    return {"search": options.search, "subnet": options.subnet, "type": str(options.compute.dtype),
            "processes": options.processes.world}


def files_of(config: Config) -> dict[str, int]:
    """Checksums of the files that a run reads again when it is resumed, by the keys that name them."""
    teacher, hparams = config.teacher, config.hparams
    files = {f"{config.teacher_place}.weights": teacher.weights if teacher is not None else None,
             "hparams.predictor": hparams.predictor if hparams.sampling in ("best_up", "worst_up") else None}
    return {place: zlib.crc32(Path(file).read_bytes()) for place, file in files.items() if file is not None}


def check_files(files: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Raise UserError where one of `files_of` is not what the run had `before`."""
    for place, checksum in files.items():
        if before.get(place, checksum) != checksum:
            raise UserError(place, "names another file than the run began with",
                            "put that one back, or take another output folder")


def check_output(config: Config, output: Path, options: Options) -> None:
    """Raise UserError for a folder that holds a run of another configuration, or one that began otherwise."""
    before = checkpoint.read_extra(output).get("options", {}) if checkpoint.exists(output) else {}
    world = options.processes.world
    _check_config(config, output, world=before.get("processes", world), processes=world)
    for name, value in lasting(options).items():
        if name != "processes" and before.get(name, value) != value:
            raise UserError(str(output), f"holds a run with {name} {before[name]}, not {value}",
                            "go on as it began, or take another output folder")


def _check_config(config: Config, output: Path, *, world: int, processes: int) -> None:
    """`world`: processes that the run had before. Another number may divide a step's pictures otherwise."""
    path = output / CONFIG
    if not path.exists():
        if output.exists() and not output.is_dir():
            raise UserError(str(output), "is a file, not a folder", "give another -o")
        return
    old, new = Config.read(path).to_dict(), config.to_dict()
    place = difference(old, new)
    whole = [values["hparams"]["batch_size_train"] * n for values, n in ((old, world), (new, processes))]
    if place and world != processes and whole[0] == whole[1]:
        place = difference(_without_batch(old), _without_batch(new))
    if place:
        raise UserError(str(output), f"holds a run of another configuration ({place} differs)",
                        "take another output folder, or remove this one")


def _without_batch(values: dict[str, Any]) -> dict[str, Any]:
    """The configuration apart from how the processes divide a step's pictures."""
    hparams = {key: value for key, value in values["hparams"].items() if key not in ("batch_size_train",
                                                                                     "mini_batch_train")}
    return {**values, "hparams": hparams}


def difference(a: Any, b: Any, place: str = "", *, apart_from: frozenset[str] = MAY_CHANGE) -> str:
    """Where two configurations first differ in what matters; empty where nowhere."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return "" if a == b else place
    keys = [key for key in {**a, **b} if key not in apart_from]
    found = (difference(a.get(key), b.get(key), f"{place}.{key}" if place else key, apart_from=apart_from)
             for key in keys)
    return next(filter(None, found), "")


def check_alike(config: Config, data: DataSet, options: Options) -> None:
    """Raise UserError where a process runs another configuration, other pictures or another torch than the first."""
    if options.processes.world == 1:
        return
    mine = {"configuration": config.to_dict(), "files": files_of(config), "torch": torch.__version__,
            "classes": data.classes, "depth": asdict(data.depth),
            "checkpoint-every": options.every, "training pictures": _digest(data.train),
            "held-out pictures": _digest(data.held_out), "validation pictures": _digest(data.test)}
    first, *others = gathered(mine, options.processes)
    for rank, other in enumerate(others, 1):
        places = (difference(first[name], value, name, apart_from=_OF_ONE) for name, value in other.items())
        place = next(filter(None, places), "")
        if place:
            raise UserError(f"process {rank} of {options.processes.world}", "runs something else than process 0 "
                            f"({place} differs)", "give all processes the same")


def _digest(pictures: Pictures) -> tuple[int, int]:
    """How many, and a checksum: of images and labels, or of names and labels of files, wherever they lie."""
    crc = zlib.crc32(pictures.labels.numpy().data)
    if isinstance(pictures, ArrayPictures):
        return len(pictures), zlib.crc32(pictures.images.contiguous().numpy().data, crc)
    return len(pictures), zlib.crc32("\n".join("/".join(Path(p).parts[-2:]) for p in pictures.paths).encode(
        errors="surrogateescape"), crc)
