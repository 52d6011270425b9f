"""Entries: every array of a net under our name and under NNablaNAS's, which the other forms of file derive from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from onceforall.errors import UserError
from onceforall.interop.about import About, Kept
from onceforall.space import BlockPlan, Layer, Plan, SearchSpace

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
    roles = {layer.role for blocks in plan.stages for block in blocks for layer in block.layers}
    if "conv1" in roles:
        yield from _resnet(plan, "" if space is None else "elastic")
    elif "depthwise1" in roles:
        yield from _xception(plan, space)
    else:
        yield from _mobile(plan, space)


def _mobile(plan: Plan, space: SearchSpace | None) -> Iterator[Entry]:
    """Of networks of inverted bottlenecks."""
    yield from _conv_bn(plan.stem, "first_conv", "", ())
    for number, block in enumerate(plan.first):
        yield from _block(block, f"blocks/{number}/conv", None)
    number = len(plan.first)
    for s, blocks in enumerate(plan.stages):
        kernels = None if space is None else tuple(map(int, space.stages[s].choices["kernel"]))
        for block in blocks:
            yield from _block(block, f"blocks/{number}/conv", kernels)
            number += 1
    *mixed, _ = plan.head
    for layer, prefix in zip((*plan.features, *mixed), HEADS[len(mixed)], strict=True):
        yield from _conv_bn(layer, prefix, "", ())
    yield from _classifier(plan, "classifier/linear")


def _classifier(plan: Plan, prefix: str) -> Iterator[Entry]:
    yield Entry(f"{plan.head[-1].name}.weight", f"{prefix}/_W", True)
    yield Entry(f"{plan.head[-1].name}.bias", f"{prefix}/_b", True)


def _resnet(plan: Plan, nested: str) -> Iterator[Entry]:
    """Of ResNet50D, in whose supernet every layer is elastic."""
    optional, (second,), *stages = plan.stages
    yield from _conv_bn(plan.stem, "input_stem/0", nested, ())
    for block in optional:
        yield from _conv_bn(block["conv"], "input_stem/1/conv", nested, ())
    yield from _conv_bn(second["conv"], f"input_stem/{1 + len(optional)}", nested, ())
    for number, block in enumerate(block for blocks in stages for block in blocks):
        for layer in block.layers:
            word = "downsample" if layer.role == "shortcut" else layer.role
            yield from _conv_bn(layer, f"blocks/{number}/{word}", nested, ())
    yield from _classifier(plan, "classifier/0/linear/linear" if nested else "classifier/0/linear")


def _xception(plan: Plan, space: SearchSpace | None) -> Iterator[Entry]:
    """Of Xception, in whose supernet the middle flow is elastic."""
    second, *entry = plan.first
    middle, (leaving,), *ends = plan.stages
    yield from _conv_bn(plan.stem, "first_conv", "", ())
    yield from _conv_bn(second["conv"], "second_conv", "", ())
    for number, block in enumerate(entry):
        yield from _flow(block, f"entryblocks/{number}")
    for number, block in enumerate(middle):
        if space is None:
            yield from _flow(block, f"middleblocks/{number}")
        else:
            yield from _middle(block, f"middleblocks/{number}", tuple(map(int, space.stages[0].choices["kernel"])))
    yield from _flow(leaving, "exitblocks/0")
    for number, (block,) in enumerate(ends, 1):
        yield from _separable(block.path, f"expand_block{number}")
    yield from _classifier(plan, "classifier/linear")


def _flow(block: BlockPlan, prefix: str) -> Iterator[Entry]:
    """A block of Xception that is not elastic."""
    if block.shortcut is not None:
        yield Entry(f"{block.shortcut.name}.conv.weight", f"{prefix}/_skip/_W", True)
        yield from _norm(block.shortcut, f"{prefix}/_skipbn")
    for number, (depthwise, pointwise) in enumerate(zip(block.path[::2], block.path[1::2], strict=True), 1):
        yield from _separable((depthwise, pointwise), f"{prefix}/rep/sepconv{number}")


def _separable(layers: tuple[Layer, ...], prefix: str) -> Iterator[Entry]:
    depthwise, pointwise = layers
    yield Entry(f"{depthwise.name}.conv.weight", f"{prefix}/dwconv/_W", True)
    yield Entry(f"{pointwise.name}.conv.weight", f"{prefix}/pointwise/_W", True)
    yield from _norm(pointwise, f"{prefix}/bn")


def _middle(block: BlockPlan, prefix: str, kernels: tuple[int, ...]) -> Iterator[Entry]:
    """An elastic block of Xception."""
    for layer in block.path:
        number = layer.role[-1]
        if layer.groups > 1:
            yield from _matrices(layer, f"{prefix}/_depth_conv{number}/dwconv", kernels)
            yield Entry(f"{layer.name}.conv.weight", f"{prefix}/_depth_conv{number}/dwconv/conv/_W", True)
        else:
            yield Entry(f"{layer.name}.conv.weight", f"{prefix}/_point_linear{number}/ptconv/conv/_W", True)
            yield from _norm(layer, f"{prefix}/_point_linear{number}/bn/bn")


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
    yield from _matrices(layer, f"{prefix}/conv", kernels)
    yield Entry(f"{layer.name}.conv.weight", f"{prefix}/{conv}/_W", True)
    yield from _norm(layer, f"{prefix}/{norm}")


def _matrices(layer: Layer, prefix: str, kernels: tuple[int, ...]) -> Iterator[Entry]:
    for smaller, larger in pairwise(kernels):
        yield Entry(f"{layer.name}.conv.kernel_{larger}to{smaller}", f"{prefix}/{larger}to{smaller}_matrix", True)


def _norm(layer: Layer, prefix: str) -> Iterator[Entry]:
    for ours, theirs in _BN.items() if layer.norm else ():
        yield Entry(f"{layer.name}.norm.{ours}", f"{prefix}/{theirs}", ours in ("weight", "bias"))
