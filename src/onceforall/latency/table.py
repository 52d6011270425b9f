"""Latency tables: measured milliseconds of every layer and block, added up to a sub-network's latency."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from onceforall.cost.population import CostTable, tabulate
from onceforall.errors import UserError
from onceforall.files import parse_json, read_text, replacing
from onceforall.space import Arch, BlockPlan, Plan, SearchSpace, lower
from onceforall.space.parts import Part, block_name, names, parts

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, faster, where libyaml is there
_DEEPEST = 4  # a table is a mapping of mappings
_COLUMNS = ("resolution", "layer", "ms", "spread_ms", "n")


@dataclass(frozen=True)
class Timing:
    """How long one forward pass takes.

    Args:
        ms: milliseconds, of as many pictures as the table's batch has.
        spread_ms: how far the repetitions differ.
        n: how many repetitions there were.
    """

    ms: float
    spread_ms: float = 0.0
    n: int = 1


@dataclass(frozen=True, eq=False)
class LatencyTable:
    """Measured timings. A sub-network's latency is `offset_ms` plus `scale` times their sum, in ms.

    Args:
        timings: by the resolution of the network, None for any, and by the name of the layer or block.
        about: what is said of the device, such as versions and threads.
        scale: factor of the sum.
        offset_ms: what is added to it.
    """

    timings: Mapping[tuple[int | None, str], Timing]
    about: Mapping[str, Any] = field(default_factory=dict)
    scale: float = 1.0
    offset_ms: float = 0.0

    def ms(self, plan: Plan) -> float:
        """The latency of a plan; raises UserError for a layer that was not measured."""
        return self.offset_ms + self.scale * sum(self.timing(plan, name).ms for name in names(plan))

    def of(self, space: SearchSpace, *, num_classes: int = 1000) -> CostTable:
        """The latencies of the space's sub-networks at those of its resolutions that were measured in full.

        Raises UserError where there is none.
        """
        missing = {size: self._missing(space, size, num_classes) for size in space.resolutions}
        found = [size for size, name in missing.items() if name is None]
        if not found:
            measured = {size for size, _ in self.timings}
            size = next((size for size in missing if size in measured), space.resolutions[0])
            raise UserError("latency table", f"has no {missing[size]} at {size} pixels: it is not of {space.name}",
                            "profile this space")

        def rest(plan: Plan) -> float:
            return self.offset_ms + self.scale * sum(self.timing(plan, name).ms for name in names(plan, blocks=False))

        table = tabulate(space.restrict(resolutions=found),
                         lambda plan, block: self.scale * self.timing(plan, block_name(block)).ms, rest,
                         num_classes=num_classes)
        if table.smallest <= 0:
            raise UserError("latency table", f"gives a sub-network {table.smallest:.3g} ms: its correction is not of "
                            f"{space.name}", "profile this space")
        return table

    def timing(self, plan: Plan, name: str) -> Timing:
        """That of a plan's part; raises UserError where it was not measured."""
        timing = self.timings.get((plan.resolution, name), self.timings.get((None, name)))
        if timing is None:
            raise UserError("latency table", f"has no {name} at {plan.resolution} pixels", "profile this space")
        return timing

    def _missing(self, space: SearchSpace, size: int, num_classes: int) -> str | None:
        for name in all_parts(space, size, num_classes):
            if (size, name) not in self.timings and (None, name) not in self.timings:
                return name
        return None


def all_parts(space: SearchSpace, resolution: int, num_classes: int = 1000) -> dict[str, Part]:
    """Every part that some sub-network of the space has at a resolution, by name."""
    out: dict[str, Part] = {}

    def note(plan: Plan, block: BlockPlan) -> float:
        out.setdefault(block_name(block), block)
        return 0.0

    tabulate(space.at([resolution]), note, lambda plan: out.update(parts(plan, blocks=False)) or 0.0,
             num_classes=num_classes)
    return out


def latency(space: SearchSpace, arch: Arch, table: LatencyTable, *, num_classes: int = 1000) -> float:
    """Milliseconds of one forward pass of a sub-network."""
    return table.ms(lower(space, arch, num_classes))


def read_table(path: Path) -> LatencyTable:
    """A table in JSON or CSV, or the authors' YAML: one file, or a folder of them, a resolution each.

    Raises UserError that names the file, and the row where there is one.
    """
    if path.is_dir():
        files = sorted(path.glob("*.yaml"))
        if not files:
            raise UserError(str(path), "holds no .yaml file", "give a table, or the authors' folder of them")
        return LatencyTable({key: timing for file in files for key, timing in _yaml(file).items()},
                            {"device": path.name})
    text = read_text(path, missing="`ofa profile` writes a table")
    if path.suffix == ".yaml":
        return LatencyTable(_yaml(path), {"device": path.parent.name})
    if path.suffix == ".csv":
        try:
            return LatencyTable(_timings(path, csv.DictReader(text.splitlines())))
        except csv.Error as error:
            raise UserError(str(path), f"is no latency table ({error})") from None
    try:
        values = _json(text)
        scale, offset = float(values["scale"]), float(values["offset_ms"])
        if values.keys() != {"about", "scale", "offset_ms", "timings"}:
            raise ValueError(f"its keys are {', '.join(values)} instead of about, scale, offset_ms, timings")
        if not (isfinite(scale) and isfinite(offset) and scale > 0):
            raise ValueError(f"scale {scale} and offset_ms {offset} are no correction")
        return LatencyTable(_timings(path, values["timings"]), dict(values["about"]), scale, offset)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(str(path), f"is no latency table ({error})", "`ofa profile` writes one") from None


def _json(text: str) -> Any:
    try:
        return parse_json(text, "text")
    except UserError as error:
        raise ValueError(str(error)) from None


def write_table(table: LatencyTable, path: Path) -> None:
    """Write a table as JSON. A name in .csv gets the timings alone."""
    rows = [dict(zip(_COLUMNS, (size, name, t.ms, t.spread_ms, t.n), strict=True))
            for (size, name), t in table.timings.items()]
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        else:
            json.dump({"about": dict(table.about), "scale": table.scale, "offset_ms": table.offset_ms, "timings": rows},
                      file, indent=1)


def _timings(path: Path, rows: Any) -> dict[tuple[int | None, str], Timing]:
    out: dict[tuple[int | None, str], Timing] = {}
    for number, row in enumerate(rows, 1):
        try:
            if set(row) != set(_COLUMNS):
                raise ValueError(f"its columns are {', '.join(map(str, row))}")
            size = None if row["resolution"] in (None, "") else _whole(row["resolution"])
            timing, name = Timing(float(row["ms"]), float(row["spread_ms"]), _whole(row["n"])), row["layer"]
            if not isinstance(name, str) or not name or (size, name) in out:
                raise ValueError(f"{name!r} is no layer, or has a row already")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{path} row {number}", f"is no timing ({error})",
                            f"it has {', '.join(_COLUMNS)}") from None
        out[size, name] = _checked(timing, f"{path} row {number}")
    if not out:
        raise UserError(str(path), "has no timings", "`ofa profile` writes some")
    return out


def _whole(value: Any) -> int:
    """A whole number of at least 1. In a CSV file it is a text."""
    number = int(value)
    if isinstance(value, bool) or number < 1 or (isinstance(value, float) and number != value):
        raise ValueError(f"{value!r} is no whole number from 1")
    return number


def _yaml(path: Path) -> dict[tuple[int | None, str], Timing]:
    """The authors' file of one resolution, which its name begins with: `160_lookup_table.yaml`."""
    size = path.name.split("_")[0]
    if not (size.isascii() and size.isdigit() and int(size) > 0):
        raise UserError(str(path), "does not begin with a resolution", "the authors' are called 160_lookup_table.yaml")
    try:
        text = path.read_text(encoding="utf-8")
        _check_yaml(path, text)
        values = yaml.load(text, _LOADER)
        if not values:
            raise ValueError("it has no timings")
        return {(int(size), str(name)): _checked(Timing(float(row["mean"]), float(row["std"]), _whole(row["count"])),
                                                f"{path}: {name}") for name, row in values.items()}
    except UserError:
        raise
    except (OSError, yaml.YAMLError, AttributeError, LookupError, TypeError, ValueError, OverflowError,
            RecursionError) as error:
        raise UserError(str(path), f"is no latency table ({' '.join(str(error).split())})") from None


def _check_yaml(path: Path, text: str) -> None:
    """Refuse what no table needs: aliases, which may stand for gigabytes, and deep nesting, which ends the process."""
    depth = 0
    for event in yaml.parse(text, _LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
            raise UserError(str(path), f"line {event.start_mark.line + 1}: an alias, or lists in lists")


def _checked(timing: Timing, place: str) -> Timing:
    for ms in (timing.ms, timing.spread_ms):
        if not 0 <= ms < 1e9:
            raise UserError(place, f"{ms} ms is no time")
    return timing
