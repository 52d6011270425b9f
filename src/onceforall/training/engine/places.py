"""Places: what a run's folder says of its training, and where the files and folders lie that this names.

config.json has paths as the user wrote them, which start from the working directory of the command. paths.json beside
it says where they were. So a command in another folder finds them, and another spelling of the same path is known.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

from pydantic import TypeAdapter, ValidationError

from onceforall.data.spec import BY_DEFAULT, DEFAULT_ROOT
from onceforall.data.spec import PATHS as DATA_PATHS
from onceforall.errors import UserError, within
from onceforall.files import read_object, unreadable, write_text
from onceforall.training.engine import checkpoint
from onceforall.training.recipe import RECIPE
from onceforall.training.stage import Training

_log = logging.getLogger(__name__)
CONFIG, PATHS = "config.json", "paths.json"
FOREIGN = {"dataloader": "onceforall.interop.nnabla.settings"}  # by a key that a foreign form has: who reads it
_FORM = TypeAdapter(dict[str, list[str]])


class Foreign(Protocol):
    """The functions of a module that reads the folders of runs that a foreign form describes."""

    def read(self, values: Mapping[str, Any], options: Mapping[str, Any]) -> Training:
        """What was trained; `options`: what the checkpoint says of how the run was started."""

    def own_key(self, key: str) -> str:
        """Our key for a dotted key of the foreign form."""


def read_config(output: Path) -> Training:
    """What a run's folder says that it trains, with paths as they were given."""
    values = _values(output / CONFIG)
    foreign = _foreign(values)
    if foreign is None:
        with within(str(output / CONFIG)):
            return Training.from_dict(values)
    options = checkpoint.read_extra(output).get("options", {}) if checkpoint.exists(output) else {}
    return foreign.read(values, options)


def read_own(path: Path) -> Training | None:
    """The training in a file of our form, such as a run's config.json; None for a file of another form."""
    values = _values(path)
    return Training.from_dict(values) if {"data", "network", "stage"} <= values.keys() else None


def foreign_of(output: Path) -> Foreign | None:
    """The module that reads a run's folder in a foreign form, as older versions wrote it.

    It is None for a folder in our form, or without config.json.
    """
    return _foreign(_values(output / CONFIG)) if (output / CONFIG).exists() else None


def _values(path: Path) -> dict[str, Any]:
    return read_object(path, remedy="put the file back that the run wrote")


def _foreign(values: Mapping[str, Any]) -> Foreign | None:
    module = next((module for key, module in FOREIGN.items() if key in values), None)
    return None if module is None else cast(Foreign, import_module(module))


def write_config(training: Training, output: Path) -> None:
    """Write config.json into a run's output folder."""
    write_text(output / CONFIG, json.dumps(training.to_dict(), indent=4) + "\n")


def paths_of(training: Training) -> dict[str, str]:
    """The paths that a training names, by their dotted keys."""
    data, teacher = training.data, training.teacher
    found = {"network.weights": training.network.weights, "stage.predictor": training.stage.predictor,
             "stage.teacher.network.weights": None if teacher is None else teacher.weights,
             **{f"data.{key}": getattr(data, key) for key in DATA_PATHS}}
    return {key: path for key, path in found.items() if path is not None}


def without_paths(training: Training) -> dict[str, Any]:
    """The training's values apart from its paths."""
    values = training.to_dict()
    for key in paths_of(training):
        section, name = _section(values, key)
        del section[name]
    return values


def write_paths(training: Training, output: Path) -> None:
    """Write paths.json into a run's output folder.

    For each path it lists the places to look in, in this order: the absolute path, and for what lies in the folder
    around `output`, such as the other stages of the same run, the path relative to `output`. That one stays right when
    the folder is moved.
    """
    home, values = output.resolve(), {}
    run = next((folder for folder in home.parents[:2] if (folder / RECIPE).exists()), home.parent)
    for key, path in (_default_root(training) | paths_of(training)).items():
        values[key] = [str(Path(path).absolute())]
        if Path(path).resolve().is_relative_to(run):
            values[key].append(os.path.relpath(Path(path).resolve(), home))
    write_text(output / PATHS, json.dumps(values, indent=4) + "\n")


def read_run(output: Path) -> Training:
    """What a run trained, with the absolute paths of what is there now."""
    training = read_config(output)
    values, places, default = training.to_dict(), _recorded(output), _default_root(training)
    for key, given in (default | paths_of(training)).items():
        candidates = [*places.get(key, ()), Path(given).absolute()]
        found = next((path for path in candidates if path.exists()), candidates[0]).absolute()
        if key in default and (not found.exists() or (found / "train").is_dir()):
            continue  # such a root would stand for a folder of pictures, and none does not
        section, name = _section(values, key)
        section[name] = str(found)
    return Training.from_dict(values)


def moved(old: Training, new: Training, output: Path) -> str:
    """The key of the first path that is another file or folder now than when the run began; empty where there is none.

    Args:
        old: what the run in `output` began with.
        new: what is asked for now.
        output: the run's folder.
    """
    before, now, places = paths_of(old), paths_of(new), _recorded(output)
    if before.keys() != now.keys():
        before, now = _default_root(old) | before, _default_root(new) | now
    if of_one := before.keys() ^ now.keys():
        return min(of_one)
    for key, path in now.items():
        found = places.get(key) or _unrecorded(key, before[key], output)
        if Path(path).resolve() in [place.resolve() for place in found]:
            continue
        if Path(path) != Path(before[key]) or any(place.exists() for place in found):
            return key
        _log.warning("%s: %s is no longer there: going on with %s", key, found[0], Path(path).absolute())
    return ""


def shown_path(key: str, path: str | None, output: Path | None = None) -> str:
    """A path as it was given and where it is, for a message; `output`: the folder of the run that began with it."""
    if path is None:
        return "not given"
    recorded = _recorded(output).get(key) if output is not None else None
    return f"{path} ({recorded[0] if recorded else Path(path).absolute()})"


def _default_root(training: Training) -> dict[str, str]:
    """The key and the place of the root where a named data set is looked for if the user gives none."""
    by_default = training.data.root is None and training.data.name in BY_DEFAULT
    return {"data.root": DEFAULT_ROOT} if by_default else {}


def _recorded(output: Path) -> Mapping[str, list[Path]]:
    """The paths in paths.json, seen from the working directory; empty for a run that has no such file."""
    path = output / PATHS
    try:
        values = _FORM.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from None
    except ValidationError as error:
        raise UserError(str(path), f"is damaged ({error.errors()[0]['msg']})", "delete it: paths start from the "
                        "folder the command runs in then") from None
    foreign = foreign_of(output)
    return {key if foreign is None else foreign.own_key(key): [output / place for place in found]
            for key, found in values.items()}


def _unrecorded(key: str, path: str, output: Path) -> list[Path]:
    """Where a path of a run without paths.json may lie: from the working directory; weights also in the run's folder,
    wherever that is now, under the stage's name."""
    inside = [output.parent.joinpath(*Path(path).parts[-2:])] if key.endswith(".weights") else []
    return [Path(path), *inside]


def _section(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The mapping that holds a dotted key, and the key's own name in it."""
    *sections, name = key.split(".")
    for section in sections:
        values = values[section]
    return values, name
