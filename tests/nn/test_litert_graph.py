"""LiteRT graphs: each layer, activation and family answers as torch does."""

from __future__ import annotations

import json
import random
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from onceforall.nn import Supernet, extract
from onceforall.nn.folding import fold
from onceforall.space import CATALOG, Layer, search_space
from onceforall.space.parts import Part, parts
from onceforall.space.plan import ACTIVATIONS

litert = pytest.importorskip("ai_edge_litert.interpreter")
from onceforall.nn.litert_graph import graph  # noqa: E402

TORCH = {"relu": F.relu, "relu6": F.relu6, "hswish": F.hardswish, "swish": F.silu, "sigmoid": torch.sigmoid,
         "hsigmoid": F.hardsigmoid, "gelu": F.gelu, "mish": F.mish}


def numbers():
    """The same random weights each time."""
    def values(layer: Layer, kind: str) -> np.ndarray:
        shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
        source = np.random.default_rng(int(kind == "bias"))
        return source.standard_normal(shape if kind == "weight" else layer.outputs).astype(np.float32)
    return values


def answer(content: bytes, images: Tensor, *, classes: bool = False) -> np.ndarray:
    """The graph's output for images (B, C, H, W): (B, C, H, W), or (B, classes)."""
    net = litert.Interpreter(model_content=content, num_threads=1)
    source, target = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]
    rows = images.numpy().transpose(0, 2, 3, 1)
    net.resize_tensor_input(source, rows.shape)
    net.allocate_tensors()
    net.set_tensor(source, np.ascontiguousarray(rows))
    net.invoke()
    out = net.get_tensor(target)
    return out if classes else out.transpose(0, 3, 1, 2)


def expected(layer: Layer, images: Tensor) -> Tensor:
    values = numbers()
    weight, bias = (torch.from_numpy(values(layer, kind)) for kind in ("weight", "bias"))
    if layer.act_first:
        images = TORCH[layer.act](images)
    if layer.pool == "mean":
        images = F.avg_pool2d(images, layer.stride, ceil_mode=True, count_include_pad=False)
    start, end = layer.pads(images.shape[-1])
    out = F.conv2d(F.pad(images, (start, end, start, end)), weight, bias if layer.norm else None, layer.conv_stride,
                   groups=layer.groups)
    if layer.act and not layer.act_first:
        out = TORCH[layer.act](out)
    return F.max_pool2d(out, 3, 2, 1) if layer.pool == "max" else out


LAYERS = [
    *(Layer("x", 4, 6, kernel, stride, size=size, padding=padding)
      for kernel, stride, size, padding in product((1, 3, 5, 7), (1, 2), (8, 9), ("centre", "same"))),
    *(Layer("x", 4, outputs, 5, 2, groups=4, size=size, padding=padding, act="relu6")
      for outputs, size, padding in product((4, 8), (8, 9), ("centre", "same"))),
    Layer("x", 8, 12, 3, 2, groups=2, size=9), Layer("x", 4, 6, 3, size=9, norm=False),
    *(Layer("x", 4, 6, 3, stride, size=size, pool=pool, act="relu")
      for stride, size, pool in product((2,), (8, 9, 13), ("mean", "max"))),
    *(Layer("x", 4, 6, 3, size=8, act=act, act_first=first) for act, first in product(ACTIVATIONS[1:], (False, True))),
]


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_a_layer(layer):
    images = torch.randn(2, layer.inputs, layer.size, layer.size, generator=torch.Generator().manual_seed(1))
    wanted = expected(layer, images).numpy()
    found = answer(graph([layer], numbers(), batch=0), images)
    assert found.shape == wanted.shape == (2, layer.outputs, layer.out_size, layer.out_size)
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("act", ACTIVATIONS[1:])
def test_an_activation_far_from_zero(act):
    """`exp` of mish is infinite at 100."""
    layer = Layer("x", 1, 1, norm=False, act=act)
    content = graph([layer], lambda layer, kind: np.ones((1, 1, 1, 1) if kind == "weight" else 1, np.float32))
    images = torch.tensor([-100, -6, -3, -1, 0, 1, 3, 6, 100.0])
    found = [answer(content, value.view(1, 1, 1, 1)).item() for value in images]
    np.testing.assert_allclose(found, TORCH[act](images).numpy(), rtol=1e-5, atol=1e-6)


def whole(name: str, pick: Any) -> tuple[torch.nn.Module, list[Part], Any]:
    """A sub-network with random weights, its parts, and its weights for the writer."""
    space = search_space(f"{name}?width_mult=0.15")
    net = fold(extract(Supernet(space, 10, generator=torch.Generator().manual_seed(5)), pick(space)).eval())
    state = net.state_dict()

    def values(layer: Layer, kind: str) -> np.ndarray:
        return state.get(f"{layer.name}.conv.{kind}", state.get(f"{layer.name}.{kind}")).numpy()
    return net, [part for _, part in parts(net.plan)], values


@pytest.mark.parametrize("name", CATALOG)
def test_every_family(name):
    for pick in (lambda space: space.smallest, lambda space: space.sample(random.Random(1)).at(space.resolutions[0])):
        net, some, values = whole(name, pick)
        content = graph(some, values, batch=0)
        for batch in (1, 3):
            images = torch.randn(batch, 3, net.plan.resolution, net.plan.resolution)
            with torch.inference_mode():
                wanted = net(images).numpy()
            found = answer(content, images, classes=True)
            np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_half_the_size():
    net, some, values = whole("mobilenet_v3_large_32px", lambda space: space.largest)
    content = {half: graph(some, values, half=half) for half in (False, True)}
    assert len(content[True]) < 0.65 * len(content[False])
    images = torch.randn(1, 3, 32, 32)
    whole_, half = (answer(content[key], images, classes=True) for key in (False, True))
    assert 0 < np.abs(half - whole_).max() < 0.01 * np.abs(whole_).max()


def test_names_and_metadata():
    from ai_edge_litert import schema_py_generated as schema
    _, some, values = whole("mobilenet_v3_large_32px", lambda space: space.largest)
    text = json.dumps({"classes": ["Ä", "红"]})
    model = schema.ModelT.InitFromPackedBuf(graph(some, values, names=("a", "b"), metadata=("about", text)))
    tensors = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert len(set(tensors)) == len(tensors)  # the quantiser knows tensors by their names
    assert (tensors[model.subgraphs[0].inputs[0]], tensors[model.subgraphs[0].outputs[0]]) == (b"a", b"b")
    (kept,) = model.metadata
    assert (kept.name, bytes(model.buffers[kept.buffer].data).decode()) == (b"about", text)
