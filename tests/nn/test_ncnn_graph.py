"""ncnn graphs: each layer, activation and family answers as torch does."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from graphs import LAYERS, TORCH, expected, numbers, whole

from onceforall.deploy.classify import ncnn_run
from onceforall.nn.ncnn_graph import graph
from onceforall.space import CATALOG, Layer
from onceforall.space.plan import ACTIVATIONS

ncnn = pytest.importorskip("ncnn")


def answer(text: str, content: bytes, images: torch.Tensor, folder) -> np.ndarray:
    """The graph's output for images (B, C, H, W)."""
    (folder / "x.param").write_text(text)
    (folder / "x.bin").write_bytes(content)
    return ncnn_run(ncnn, str(folder / "x.param"), threads=1)(images.numpy())


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_a_layer(layer, tmp_path):
    images = torch.randn(2, layer.inputs, layer.size, layer.size, generator=torch.Generator().manual_seed(1))
    wanted = expected(layer, images).numpy()
    found = answer(*graph([layer], numbers()), images, tmp_path)
    assert found.shape == wanted.shape == (2, layer.outputs, layer.out_size, layer.out_size)
    np.testing.assert_allclose(found, wanted, atol=2e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("act", ACTIVATIONS[1:])
def test_an_activation_far_from_zero(act, tmp_path):
    layer = Layer("x", 1, 1, size=2, norm=False, act=act)
    text, content = graph([layer], lambda layer, kind: np.ones((1, 1, 1, 1) if kind == "weight" else 1, np.float32))
    values = torch.tensor([-100, -6, -3, -1, 0, 1, 3, 6, 100.0])
    found = answer(text, content, values.view(-1, 1, 1, 1).expand(-1, 1, 2, 2), tmp_path)
    wanted = TORCH[act](values).numpy()
    np.testing.assert_allclose(found, np.broadcast_to(wanted[:, None, None, None], found.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CATALOG)
def test_every_family(name, tmp_path):
    for pick in (lambda space: space.smallest, lambda space: space.sample(random.Random(1)).at(space.resolutions[0])):
        net, some, values = whole(name, pick)
        images = torch.randn(2, 3, net.plan.resolution, net.plan.resolution)
        with torch.inference_mode():
            wanted = net(images).numpy()
        found = answer(*graph(some, values), images, tmp_path)
        np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_half_the_size(tmp_path):
    net, some, values = whole("mobilenet_v3_large_32px", lambda space: space.largest)
    images = torch.randn(1, 3, 32, 32)
    (text, floats), (same, halves) = (graph(some, values, half=half) for half in (False, True))
    assert text == same
    assert len(halves) < 0.65 * len(floats)  # biases stay as they are
    found = [answer(text, content, images, tmp_path) for content in (floats, halves)]
    assert 0 < np.abs(found[1] - found[0]).max() < 0.05 * np.abs(found[0]).max()
