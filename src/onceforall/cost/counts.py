"""MACs and parameters of a sub-network, exact, from its plan alone."""

from __future__ import annotations

from onceforall.space import Arch, Layer, SearchSpace, lower


def layer_macs(layer: Layer) -> int:
    """Multiply-accumulates of the convolution or linear layer, one picture."""
    return layer.conv_size ** 2 * layer.outputs * (layer.inputs // layer.groups) * layer.kernel ** 2


def layer_params(layer: Layer) -> int:
    """Weights, bias, and the scale and shift of its batch normalisation."""
    weights = layer.outputs * (layer.inputs // layer.groups) * layer.kernel ** 2
    return weights + layer.outputs * (layer.bias + 2 * layer.norm)


def macs(space: SearchSpace, arch: Arch, *, num_classes: int = 1000) -> int:
    """Count the multiply-accumulates (MACs) of one forward pass of one picture.

    Args:
        space: the search space.
        arch: a sub-network of it.
        num_classes: outputs of the classifier.

    Returns:
        Those of convolutions and linear layers, squeeze-and-excitation included.
    """
    return sum(map(layer_macs, lower(space, arch, num_classes).layers()))


def params(space: SearchSpace, arch: Arch, *, num_classes: int = 1000) -> int:
    """Count the trainable parameters of an extracted sub-network.

    Args:
        space: the search space.
        arch: a sub-network of it.
        num_classes: outputs of the classifier.

    Returns:
        Those of all layers, BN's scales and shifts included.
    """
    return sum(map(layer_params, lower(space, arch, num_classes).layers()))
