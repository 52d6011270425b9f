"""Zeros around a map by either rule, which `Layer.pads` alone counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onceforall.space import Layer, lower, search_space


@pytest.mark.parametrize(("kernel", "stride", "size", "same"), [
    (3, 1, 8, (1, 1)), (3, 2, 8, (0, 1)), (3, 2, 7, (1, 1)), (5, 2, 8, (1, 2)), (5, 2, 7, (2, 2)), (7, 2, 224, (2, 3)),
    (5, 2, 2, (1, 2)), (5, 2, 1, (2, 2)), (1, 2, 8, (0, 0)), (3, 3, 9, (0, 0)), (5, 1, 3, (2, 2))])
def test_pads(kernel, stride, size, same):
    layer = Layer("x", 1, 1, kernel, stride, size=size)
    assert layer.pads(size) == (kernel // 2, kernel // 2) and not layer.uneven
    tensorflow = replace(layer, padding="same")
    assert tensorflow.pads(size) == same and tensorflow.uneven == (stride > 1 and kernel > 1)
    assert (size + sum(same) - kernel) // stride + 1 == tensorflow.out_size == layer.out_size


def test_a_space_says_it_for_all_its_layers():
    space = replace(search_space("mobilenet_v3_large"), padding="same")
    plan = lower(space, space.largest)
    uneven = {layer.name for layer in plan.layers() if layer.uneven}
    assert uneven == {"stem", *(f"stages.{s}.0.depthwise" for s in (0, 1, 2, 4))}
    assert {layer.padding for block in plan.blocks() for layer in block.layers} == {"same"}
