"""Names: every array of a net under our name and under NNablaNAS's, which the authors' names derive from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from onceforall.errors import UserError
from onceforall.nn import Subnet, Supernet
from onceforall.space import BlockPlan, Layer, Plan, SearchSpace
from onceforall.weights.content import COUNT

_BN = {"running_mean": "_mean", "running_var": "_var", "bias": "_beta", "weight": "_gamma"}
# of MobileNetV3 around the global mean, of ProxylessNAS before it, by the number of convolutions after it
HEADS = {1: ("final_expand_layer", "feature_mix_layer"), 0: ("feature_mix_layer",)}
_LEAVES = {"weight": "_W", "bias": "_b"}
_ROLES = {"expand": "inverted_bottleneck", "depthwise": "depth_conv", "project": "point_linear"}


@dataclass(frozen=True)
class Entry:
    """One array: our name, NNablaNAS's, and whether it is a parameter (or a statistic)."""

    ours: str
    theirs: str
    trained: bool


def names_of(net: Supernet | Subnet) -> list[Entry]:
    """Every array of a net, in NNablaNAS's order.

    Raises:
        UserError: NNablaNAS has no such family of networks.
    """
    try:
        found = (entries(net.plan(net.space.free.largest), net.space) if isinstance(net, Supernet) else
                 entries(net.plan))
    except (LookupError, ValueError):  # other layers, or others elastic, than the families below have
        found = []
    if {entry.ours for entry in found} != {name for name in net.state_dict() if not name.endswith(COUNT)}:
        raise UserError("weights", "are of a family of networks for which NNablaNAS and the authors have no names",
                        "take a .safetensors file")
    return found


def decay_names(net: Supernet | Subnet) -> dict[str, str]:
    """The names of the parameters in which a configuration says what has no weight decay, by our names.

    They are NNablaNAS's names. Where it has none, they are ours with NNablaNAS's words at the end.
    """
    try:
        return {entry.ours: entry.theirs for entry in names_of(net) if entry.trained}
    except UserError:
        return {name: _in_their_words(name) for name, _ in net.named_parameters()}


def _in_their_words(name: str) -> str:
    *modules, leaf = name.split(".")
    words = _LEAVES
    if modules[-1] == "norm":
        words, modules[-1] = _BN, "bn"
    return "/".join((*modules, words.get(leaf, leaf)))


def entries(plan: Plan, space: SearchSpace | None = None) -> list[Entry]:
    """The arrays of a net in NNablaNAS's order.

    Args:
        plan: the net's plan; of a supernet the plan of its largest sub-network.
        space: the supernet's space; None for an extracted net.
    """
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
    """The arrays of networks of inverted bottlenecks."""
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
    """The arrays of ResNet50D. Every layer of its supernet is elastic."""
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
    """The arrays of Xception. The middle flow of its supernet is elastic."""
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
