"""Places: where the files and folders lie that a run's configuration names.

config.json has paths as the user wrote them, which start from the working directory of the command. paths.json beside
it says where they were. So a command in another folder finds them, and another spelling of the same path is known.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from onceforall.data.spec import BY_DEFAULT, DEFAULT_ROOT
from onceforall.errors import UserError
from onceforall.files import unreadable, write_text
from onceforall.interop.nnabla.config import Config

_log = logging.getLogger(__name__)
CONFIG, PATHS = "config.json", "paths.json"
_FORM = TypeAdapter(dict[str, list[str]])


def paths_of(config: Config) -> dict[str, str]:
    """The paths that a configuration gives, by their dotted keys."""
    data, teacher = config.data, config.hparams.teacher_network
    found = {f"{config.data_place}.{key}": getattr(data, key) for key in ("root", *data.list_keys)}
    found |= {f"{config.network_place}.weights": config.network.weights,
              f"{config.teacher_place}.weights": None if teacher is None else teacher.section.weights,
              "hparams.predictor": config.hparams.predictor}
    return {key: path for key, path in found.items() if path is not None}


def without_paths(config: Config) -> dict[str, Any]:
    """The configuration's values apart from its paths."""
    values = config.to_dict()
    for key in paths_of(config):
        section, name = _section(values, key)
        del section[name]
    return values


def write_paths(config: Config, output: Path) -> None:
    """Write paths.json into a run's output folder.

    For each path it lists the places to look in, in this order: the absolute path, and for what lies in the folder
    around `output`, such as the other stages of the same run, the path relative to `output`. That one stays right when
    the folder is moved.
    """
    home, values = output.resolve(), {}
    for key, path in (_default_root(config) | paths_of(config)).items():
        values[key] = [str(Path(path).absolute())]
        if Path(path).resolve().is_relative_to(home.parent):
            values[key].append(os.path.relpath(Path(path).resolve(), home))
    write_text(output / PATHS, json.dumps(values, indent=4) + "\n")


def read_run_config(output: Path) -> Config:
    """The configuration of a run, with the absolute paths of what is there now."""
    config = Config.read(output / CONFIG)
    values, places, default = config.to_dict(), _recorded(output), _default_root(config)
    for key, given in (default | paths_of(config)).items():
        candidates = [*places.get(key, ()), Path(given).absolute()]
        found = next((path for path in candidates if path.exists()), candidates[0]).absolute()
        if key in default and (not found.exists() or (found / "train").is_dir()):
            continue  # such a root would stand for a folder of pictures, and none does not
        section, name = _section(values, key)
        section[name] = str(found)
    return Config.from_dict(values)


def moved(old: Config, new: Config, output: Path) -> str:
    """The key of the first path of `new` that is another file or folder than the run in `output` began with under its
    configuration `old`; empty where there is none."""
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


def _default_root(config: Config) -> dict[str, str]:
    """Where a data set by name is looked for when no root is given, by the key of the root."""
    by_default = config.data.root is None and config.data.name in BY_DEFAULT
    return {f"{config.data_place}.root": DEFAULT_ROOT} if by_default else {}


def _recorded(output: Path) -> Mapping[str, list[Path]]:
    """What paths.json says, as paths from the working directory; nothing for runs that have none."""
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
    return {key: [output / place for place in found] for key, found in values.items()}


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
