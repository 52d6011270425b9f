"""The parts of a plan that are timed, or written as a graph, one by one; and their names in latency tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from onceforall.space.plan import DEPTHWISE, EXCITE, EXPAND, PROJECT, REDUCE, BlockPlan, Layer, Plan, make_divisible


@dataclass(frozen=True)
class Pool:
    """The head's mean over a square map, of side `size`."""

    channels: int
    size: int


Part = Layer | BlockPlan | Pool


def parts(plan: Plan, *, blocks: bool = True) -> Iterator[tuple[str, Part]]:
    """The parts that are timed, in order, with their names. With `blocks` False elastic stages are left out."""
    *mixed, classifier = plan.head
    last = (*(block.last for block in plan.blocks()), *plan.features)[-1]
    pool, number = Pool(last.outputs, last.out_size), count(1)
    yield layer_name("Conv", plan.stem), plan.stem
    yield from ((block_name(block), block) for block in (plan.blocks() if blocks else plan.first))
    yield from ((layer_name(f"Conv_{next(number)}", layer), layer) for layer in plan.features)
    yield f"AvgPool2D-input:{_map(pool.size, pool.channels)}-output:{_map(1, pool.channels)}", pool
    yield from ((layer_name(f"Conv_{next(number)}", layer), layer) for layer in mixed)
    yield f"Logits-input:{_map(1, classifier.inputs)}-output:{classifier.outputs}", classifier


def input_shape(part: Part | Plan) -> tuple[int, int, int]:
    """Channels, height and width of what a part, or a whole plan, is given."""
    if isinstance(part, Pool):
        return part.channels, part.size, part.size
    layer = part if isinstance(part, Layer) else part.stem if isinstance(part, Plan) else part.path[0]
    return layer.inputs, layer.size, layer.size


def names(plan: Plan, *, blocks: bool = True) -> Iterator[str]:
    """The names of the timed parts of a plan, as `parts` has them."""
    return (name for name, _ in parts(plan, blocks=blocks))


def layer_name(kind: str, layer: Layer) -> str:
    """The name of a layer: what decides its latency, in the authors' words. Further words follow where its kernel is
    not theirs."""
    usual = 3 if layer.role == "stem" else 1
    kernel = "" if layer.kernel == usual else f"-kernel:{layer.kernel}"
    return f"{kind}-input:{_map(layer.size, layer.inputs)}-output:{_map(layer.out_size, layer.outputs)}" + (
        f"{kernel}{_further(layer)}")


def block_name(block: BlockPlan) -> str:
    """The name of a block: what decides its latency. It has the authors' words for inverted bottlenecks, and else names
    each layer."""
    first, last, depthwise = block.path[0], block.last, block.layer(DEPTHWISE)
    ends = f"-input:{_map(first.size, first.inputs)}-output:{_map(last.out_size, last.outputs)}"
    if depthwise is None or not as_the_authors(block):
        return f"block{ends}" + "".join(map(_words, block.layers)) + f"-idskip:{block.residual:d}-act:{block.act}"
    other = "" if depthwise.act != "swish" else "-act:swish"
    return (f"expanded_conv{ends}-expand:{depthwise.inputs}-kernel:{depthwise.kernel}-stride:{depthwise.stride}-idskip:"
            f"{block.residual:d}-se:{block.layer(REDUCE) is not None:d}-hs:{depthwise.act == 'hswish':d}{other}")


def as_the_authors(block: BlockPlan) -> bool:
    """Whether a block is an inverted bottleneck of the authors' code: its layers, their activations and padding."""
    depthwise = block.layer(DEPTHWISE)
    if depthwise is None:
        return False
    hidden, act, squeezed = depthwise.outputs, depthwise.act, make_divisible(depthwise.outputs // 4)
    wanted = [(EXPAND, hidden, act), (DEPTHWISE, hidden, act), (REDUCE, squeezed, "relu"), (EXCITE, hidden, "hsigmoid"),
              (PROJECT, block.last.outputs, None)]
    found = [(layer.role, layer.outputs, layer.act) for layer in block.layers]
    there = {role for role, _, _ in found} | {DEPTHWISE, PROJECT}
    if (EXPAND in there) != (hidden != block.path[0].inputs):
        return False
    return found == [row for row in wanted if row[0] in there] and not any(map(_further, block.layers)) and (
        block.last.kernel == 1)


def _words(layer: Layer) -> str:
    return (f"-{layer.role}:{layer.outputs}-kernel:{layer.kernel}-stride:{layer.stride}-act:{layer.act}"
            f"{_further(layer)}")


def _further(layer: Layer) -> str:
    """What few layers have: pooling, groups, uneven zeros."""
    pool = f"-{layer.pool}" if layer.pool else ""
    groups = f"-groups:{layer.groups}" if layer.groups > 1 and not layer.depthwise else ""
    return f"{pool}{groups}{'-same' if layer.uneven else ''}"


def _map(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"
