"""One set of weights, many budgets: stored sub-networks of a supernet, switched at inference time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceforall.deploy.description import Channels, Preprocessing
from onceforall.deploy.elastic_file import ELASTIC, ElasticContent, read_elastic
from onceforall.errors import UserError
from onceforall.nn import Subnet, Supernet
from onceforall.nn.subnet import built_like, parts
from onceforall.searching.front import Row
from onceforall.space import Arch


@dataclass(eq=False)
class Elastic:
    """Sub-networks that share their supernet's tensors; each has its own BN statistics and answers bit for bit as the
    extracted and recalibrated net does (CPU, one thread count).

    `rows`: what is stored, ascending by accuracy. `arch`: what `net(images)` runs, at first the most accurate. `use`
    and `within` switch it and hand the sub-network out as a module, of which threads may each hold another. They all
    read the same memory: take `extracted` to train or change one.

    Beside the supernet's tensors there are the statistics, under a megabyte of Python objects a sub-network, and the
    transformed kernels: however many there are, at most about 1.5 times the depthwise weights for kernels 3, 5, 7 and
    expansions 3, 4, 6.
    """

    source: Path
    supernet: Supernet
    rows: tuple[Row, ...]
    pictures: Mapping[str, Any]
    _channels: Channels
    _nets: Mapping[Arch, Subnet]
    arch: Arch = field(init=False)

    def __post_init__(self) -> None:
        self.rows = ascending(self.rows)
        self.arch = self.rows[-1].arch

    @classmethod
    def load(cls, source: str | Path, *, device: str | torch.device = "cpu") -> Elastic:
        """The file, or the one in a run folder; its weights are placed channels last. Raises UserError for a file that
        is missing, damaged or of another kind."""
        path = Path(source)
        path = path / ELASTIC if path.is_dir() else path
        content = read_elastic(path)
        supernet = content.trained.net
        assert isinstance(supernet, Supernet)
        supernet.requires_grad_(False).to(torch.device(device)).to(memory_format=torch.channels_last)
        return cls(path, supernet, content.rows, content.trained.pictures, content.channels,
                   _sharing(supernet, content))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty where the file has none."""
        return tuple(self.pictures.get("classes", ()))

    def preprocessing(self, arch: Arch | str) -> Preprocessing:
        """How pictures are made ready for a stored sub-network."""
        return self._channels.at(self._stored(arch).resolution)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W), normalised, from the sub-network `arch`."""
        logits: Tensor = self._nets[self.arch](images)
        return logits

    def use(self, arch: Arch | str) -> Subnet:
        """Switch to a stored sub-network. Raises UserError for another one."""
        found = self._stored(arch)
        self.arch = found
        return self._nets[found]

    def within(self, **limits: float) -> Subnet:
        """Switch to the most accurate stored sub-network within the limits, as `within(latency_ms=8, macs=2e8)`;
        names with a dot go as `within(**{"latency_ms.phone": 8})`. Raises UserError as `choose` does."""
        return self.use(self.choose(**limits).arch)

    def choose(self, **limits: float) -> Row:
        """The row that `within` switches to. Raises UserError for a cost that is not known and for limits that
        nothing stored is within."""
        known = self.rows[0].costs
        for name in limits:
            if name not in known:
                raise UserError(name, f"is not a cost in {self.source}", f"its costs are {', '.join(known)}")
        within = [row for row in self.rows if all(row.costs[name] <= limit for name, limit in limits.items())]
        if within:
            return within[-1]
        asked = ", ".join(f"{name} <= {limit:g}" for name, limit in limits.items())
        least = ", ".join(f"{name} {min(row.costs[name] for row in self.rows):g}" for name in limits)
        raise UserError(asked, f"no sub-network stored in {self.source} is within", f"the smallest there is: {least}")

    def with_costs(self, name: str, values: Mapping[Arch, float]) -> Elastic:
        """The same sub-networks, in the same memory, with one more cost to choose by, such as milliseconds measured
        here; an old one of that name is replaced. Raises UserError where a stored sub-network has no value."""
        missing = [row.arch for row in self.rows if row.arch not in values]
        if missing:
            raise UserError(name, f"has no value for {len(missing)} of {len(self.rows)} stored sub-networks, first "
                            f"{missing[0]}")
        out = replace(self, rows=tuple(replace(row, costs={**row.costs, name: values[row.arch]}) for row in self.rows))
        out.arch = self.arch
        return out

    @property
    def channels(self) -> Channels:
        """How pictures are made ready, whatever their size."""
        return self._channels

    def extracted(self, arch: Arch | str) -> Subnet:
        """A stored sub-network with its own copy of the weights: the extracted and recalibrated net."""
        shared = self._nets[self._stored(arch)]
        return built_like(self.supernet, shared.plan, {name: t.clone() for name, t in shared.state_dict().items()})

    def _stored(self, arch: Arch | str) -> Arch:
        found = Arch.parse(self.supernet.space, arch) if isinstance(arch, str) else arch
        if found not in self._nets:
            raise UserError(str(found), f"is not one of the {len(self._nets)} sub-networks stored in {self.source}",
                            "`ofa extract RUN --arch` takes any out of the run")
        return found


def accuracies(rows: tuple[Row, ...]) -> list[float] | None:
    """Measured where all rows have one, else predicted; None where that is not known of all either."""
    for found in ([row.measured for row in rows], [row.predicted for row in rows]):
        known = [value for value in found if value is not None]
        if len(known) == len(rows):
            return known
    return None


def ascending(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """By accuracy; by the first cost where no accuracy is known."""
    keys = accuracies(rows) or [next(iter(row.costs.values()), 0.0) for row in rows]
    return tuple(row for _, row in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0]))


def _sharing(supernet: Supernet, content: ElasticContent) -> dict[Arch, Subnet]:
    """The stored sub-networks as modules on the supernet's own tensors; a transformed kernel, which is not among
    them, is there once for all that have it."""
    tensors: dict[tuple[str, torch.Size], Tensor] = {}
    nets, device = {}, next(supernet.parameters()).device
    for arch, buffers in content.buffers.items():
        plan = supernet.plan(arch)
        state = {name: tensors.setdefault((name, tensor.shape), tensor)
                 for name, tensor in parts(supernet, plan).items() if name not in buffers}
        moved = {name: tensor.to(device) for name, tensor in buffers.items()}
        nets[arch] = built_like(supernet, plan, {**state, **moved}).requires_grad_(False)
    return nets
