"""What a run's folder holds to show: the stages' journals, and the front with what it was searched by."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onceforall.deploy.description import ABOUT, Description, read_description
from onceforall.errors import UserError, printable
from onceforall.recipes.pick import SEARCH
from onceforall.recipes.preset import STAGES
from onceforall.searching.record import FRONT, read_record
from onceforall.training.engine.journal import METRICS, read_records
from onceforall.training.engine.places import CONFIG, read_config
from onceforall.training.recipe import RECIPE, Recipe

_log = logging.getLogger(__name__)
Records = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Run:
    """What a report shows.

    Args:
        name: the run's name.
        stages: the records of each stage's metrics.jsonl, by its folder, in the order of training.
        search: the values of front.json; None where nothing was searched yet.
        subnets: the sub-networks that are saved, by their folders.
        augmentation: what the stages did to training pictures, each once.
    """

    name: str
    stages: Mapping[str, Records]
    search: Mapping[str, Any] | None
    subnets: Mapping[str, Description] = field(default_factory=dict)
    augmentation: tuple[str, ...] = ()

    @property
    def shipped(self) -> dict[str, Description]:
        """The sub-networks that something was exported from."""
        return {name: about for name, about in self.subnets.items() if about.exports}


def gather(folder: Path, subnets: Sequence[Path] = ()) -> Run:
    """What is in the folder of a run, a stage, a search or a sub-network, and in those of further `subnets`.

    Raises UserError where there is nothing to show.
    """
    if not folder.is_dir():
        raise UserError(str(folder), "is no folder", "give a run's, as `ofa fit -o` names it")
    places = [path for path in (folder / METRICS, *folder.glob(f"*/{METRICS}")) if path.is_file()]
    order = _order(folder)
    places.sort(key=lambda path: (order.index(path.parent.name) if path.parent.name in order else len(order), path))
    stages = {printable(path.parent.name): read_records(path) for path in places}
    fronts = [path for path in (folder / FRONT, folder / SEARCH / FRONT) if path.is_file()]
    described = _described(folder, subnets)
    if not stages and not fronts and not any(about.exports for about in described.values()):
        raise UserError(str(folder), f"holds neither {METRICS} nor {FRONT}, nor what was exported",
                        "train, search or export first: `ofa fit -o RUN`")
    return Run(printable(folder.resolve().name), stages, read_record(fronts[0]) if fronts else None, described,
               _augmentation([path.parent / CONFIG for path in places]))


def _order(folder: Path) -> list[str]:
    """The stages in the order of training: the recipe's, or those of progressive shrinking where there is none."""
    try:
        if (folder / RECIPE).is_file():
            return list(Recipe.read(folder / RECIPE).stages)
    except UserError as error:
        _log.warning("left out: %s", error)
    return [row.folder for row in STAGES]


def _augmentation(configs: Sequence[Path]) -> tuple[str, ...]:
    """What the configurations that can be read do to training pictures."""
    found: dict[str, None] = {}
    for path in configs:
        try:
            if path.is_file():
                found[read_config(path.parent).data.augment.words] = None
        except UserError as error:
            _log.warning("left out: %s", error)
    return tuple(found)


def _described(folder: Path, subnets: Sequence[Path]) -> dict[str, Description]:
    """Descriptions of the sub-networks given, and of those found up to two folders down."""
    out = {}
    for path in sorted({folder / ABOUT, *folder.glob(f"*/{ABOUT}"), *folder.glob(f"*/*/{ABOUT}")}):
        try:
            if path.is_file():
                out[path.parent.relative_to(folder.parent).as_posix()] = read_description(path.parent)
        except UserError as error:
            _log.warning("left out: %s", error)
    out |= {path.as_posix(): read_description(path) for path in subnets}
    return {printable(name): about for name, about in out.items()}
