"""Output folder: what a run leaves there, and whether a run may begin or go on in it."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from onceforall.data import NAMED, DataSet
from onceforall.data.labels import listed
from onceforall.errors import UserError
from onceforall.files import shown
from onceforall.training.engine import checkpoint
from onceforall.training.engine.distributed import Processes, gathered
from onceforall.training.engine.places import (
    CONFIG,
    foreign_of,
    moved,
    paths_of,
    read_config,
    shown_path,
    without_paths,
)
from onceforall.training.setup import Options
from onceforall.training.stage import Training
from onceforall.weights.nets import NNABLA_WEIGHTS, WEIGHTS

_log = logging.getLogger(__name__)
_OF_ONE = frozenset({"workers", "prefetch", "pin_memory", "print_every"})  # what each process heeds alone
MAY_CHANGE = frozenset({"workers", "download", "safety"})  # between a run's start and its resuming
_SHARES = frozenset({"size", "micro"})  # how the processes divide a step's pictures


def finished(output: Path) -> bool:
    """Whether the folder holds a run that came to its end."""
    if not checkpoint.exists(output) or not any((output / name).exists() for name in (WEIGHTS, NNABLA_WEIGHTS)):
        return False
    extra = checkpoint.read_extra(output)
    written = extra.get("weights", [NNABLA_WEIGHTS])  # the one file of older versions
    return bool(extra.get("finished")) and all((output / name).exists() for name in written)


def lasting(options: Options) -> dict[str, Any]:
    """What has to be the same when a stopped run is resumed. The number of processes may differ."""
    return {"type": str(options.compute.dtype), "processes": options.processes.world}


def files_of(training: Training) -> dict[str, int]:
    """Checksums of the files that a run reads again when it is resumed, by the keys that name them."""
    stage, teacher = training.stage, training.teacher
    files = {"stage.teacher.network.weights": None if teacher is None else teacher.weights,
             "stage.predictor": stage.predictor if stage.sampling in ("best_up", "worst_up") else None}
    return {place: zlib.crc32(Path(file).read_bytes()) for place, file in files.items() if file is not None}


def check_there(training: Training) -> None:
    """Raise UserError for a path of the training where there is nothing of its kind."""
    for key, path in paths_of(training).items():
        if key == "data.root" and training.data.name in NAMED:
            continue  # which may be downloaded
        is_folder = key in ("data.root", "data.train_path", "data.valid_path", "data.unlabelled")
        if not (Path(path).is_dir() if is_folder else Path(path).is_file()):
            remedy = f"paths start from the folder the command runs in, {Path.cwd()}"
            raise UserError(key, f"there is no {'folder' if is_folder else 'file'} {path!r}",
                            "" if Path(path).is_absolute() else remedy)


def check_files(files: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Raise UserError where one of `files_of` is not what the run had `before`."""
    for place, checksum in files.items():
        if before.get(place, checksum) != checksum:
            raise UserError(place, "names another file than the run began with",
                            "put that one back, or take another output folder")


def check_output(training: Training, output: Path, options: Options) -> None:
    """Raise UserError for a folder that holds a run of another training, or one that began otherwise."""
    before = checkpoint.read_extra(output).get("options", {}) if checkpoint.exists(output) else {}
    world = options.processes.world
    _check_config(training, output, options.processes, world=before.get("processes", world))
    for name, value in lasting(options).items():
        if name != "processes" and before.get(name, value) != value:
            raise UserError(str(output), f"holds a run with {name} {before[name]}, not {value}",
                            "go on as it began, or take another output folder")


def _check_config(training: Training, output: Path, processes: Processes, *, world: int) -> None:
    """`world`: processes that the run had before. Another number may divide a step's pictures otherwise.

    The first process alone compares paths, since the others may run in other folders.
    """
    if not (output / CONFIG).exists():
        if output.exists() and not output.is_dir():
            raise UserError(str(output), "is a file, not a folder", "give another -o")
        return
    if foreign_of(output) is not None and checkpoint.exists(output) and not finished(output):
        raise UserError(str(output), "was stopped by an older version of this program",
                        "finish it with that one, or take another output folder: -o")
    before = read_config(output)
    old, new = _compared(before), _compared(training)
    place = difference(old, new)
    whole = [said.stage.batches.size * n for said, n in ((before, world), (training, processes.world))]
    if place and world != processes.world and whole[0] == whole[1]:
        place = difference(old, new, apart_from=MAY_CHANGE | _SHARES)
    if place:
        raise _another(output, place, _value(old, place), _value(new, place))
    if processes.first and (place := moved(before, training, output)):
        raise _another(output, place, shown_path(place, paths_of(before).get(place), output),
                       shown_path(place, paths_of(training).get(place)))


def _compared(training: Training) -> dict[str, Any]:
    """The values that are compared. How much the cache may hold may change, but not whether there is one."""
    values = without_paths(training)
    values["data"]["cache"] = "on" if training.data.cache else "off"
    return values


def _another(output: Path, place: str, old: str, new: str) -> UserError:
    return UserError(str(output), f"holds a run of another configuration: {place} is {old} there, and {new} is asked "
                     "for", "give another output folder: -o")


def _value(values: Mapping[str, Any], place: str) -> str:
    """What stands at a dotted place, for a message."""
    found: Any = values
    for key in place.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return "nothing" if found is None else shown(found)


def difference(a: Any, b: Any, place: str = "", *, apart_from: frozenset[str] = MAY_CHANGE) -> str:
    """The first place where two configurations differ in what matters; empty where they do not."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return "" if a == b else place
    keys = [key for key in {**a, **b} if key not in apart_from]
    found = (difference(a.get(key), b.get(key), f"{place}.{key}" if place else key, apart_from=apart_from)
             for key in keys)
    return next(filter(None, found), "")


def identity(data: DataSet) -> dict[str, Any]:
    """What tells a data set from another one: its classes, and of each split the number of pictures and a digest."""
    splits = {"training": data.train, "held-out": data.held_out, "validation": data.test,
              **({} if data.unlabelled is None else {"unlabelled": data.unlabelled})}
    return {"classes": list(data.classes),
            **{f"{name} pictures": [len(pictures), pictures.identity()] for name, pictures in splits.items()}}


def check_pictures(output: Path, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """Compare the `identity` of the pictures with the one that a run began with.

    Other validation pictures are only mentioned where held-out ones validate: nothing of the training depends on them.

    Raises:
        UserError: the classes, or the pictures that train or are held out, are not the same. Pictures that come or go
            move others from the training to the held-out split, which would then score what it was trained on.
    """
    remedy = "put back what the run began with, or take another output folder"
    was, classes = before.get("classes", now["classes"]), now["classes"]
    if was != classes:
        sides = {"without": [name for name in was if name not in classes],
                 "with": [name for name in classes if name not in was]}
        differences = " and ".join(f"{word} {listed(names)}" for word, names in sides.items() if names)
        raise UserError(str(output), f"goes on with other classes: {differences or 'in another order'}", remedy)
    for name in ("training pictures", "unlabelled pictures", "held-out pictures", "validation pictures"):
        if name not in now or before.get(name, now[name]) == now[name]:
            continue
        counts = f"{before[name][0]:,} before, {now[name][0]:,} now"
        if name != "validation pictures" or not now["held-out pictures"][0]:
            raise UserError(str(output), f"goes on with other {name} ({counts})", remedy)
        _log.warning("%s goes on with other %s (%s): scores on them cannot be compared", output, name, counts)


def check_same(training: Training, data: DataSet, output: Path) -> None:
    """Raise UserError where a function of the user's own gives other pictures than the run in a folder began with."""
    if training.data.source is not None and checkpoint.exists(output):
        before = checkpoint.read_extra(output).get("pictures", {})
        now = identity(data)
        if any(before.get(name, value) != value for name, value in now.items()):
            raise UserError(training.data.place, "gives other pictures than those that the run began with",
                            "let it give the same splits every time: seed what it draws")


def check_alike(training: Training, data: DataSet, options: Options) -> None:
    """Raise UserError where a process runs another training, other pictures or another torch than the first."""
    if options.processes.world == 1:
        return
    mine = {"settings": training.to_dict(), "files": files_of(training), "torch": torch.__version__,
            "checkpoint-every": options.every, "depth": asdict(data.depth), **identity(data)}
    first, *others = gathered(mine, options.processes)
    for rank, other in enumerate(others, 1):
        places = (difference(first[name], value, name, apart_from=_OF_ONE) for name, value in other.items())
        place = next(filter(None, places), "")
        if place:
            raise UserError(f"process {rank} of {options.processes.world}", "runs something else than process 0 "
                            f"({place} differs)", "give all processes the same")
