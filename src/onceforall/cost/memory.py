"""Peak activation memory of a sub-network, from its plan alone."""

from __future__ import annotations

from onceforall.space import Arch, BlockPlan, Layer, Plan, SearchSpace, lower
from onceforall.space.plan import EXCITE, REDUCE

_BYTES = 4  # float32


def peak_memory(space: SearchSpace, arch: Arch) -> int:
    """Bytes of the largest set of activations that live at once in the forward pass of one picture, in float32.

    Layer by layer: its input, its output, and what is kept for later (a block's input until it is added, the map
    that a squeeze-and-excitation gate is for). Normalisation and activation work in place; weights do not count.
    """
    plan = lower(space, arch)
    return max(rest_memory(plan), *map(block_memory, plan.blocks()))


def block_memory(block: BlockPlan) -> int:
    """The largest set within a block, in bytes."""
    start = _inputs(block.path[0])
    sets, kept, hidden = [], 0, 0  # kept: the block's input, which is the first layer's own
    for layer in block.path:
        if layer.role == REDUCE:
            sets.append(2 * hidden + layer.inputs + kept)  # map times gate
        elif layer.role != EXCITE:
            hidden = _outputs(layer)
            sets.append(_within(layer) + kept)
        kept = start if block.residual else 0
    if block.shortcut is not None:
        sets.append(_within(block.shortcut) + hidden)
    return _BYTES * max(sets)


def rest_memory(plan: Plan) -> int:
    """The largest set in the layers before and after the blocks, in bytes."""
    return _BYTES * max(map(_within, (plan.stem, *plan.features, *plan.head)))


def _within(layer: Layer) -> int:
    """The largest set of one layer: its input and output, with a pooled map between."""
    if layer.pool == "max":
        convolved = layer.outputs * layer.conv_size ** 2
        return max(_inputs(layer) + convolved, convolved + _outputs(layer))
    if layer.pool == "mean":
        pooled = layer.inputs * layer.conv_size ** 2
        return pooled + max(_inputs(layer), _outputs(layer))
    return _inputs(layer) + _outputs(layer)


def _inputs(layer: Layer) -> int:
    return layer.inputs * layer.size ** 2


def _outputs(layer: Layer) -> int:
    return layer.outputs * layer.out_size ** 2
