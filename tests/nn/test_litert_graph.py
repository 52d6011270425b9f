"""LiteRT graphs: each layer, activation and family answers as torch does."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from graphs import LAYERS, TORCH, expected, numbers, whole
from torch import Tensor

from onceforall.space import CATALOG, Layer
from onceforall.space.plan import ACTIVATIONS

litert = pytest.importorskip("ai_edge_litert.interpreter")
from onceforall.nn.litert_graph import graph  # noqa: E402


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
