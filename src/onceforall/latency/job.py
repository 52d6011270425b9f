"""What a profile times: every part of a space, and whole sub-networks spread over cost that the sums are held to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from onceforall.cost.population import macs_table
from onceforall.cost.spread import spread
from onceforall.errors import UserError
from onceforall.latency.table import all_parts
from onceforall.space import Arch, Plan, SearchSpace, lower
from onceforall.space.parts import Part, names

BACKENDS = ("onnxruntime", "openvino", "torch")
_LEAST = 30  # sub-networks: fifteen to fit, fifteen held out


@dataclass(frozen=True)
class Settings:
    """How a device is timed.

    Args:
        backend: onnxruntime, openvino or torch.
        device: cpu, cuda or auto.
        threads: threads of one forward pass.
        batch: pictures of one forward pass.
        subnets: how many whole sub-networks are timed.
        seed: what the order and the sub-networks derive from.
        rounds: how often each part is visited.
        runs: the least number of forward passes of a visit.
        seconds: the least time of a visit.
    """

    backend: str = "onnxruntime"
    device: str = "auto"
    threads: int = 1
    batch: int = 1
    subnets: int = 40
    seed: int = 0
    rounds: int = 5
    runs: int = 30
    seconds: float = 0.1

    def check(self) -> None:
        """Raise UserError for a value that is not possible."""
        if self.backend not in BACKENDS:
            raise UserError("--backend", f"{self.backend!r} is not one of {', '.join(BACKENDS)}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise UserError("--device", f"{self.device!r} is not one of auto, cpu, cuda")
        if self.device == "cuda" and self.backend != "torch":
            raise UserError("--device", f"{self.backend} is timed on the CPU", "take --backend torch for a GPU")
        for name, least in (("threads", 1), ("batch", 1), ("rounds", 1), ("subnets", _LEAST), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name}", f"{getattr(self, name)} is below {least}")
        if self.threads > 16 * (os.cpu_count() or 1):
            raise UserError("--threads", f"{self.threads} is far above this machine's {os.cpu_count()} cores")


@dataclass(frozen=True)
class Job:
    """Everything that is timed, by key: a key is the stem of a graph's file name."""

    space: SearchSpace
    num_classes: int
    settings: Settings

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        """Every part of the space at its resolutions, by name; the same name at two of them is the same part."""
        return {name: part for size in self.space.resolutions
                for name, part in all_parts(self.space, size, self.num_classes).items()}

    @cached_property
    def archs(self) -> tuple[Arch, ...]:
        """The sub-networks that are timed whole: from the smallest to the largest, by MACs.

        Raises UserError where the space has too few.
        """
        count, known = self.settings.subnets, self.space.count * len(self.space.resolutions)
        if known < 2 * count:
            raise UserError("--subnets", f"{count} are asked for, and {self.space.name} has only {known} here",
                            f"at least {2 * count} are needed")
        table = macs_table(self.space, num_classes=self.num_classes)
        rows = spread(table, count, np.random.default_rng(self.settings.seed))
        return tuple(self.space.decode(row) for row in rows.tolist())

    @cached_property
    def cases(self) -> Mapping[str, Part | Plan]:
        """The part or the sub-network that each key stands for."""
        keys = self._keys
        return {**{keys[name]: part for name, part in self.parts.items()},
                **{f"subnet_{i:03d}": lower(self.space, arch, self.num_classes) for i, arch in enumerate(self.archs)}}

    @cached_property
    def _keys(self) -> Mapping[str, str]:
        return {name: f"part_{i:04d}" for i, name in enumerate(self.parts)}

    def values(self) -> dict[str, Any]:
        """The job as JSON values, as `runner.measure` takes them. Every second sub-network is held out."""
        keys = self._keys
        settings = asdict(self.settings)
        kept = {name: settings[name] for name in ("backend", "batch", "seed")}
        return {
            "about": {"space": self.space.to_dict(), "classes": self.num_classes, **kept,
                      "versions": {"onceforall": version("onceforall")},
                      "repetitions": {name: settings[name] for name in ("rounds", "runs", "seconds")}},
            "parts": [{"key": keys[name], "name": name} for name in self.parts],
            "subnets": [{"key": f"subnet_{i:03d}", "arch": str(arch), "held_out": i % 2 == 1, "parts": [
                keys[name] for name in names(lower(self.space, arch, self.num_classes))]}
                for i, arch in enumerate(self.archs)]}
