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
    depthwise, project = block["depthwise"], block["project"]
    source = _inputs(block.layers[0])
    kept = source if block.residual else 0
    hidden = _outputs(depthwise)
    sets = [hidden + _outputs(project) + kept]
    if block.layer("expand") is not None:
        sets += [source + _inputs(depthwise), _inputs(depthwise) + hidden + kept]
    else:
        sets.append(source + hidden)  # the block's input is the layer's own
    if block.layer("reduce") is not None:
        sets.append(2 * hidden + depthwise.outputs + kept)  # map times gate
    return _BYTES * max(sets)


def rest_memory(plan: Plan) -> int:
    """The largest set in the layers before and after the blocks, in bytes."""
    layers = (plan.stem, *plan.features, *plan.head)
    return _BYTES * max(_inputs(layer) + _outputs(layer) for layer in layers)


def _inputs(layer: Layer) -> int:
    return layer.inputs * layer.size ** 2


def _outputs(layer: Layer) -> int:
    return layer.outputs * layer.out_size ** 2
