"""ONNX graphs: what is timed is the network, and every part of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from onceforall.latency.folder import write_folder
from onceforall.latency.job import Job, Settings
from onceforall.latency.runner import pictures, write_numbers
from onceforall.latency.table import all_parts
from onceforall.nn import Supernet, extract
from onceforall.nn.onnx_graph import graph
from onceforall.space import Layer, lower, search_space
from onceforall.space.parts import input_shape, parts

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.5)


def folded(net: nn.Module):
    """The writer's source of weights: those of an extracted sub-network, normalisation folded in."""
    def tensors(layer: Layer, kind: str, shape: tuple[int, ...]) -> onnx.TensorProto:
        module = net.get_submodule(layer.name)
        source = module if isinstance(module, nn.Linear) else module.conv
        weight = source.weight.detach()
        bias = torch.zeros(len(weight)) if source.bias is None else source.bias.detach()
        if layer.norm:
            norm = module.norm
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weight, bias = weight * scale.view(-1, 1, 1, 1), (bias - norm.running_mean) * scale + norm.bias
        value = (weight if kind == "weight" else bias).detach().numpy()
        assert value.shape == shape
        return numpy_helper.from_array(np.ascontiguousarray(value))
    return tensors


def answer(model: onnx.ModelProto | str, images: np.ndarray) -> np.ndarray:
    content = model if isinstance(model, str) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"images": images})[0]


@pytest.mark.parametrize("word", ["smallest", "middle", "largest"])
def test_a_whole_graph_answers_as_torch(word):
    generator = torch.Generator().manual_seed(0)
    net = Supernet(SPACE, 10, generator=generator)
    for module in net.modules():  # statistics as after training, none of them 0 or 1
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.8, 1.6, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
    arch = getattr(SPACE, word)
    plain = extract(net, arch).eval()
    plan = lower(SPACE, arch, 10)
    model = graph([part for _, part in parts(plan)], folded(plain), batch=2)
    onnx.checker.check_model(model, full_check=True)
    images = torch.rand(2, 3, arch.resolution, arch.resolution, generator=generator) - 0.5
    with torch.inference_mode():
        expected = plain(images).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(answer(model, images.numpy()), expected, atol=1e-4 * np.abs(expected).max())


def test_relu6_stops_at_six():
    layer = Layer("x", 1, 1, norm=False, act="relu6")
    model = graph([layer], lambda _, kind, shape: numpy_helper.from_array(np.full(shape, kind == "weight", "f")))
    assert answer(model, np.float32([[[[7.0]]]])).item() == 6
    assert answer(model, np.float32([[[[-1.0]]]])).item() == 0


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    job = Job(SPACE.restrict(resolutions=[32], kernel=[3, 7], depth=[2, 4]), 10, Settings(batch=2))
    values = write_folder(job, folder)
    write_numbers(folder / "graphs", values["numbers"])
    return job, values, folder / "graphs"


def test_every_part_has_a_graph_of_its_own_shape(graphs):
    job, values, folder = graphs
    assert [part["name"] for part in values["parts"]] == list(all_parts(job.space, 32, 10))
    assert len(values["subnets"]) == 40
    for key, case in job.cases.items():
        model = onnx.load(folder / f"{key}.onnx", load_external_data=False)
        dims = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
        assert dims == [2, *input_shape(case)]
        onnx.checker.check_model(str(folder / f"{key}.onnx"), full_check=True)


def test_graphs_are_small_and_share_their_numbers(graphs):
    _, values, folder = graphs
    sizes = [path.stat().st_size for path in folder.glob("*.onnx")]
    assert max(sizes) < 50_000
    largest = onnx.load(folder / "subnet_039.onnx", load_external_data=False)
    places = {}
    for tensor in largest.graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        start, length = int(entries["offset"]), int(entries["length"])
        assert length == 4 * np.prod(tensor.dims)
        assert start + length <= (folder / entries["location"]).stat().st_size
        places.setdefault(entries["location"], []).append((start, start + length))
    for ranges in places.values():  # as many bytes to read as with weights of its own
        assert all(a[1] <= b[0] for a, b in zip(sorted(ranges), sorted(ranges)[1:], strict=False))
    assert places.keys() == values["numbers"].keys()
    needed = 4 * sum(int(np.prod(tensor.dims)) for tensor in largest.graph.initializer)
    pages = 4096 * len(largest.graph.initializer)
    assert sum(path.stat().st_size for path in folder.glob("*.bin")) < 1.5 * needed + pages  # not one set a graph


def test_activations_neither_vanish_nor_grow(graphs):
    """Numbers below 1e-38 would be slower than those of a trained net."""
    _, _, folder = graphs
    for key in ("subnet_000", "subnet_020", "subnet_039"):
        out = answer(str(folder / f"{key}.onnx"), pictures((2, 3, 32, 32)))
        assert np.isfinite(out).all()
        assert 1e-3 < out.std() < 1e4
