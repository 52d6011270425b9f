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
    """Many sub-networks of one supernet, which share its tensors. One of them answers at a time.

        net = Elastic.load("runs/mine")
        net.within(latency_ms=8)
        logits = net(images)

    Each sub-network has its own BN statistics. On a CPU, at one thread count, it answers bit for bit as the extracted
    and recalibrated net does. `use` and `within` also hand it out as a module. Each thread may hold another module. All
    modules read the same memory, so take `extracted` to train or change one.

    A sub-network adds its statistics, and under a megabyte of Python objects. The transformed kernels are shared: all
    together they take at most about 1.5 times the depthwise weights, for kernels 3, 5, 7 and expand ratios 3, 4, 6.

    Args:
        source: the file.
        supernet: the supernet, with the shared tensors.
        rows: the stored sub-networks with their costs, ascending by accuracy.
        pictures: what the supernet was trained on, as `Trained.pictures` has it.
        channels: how pictures are made ready, whatever their size.
        arch: the sub-network that `net(images)` runs, at first the most accurate one.
    """

    source: Path
    supernet: Supernet
    rows: tuple[Row, ...]
    pictures: Mapping[str, Any]
    channels: Channels
    _nets: Mapping[Arch, Subnet]
    arch: Arch = field(init=False)

    def __post_init__(self) -> None:
        self.rows = ascending(self.rows)
        self.arch = self.rows[-1].arch

    @classmethod
    def load(cls, source: str | Path, *, device: str | torch.device = "cpu") -> Elastic:
        """Read the sub-networks of a file.

        Args:
            source: an elastic.safetensors, or the folder of a run that holds one.
            device: where the tensors are placed, channels last.

        Returns:
            The sub-networks, in evaluation mode.

        Raises:
            UserError: the file is missing, damaged or of another kind.
        """
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
        """The names of the classes; empty where the file has none."""
        return tuple(self.pictures.get("classes", ()))

    def preprocessing(self, arch: Arch | str) -> Preprocessing:
        """How pictures are made ready for a stored sub-network.

        Args:
            arch: which one, also as text.

        Raises:
            UserError: it is not stored.
        """
        return self.channels.at(self._stored(arch).resolution)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Run the sub-network `arch`.

        Args:
            images: normalised, (B, 3, R, R) at its resolution.

        Returns:
            Logits (B, K).
        """
        logits: Tensor = self._nets[self.arch](images)
        return logits

    def use(self, arch: Arch | str) -> Subnet:
        """Switch to a stored sub-network.

        Args:
            arch: which one, also as text.

        Returns:
            The sub-network as a module, which shares the supernet's tensors.

        Raises:
            UserError: it is not stored.
        """
        found = self._stored(arch)
        self.arch = found
        return self._nets[found]

    def within(self, **limits: float) -> Subnet:
        """Switch to the most accurate stored sub-network within some limits.

            net.within(macs=2e8, **{"latency_ms.phone": 8})

        Args:
            limits: the most that a cost may be, by its name; latency in ms, memory in bytes.

        Returns:
            The sub-network as a module, which shares the supernet's tensors.

        Raises:
            UserError: no such cost is known, or nothing that is stored is within the limits.
        """
        return self.use(self.choose(**limits).arch)

    def choose(self, **limits: float) -> Row:
        """The row of the sub-network that `within` would switch to.

        Args:
            limits: as for `within`.

        Raises:
            UserError: no such cost is known, or nothing that is stored is within the limits.
        """
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
        """The same sub-networks, in the same memory, with another cost to choose by.

        Args:
            name: the cost, such as "latency_ms". It replaces one of the same name.
            values: what each stored sub-network costs.

        Raises:
            UserError: a stored sub-network has no value.
        """
        missing = [row.arch for row in self.rows if row.arch not in values]
        if missing:
            raise UserError(name, f"has no value for {len(missing)} of {len(self.rows)} stored sub-networks, first "
                            f"{missing[0]}")
        out = replace(self, rows=tuple(replace(row, costs={**row.costs, name: values[row.arch]}) for row in self.rows))
        out.arch = self.arch
        return out

    def extracted(self, arch: Arch | str) -> Subnet:
        """A stored sub-network with a copy of the weights, which may be trained or changed.

        Args:
            arch: which one, also as text.

        Returns:
            The extracted and recalibrated net.

        Raises:
            UserError: it is not stored.
        """
        shared = self._nets[self._stored(arch)]
        return built_like(self.supernet, shared.plan, {name: t.clone() for name, t in shared.state_dict().items()})

    def _stored(self, arch: Arch | str) -> Arch:
        found = Arch.parse(self.supernet.space, arch) if isinstance(arch, str) else arch
        if found not in self._nets:
            raise UserError(str(found), f"is not one of the {len(self._nets)} sub-networks stored in {self.source}",
                            "`ofa extract RUN --arch` takes any out of the run")
        return found


def accuracies(rows: tuple[Row, ...]) -> list[float] | None:
    """The measured accuracies where all rows have one, else the predicted ones; None where not all have that."""
    for found in ([row.measured for row in rows], [row.predicted for row in rows]):
        known = [value for value in found if value is not None]
        if len(known) == len(rows):
            return known
    return None


def ascending(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """The rows by rising accuracy, or by the first cost where no accuracy is known."""
    keys = accuracies(rows) or [next(iter(row.costs.values()), 0.0) for row in rows]
    return tuple(row for _, row in sorted(zip(keys, rows, strict=True), key=lambda pair: pair[0]))


def _sharing(supernet: Supernet, content: ElasticContent) -> dict[Arch, Subnet]:
    """The stored sub-networks as modules on the supernet's own tensors.

    A transformed kernel is no tensor of the supernet. It is made once for all sub-networks that have it.
    """
    tensors: dict[tuple[str, torch.Size], Tensor] = {}
    nets, device = {}, next(supernet.parameters()).device
    for arch, buffers in content.buffers.items():
        plan = supernet.plan(arch)
        state = {name: tensors.setdefault((name, tensor.shape), tensor)
                 for name, tensor in parts(supernet, plan).items() if name not in buffers}
        moved = {name: tensor.to(device) for name, tensor in buffers.items()}
        nets[arch] = built_like(supernet, plan, {**state, **moved}).requires_grad_(False)
    return nets
