"""Entries: every array of a net under our name and under NNablaNAS's, which the other forms of file derive from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from onceforall.interop.about import About, Kept
from onceforall.space import BlockPlan, Layer, Plan, SearchSpace, UserError

_BN = {"running_mean": "_mean", "running_var": "_var", "bias": "_beta", "weight": "_gamma"}
# of MobileNetV3 around the global mean, of ProxylessNAS before it, by the number of convolutions after it
HEADS = {1: ("final_expand_layer", "feature_mix_layer"), 0: ("feature_mix_layer",)}
_ROLES = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}


@dataclass(frozen=True)
class Entry:
    """One array: our name, NNablaNAS's, and whether it is a parameter (or a statistic)."""

    ours: str
    theirs: str
    trained: bool

    @property
    def per_channel(self) -> bool:
        """Whether it holds one number a channel of a batch normalisation."""
        return ".norm." in self.ours


@dataclass(frozen=True, eq=False)
class Stored:
    """Sub-networks in their supernet's file: `text` says which, `statistics` holds arrays of each by its number."""

    text: str
    statistics: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Content:
    """What a weights file holds.

    `arrays`: float32, by the file's own names and in its own layout. `counts`: batches that each batch normalisation
    has seen, by the name of its running mean. `about`: what this project says of the net; None in a foreign file.
    `kept`: see `About`. `stored`: sub-networks of a supernet that the file has beside it; only the native form does.
    """

    arrays: dict[str, Tensor]
    counts: dict[str, int] = field(default_factory=dict)
    about: About | None = None
    kept: dict[str, Kept] = field(default_factory=dict)
    stored: Stored | None = None


MEAN, COUNT = "running_mean", "num_batches_tracked"  # torch's names; a count is known by its running mean's name

_COUNTED = (torch.int64, torch.int32, torch.float32, torch.float64)


def count_tensors(counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Counts as the tensors that torch keeps, by torch's names."""
    return {name.removesuffix(MEAN) + COUNT: torch.tensor(n) for name, n in counts.items()}


def count_of(tensor: Tensor, *, place: str) -> int:
    """A stored number of batches; raises UserError for anything else than a whole number."""
    if tensor.numel() != 1 or tensor.dtype not in _COUNTED or tensor.is_meta or not 0 <= tensor.item() < 2**53:
        raise UserError(place, "is not one whole number from 0")
    return int(tensor)


def entries(plan: Plan, space: SearchSpace | None = None) -> list[Entry]:
    """The arrays of a net in NNablaNAS's order: of the supernet of `space`, whose largest sub-network `plan` is; of an
    extracted net where that is None."""
    out = list(_entries(plan, space))
    if space is None:  # an extracted net's BN arrays come in alphabetical order
        order = ["_W", "_b", "_beta", "_gamma", "_mean", "_var"]
        groups: dict[str, int] = {}
        for entry in out:
            groups.setdefault(entry.theirs.rpartition("/")[0], len(groups))
        out.sort(key=lambda e: (groups[e.theirs.rpartition("/")[0]], order.index(e.theirs.rpartition("/")[2])))
    return out


def _entries(plan: Plan, space: SearchSpace | None) -> Iterator[Entry]:
    yield from _conv_bn(plan.stem, "first_conv", "", ())
    for number, block in enumerate(plan.first):
        yield from _block(block, f"blocks/{number}/conv", None)
    number = len(plan.first)
    for s, blocks in enumerate(plan.stages):
        kernels = None if space is None else tuple(map(int, space.stages[s].choices["kernel"]))
        for block in blocks:
            yield from _block(block, f"blocks/{number}/conv", kernels)
            number += 1
    *mixed, classifier = plan.head
    for layer, prefix in zip((*plan.features, *mixed), HEADS[len(mixed)], strict=True):
        yield from _conv_bn(layer, prefix, "", ())
    yield Entry(f"{classifier.name}.weight", "classifier/linear/_W", True)
    yield Entry(f"{classifier.name}.bias", "classifier/linear/_b", True)


def _block(block: BlockPlan, prefix: str, kernels: tuple[int, ...] | None) -> Iterator[Entry]:
    for layer in block.layers:
        if layer.role in _ROLES:
            nested = "" if kernels is None else "elastic"
            yield from _conv_bn(layer, f"{prefix}/{_ROLES[layer.role]}", nested,
                                kernels or () if layer.role == "depthwise" else ())
        else:
            name = {"reduce": "reduce", "excite": "expand"}[layer.role]
            for ours, theirs in (("weight", "_W"), ("bias", "_b")):
                yield Entry(f"{layer.name}.conv.{ours}", f"{prefix}/depth_conv/se/fc/{name}/{theirs}", True)


def _conv_bn(layer: Layer, prefix: str, nested: str, kernels: tuple[int, ...]) -> Iterator[Entry]:
    conv, norm = ("conv/conv", "bn/bn") if nested else ("conv", "bn")
    for smaller, larger in pairwise(kernels):
        yield Entry(f"{layer.name}.conv.kernel_{larger}to{smaller}", f"{prefix}/conv/{larger}to{smaller}_matrix", True)
    yield Entry(f"{layer.name}.conv.weight", f"{prefix}/{conv}/_W", True)
    for ours, theirs in _BN.items() if layer.norm else ():
        yield Entry(f"{layer.name}.norm.{ours}", f"{prefix}/{norm}/{theirs}", ours in ("weight", "bias"))
