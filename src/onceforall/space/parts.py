"""The parts of a plan that are timed, or written as a graph, one by one; and their names in latency tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from onceforall.space.plan import BlockPlan, Layer, Plan


@dataclass(frozen=True)
class Pool:
    """The head's mean over a square map, of side `size`."""

    channels: int
    size: int


Part = Layer | BlockPlan | Pool


def parts(plan: Plan, *, blocks: bool = True) -> Iterator[tuple[str, Part]]:
    """What is timed as one, with its name, in order; with `blocks` False what is outside the elastic stages."""
    *mixed, classifier = plan.head
    last = (*(block.path[-1] for block in plan.blocks()), *plan.features)[-1]
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
    """A layer by what decides its latency, as the authors name it."""
    return f"{kind}-input:{_map(layer.size, layer.inputs)}-output:{_map(layer.out_size, layer.outputs)}"


def block_name(block: BlockPlan) -> str:
    """A block by what decides its latency: inverted bottlenecks as the authors name them, others layer by layer."""
    first, last, depthwise = block.path[0], block.path[-1], block.layer("depthwise")
    ends = f"-input:{_map(first.size, first.inputs)}-output:{_map(last.out_size, last.outputs)}"
    if depthwise is None:
        return f"block{ends}" + "".join(map(_words, block.layers)) + f"-idskip:{block.residual:d}-act:{block.act}"
    other = "" if depthwise.act != "swish" else "-act:swish"
    return (f"expanded_conv{ends}-expand:{depthwise.inputs}-kernel:{depthwise.kernel}-stride:{depthwise.stride}-idskip:"
            f"{block.residual:d}-se:{block.layer('reduce') is not None:d}-hs:{depthwise.act == 'hswish':d}{other}")


def _words(layer: Layer) -> str:
    pool = f"-{layer.pool}" if layer.pool else ""
    return f"-{layer.role}:{layer.outputs}-kernel:{layer.kernel}-stride:{layer.stride}-act:{layer.act}{pool}"


def _map(size: int, channels: int) -> str:
    return f"{size}x{size}x{channels}"
