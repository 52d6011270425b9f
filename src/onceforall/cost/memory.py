"""Peak activation memory of a sub-network, from its plan alone."""

from __future__ import annotations

from onceforall.space import Arch, BlockPlan, Layer, Plan, SearchSpace, lower

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
    sets, kept, hidden = [], 0, 0  # kept: the block's input, which is the first layer's own
    for layer in block.layers:
        if layer.role == "reduce":
            sets.append(2 * hidden + layer.inputs + kept)  # map times gate
        elif layer.role != "excite":
            hidden = _outputs(layer)
            sets.append(_inputs(layer) + hidden + kept)
        kept = _inputs(block.layers[0]) if block.residual else 0
    return _BYTES * max(sets)


def rest_memory(plan: Plan) -> int:
    """The largest set in the layers before and after the blocks, in bytes."""
    layers = (plan.stem, *plan.features, *plan.head)
    return _BYTES * max(_inputs(layer) + _outputs(layer) for layer in layers)


def _inputs(layer: Layer) -> int:
    return layer.inputs * layer.size ** 2


def _outputs(layer: Layer) -> int:
    return layer.outputs * layer.out_size ** 2
