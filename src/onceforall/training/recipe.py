"""Recipe: a whole run as a value: pictures, a network, and the stages that train it one after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from onceforall.errors import UserError, within
from onceforall.files import check_plain, unreadable, write_text
from onceforall.space import SearchSpace
from onceforall.space.catalog import of_catalogue
from onceforall.training.network import Network, Teacher
from onceforall.training.settings import Setting
from onceforall.training.stage import Data, Stage, Training
from onceforall.weights.nets import NNABLA_WEIGHTS, WEIGHTS

RECIPE = "recipe.yaml"  # in a run's folder
START = "start.safetensors"  # in a run's folder: the supernet that its first stage starts from
_TAKEN = ("search", "subnets", START, "polished", "summary.json", "elastic.safetensors", RECIPE)
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Recipe(Setting):
    """A whole run. Each stage starts from the weights of the one before it.

    A stage's supernet has the choices of the stage only, and grows from stage to stage; where `network` has weights, it
    has all choices of their space from the first stage on.
    """

    data: Data = Field(description="where pictures are, and how they are augmented")
    network: Network = Field(description="what is trained; its space is that of the last stage, or a wider one")
    start: str | None = Field(default=None, description="pretrained network that the first stage starts from, such as "
                              "timm:NAME, or a file of weights; network has its space")
    stages: dict[str, Stage] = Field(min_length=1, description="by the name of their folder, in order")

    @field_validator("stages")
    @classmethod
    def _folders(cls, value: dict[str, Stage]) -> dict[str, Stage]:
        for name in value:
            if not name or Path(name).name != name or name == ".." or not name.isprintable():
                raise UserError("", f"{name!r} is no name of a folder")
            if name in _TAKEN:
                raise UserError("", f"{name!r} is the name of another part of the run's folder", "give another name")
        return value

    @model_validator(mode="after")
    def _unlabelled(self) -> Recipe:
        if self.data.unlabelled is not None and all(stage.teacher is None for stage in self.stages.values()):
            raise UserError("data.unlabelled", "has no effect, since no stage has a teacher that labels them",
                            "start from a pretrained network (--from), or leave it out")
        return self

    @model_validator(mode="after")
    def _colours(self) -> Recipe:
        if self.start is not None and self.data.mean is None:
            raise UserError("data.mean", "is missing, and so is data.std: a pretrained network needs its own",
                            "`ofa fit --from NAME --dump-recipe FILE` writes them")
        return self

    def trainings(self, run: Path) -> dict[str, Training]:
        """What each stage trains, by its name, in a run's folder.

        Raises:
            UserError: the space lacks a choice, or a teacher is no stage before its own.
        """
        out: dict[str, Training] = {}
        network, space = self.network, self.network.space
        if self.start is not None:
            network = network.model_copy(update={"weights": str(run / START)})
        grows = network.weights is None
        for name, stage in self.stages.items():
            part = stage.part(space)
            self._check_grows(name, part, out)
            if grows:
                network = network.model_copy(update={"space": part.at(space.resolutions)})
            resolved = stage.model_copy(update={
                "choices": {"resolution": part.resolutions} if grows else stage.choices,
                "teacher": self._teacher(stage, out, run), "validate_at": None,
                "validate_archs": tuple(map(str, stage.validated(part, space)))})
            out[name] = Training(data=self.data, network=network, stage=resolved)
            network = network.model_copy(update={"weights": str(_weights(run / name))})
        return out

    @staticmethod
    def _check_grows(name: str, part: SearchSpace, before: dict[str, Training]) -> None:
        """Raise UserError where the largest sub-network of a stage is another one than that of the stages before it."""
        for other, training in before.items():
            size = part.resolutions[0]
            largest, was = part.largest.at(size), training.part.largest.at(size)
            if largest != was:
                raise UserError(f"stages.{name}.choices", f"the largest sub-network is {largest}, and {was} in {other}",
                                "progressive shrinking begins with the largest, and adds smaller choices")

    @staticmethod
    def _teacher(stage: Stage, before: dict[str, Training], run: Path) -> Teacher | None:
        if not isinstance(stage.teacher, str):
            return stage.teacher
        if stage.teacher not in before:
            raise UserError("teacher", f"{stage.teacher!r} is no stage before it",
                            f"known: {', '.join(before) or 'none'}")
        return before[stage.teacher].as_teacher(str(_weights(run / stage.teacher)))

    def text(self) -> str:
        """The recipe as YAML, without what is as by default; a space of the catalogue by its name."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        values["data"] = {key: value for key, value in values["data"].items() if value is not None}
        values["network"]["space"] = _named(self.network.space) or values["network"]["space"]
        return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None))

    def write(self, path: Path) -> None:
        """Write the recipe as YAML; raises UserError where it cannot be written."""
        write_text(path, self.text())

    @staticmethod
    def read(path: Path, changes: Sequence[str] = ()) -> Recipe:
        """The recipe in a YAML or JSON file.

        Args:
            path: the file.
            changes: settings to change, such as `stages.kernel.epochs=3`; values are YAML.

        Raises:
            UserError: the file cannot be read, or a setting breaks a rule.
        """
        try:
            values = yaml.load(path.read_text(encoding="utf-8-sig"), _LOADER)
        except OSError as error:
            raise unreadable(path, error) from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise UserError(str(path), f"is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(values, dict):
            raise UserError(str(path), "holds no recipe", "`ofa fit --dump-recipe FILE` writes one")
        with within(str(path)):
            check_plain(values)
            return Recipe.from_dict(changed(values, changes))

    def changed(self, changes: Sequence[str]) -> Recipe:
        """The same with other settings, as `read` takes them."""
        return Recipe.from_dict(changed(self.to_dict(), changes)) if changes else self


def changed(values: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """A recipe's values with settings changed, such as `stages.kernel.epochs=3`; raises UserError for other texts."""
    values = json.loads(json.dumps(values))
    for text in changes:
        key, sign, written = text.partition("=")
        *sections, name = key.strip().split(".")
        if not sign or not name:
            raise UserError("--set", f"{text!r} has not the form KEY=VALUE", "as stages.kernel.epochs=3")
        try:
            value = yaml.load(written, _LOADER)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise UserError("--set", f"{text!r} has no YAML value") from None
        _inside(values, sections, key)[name] = value
    check_plain(values)
    return dict(values)


def _inside(values: dict[str, Any], sections: Sequence[str], key: str) -> dict[str, Any]:
    """The section that holds a key. One that the file leaves out is made, but for a stage."""
    inside: Any = values
    for i, section in enumerate(sections):
        outer, inside = inside, inside.setdefault(section, {})
        no_stage = i == 1 and sections[0] == "stages" and not inside
        if no_stage or not isinstance(inside, dict):
            known = ", ".join(name for name, there in outer.items() if there)
            raise UserError("--set", f"{key}: there is no {section}", f"known: {known}")
    return inside  # type: ignore[no-any-return]


def _weights(stage: Path) -> Path:
    """The weights file that a stage leaves, or has left: an older version wrote NNablaNAS's form alone."""
    old = (stage / NNABLA_WEIGHTS).exists() and not (stage / WEIGHTS).exists()
    return stage / (NNABLA_WEIGHTS if old else WEIGHTS)


def _named(space: SearchSpace) -> str | None:
    """The catalogue's name of a space, where that means the same."""
    return space.name if of_catalogue(space) == space else None
