"""int8: on which processors it is exact, what it loses by block, and which layers stay in float.

Processors without VNNI add two products of an activation (0 to 255) and a weight in 16 bits, and saturate. The tests of
ranges and of saturation fail on every processor, those of accuracy on processors without VNNI only.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from onceforall.data import eval_batches, normalize
from onceforall.deploy import export as export_module
from onceforall.deploy.description import read_description
from onceforall.deploy.explain import explain
from onceforall.deploy.export import WITHOUT_VNNI, Request, export
from onceforall.deploy.folder import Scored, load_subnet, save_subnet
from onceforall.deploy.verify import instructions, prepared
from onceforall.errors import UserError
from onceforall.weights.nets import load_supernet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
INT16 = np.iinfo(np.int16)
ANY = {"max_loss": 100, "calibration_images": 40}


@pytest.fixture(scope="module")
def net(supernet, evaluator):
    """The smallest sub-network, trained for seconds: four of five digits are right."""
    net, data = evaluator.subnet(supernet, supernet.space.smallest), evaluator.data
    batches = [(normalize(batch.images, data.mean, data.std, torch.device("cpu")), batch.labels)
               for batch in eval_batches(data.train.subset(range(600)), supernet.space.smallest.resolution, batch=32)]
    net.train().requires_grad_(True)
    optimizer = torch.optim.Adam(net.parameters(), 4e-3)
    for _ in range(6):
        for images, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), labels).backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def saved(net, evaluator, weights, folder):
    space = load_supernet(weights).space
    save_subnet(Scored.of(evaluator, net, space, space.smallest).extracted, folder, source=weights)
    return folder


@pytest.fixture(scope="module")
def trained(net, evaluator, weights, tmp_path_factory):
    return saved(net, evaluator, weights, tmp_path_factory.mktemp("trained") / "subnet")


@pytest.fixture(scope="module")
def exported(trained, digits, tmp_path_factory):
    """Its folder with both forms of int8 as ONNX files."""
    folder = tmp_path_factory.mktemp("exported") / "subnet"
    shutil.copytree(trained, folder)
    for full_range in (False, True):
        export(folder, Request("onnx", "int8", full_range=full_range, **ANY), digits)
    return folder


def weights_of(path) -> dict[str, np.ndarray]:
    """The int8 weights of convolutions and linear layers in an ONNX file; biases have 32 bits."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and tensor.name.endswith("weight_quantized")}


@pytest.mark.slow
def test_the_range_of_the_weights(exported):
    portable, full = weights_of(exported / "model_int8.onnx"), weights_of(exported / "model_int8_full.onnx")
    assert portable.keys() == full.keys()
    assert {name.removesuffix(".weight_quantized") for name in portable} == {
        layer.name for layer in load_subnet(exported).plan.layers()}
    assert all(np.abs(values.astype(int)).max() == 64 for values in portable.values())
    assert all(np.abs(values.astype(int)).max() == 127 for values in full.values())


def products(path, images):
    """Of every layer without a neighbourhood: its activations (N, inputs) and weights (outputs, inputs), as the file
    computes with them."""
    model = onnx.load(path)
    made_by = {node.output[0]: node for node in model.graph.node}
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            values, weights = (made_by[name].input[0] for name in node.input[:2])
            if stored[weights].shape[2:] in ((), (1, 1)):
                found.append((values, stored[weights].reshape(len(stored[weights]), -1)))
    for values, _ in found:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(values))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # no integer kernels
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    activations = session.run([values for values, _ in found], {"images": images})
    for values, (_, weights) in zip(activations, found, strict=True):
        assert values.dtype == np.uint8 and weights.dtype == np.int8
        yield np.moveaxis(values, 1, -1).reshape(-1, values.shape[1]).astype(np.int32), weights.astype(np.int32)


def saturated(values, weights):
    """values @ weights.T as vpmaddubsw computes it: neighbours' products are added in 16 bits, which saturate."""
    pairs = sum(values[:, None, i::2] * weights[None, :, i::2] for i in (0, 1))
    return pairs.clip(INT16.min, INT16.max).sum(2)


def test_sums_in_16_bits(exported, digits, supernet):
    """What a processor without VNNI makes of each layer, whatever processor runs this test."""
    images, _ = next(prepared(digits.test, digits, supernet.space.smallest.resolution, 8))
    wrong = {name: [not np.array_equal(saturated(values, weights), values @ weights.T)
                    for values, weights in products(exported / name, images)]
             for name in ("model_int8.onnx", "model_int8_full.onnx")}
    assert len(wrong["model_int8.onnx"]) > 10
    assert not any(wrong["model_int8.onnx"])
    assert any(wrong["model_int8_full.onnx"])
    worst = np.array([[255, 255]])
    assert saturated(worst, np.array([[64, 64]])) == 2 * 255 * 64
    assert saturated(worst, np.array([[127, 127]])) == INT16.max


def test_the_portable_form_keeps_its_accuracy(exported):
    seen = read_description(exported).exports["model_int8.onnx"].verification
    assert seen.torch_top1 > 0.75
    assert seen.torch_top1 - seen.top1 < 0.02
    assert seen.pictures.same_top1 > 0.95 * seen.pictures.images


def weights_in_ir(model) -> dict[str, np.ndarray]:
    """The int8 weights in an OpenVINO model, by the layer that they belong to."""
    found = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            weights = op.input_value(1).get_node()
            while weights.get_type_name() != "Constant":
                weights = weights.input_value(0).get_node()
            if weights.get_data().dtype == np.int8:
                found[op.get_friendly_name().partition("/")[0]] = weights.get_data().astype(int)
    return found


@pytest.mark.slow
def test_openvino(trained, digits, tmp_path):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    folder, others = tmp_path / "subnet", logging.NullHandler()
    logging.getLogger("nncf").addHandler(others)
    shutil.copytree(trained, folder)
    for full_range, greatest in ((False, 64), (True, 127)):
        request = Request("openvino", "int8", full_range=full_range, keep=("stages.0.0",), **ANY)
        ((file, made),) = export(folder, request, digits).items()
        stored = weights_in_ir(openvino.Core().read_model(folder / file))
        layers = {layer.name for layer in load_subnet(folder).plan.layers()}
        assert layers - stored.keys() == {f"stages.0.0.{role}" for role in ("expand", "depthwise", "project")}
        # NNCF leaves depthwise layers their full range: there are no two inputs whose products could be added
        dense = {layer: np.abs(values).max() for layer, values in stored.items() if not layer.endswith("depthwise")}
        assert {int(most) for most in dense.values()} <= {greatest - 1, greatest}
        if not full_range:
            assert made.verification.torch_top1 - made.verification.top1 < 0.02
    assert others.level == logging.NOTSET


def test_the_description_names_processors(exported):
    exports = read_description(exported).exports
    portable, full = exports["model_int8.onnx"], exports["model_int8_full.onnx"]
    assert (portable.int8.form, portable.int8.may_lose_on, portable.may_lose_on) == ("portable", [], "")
    assert (full.int8.form, full.int8.may_lose_on) == ("full-range", [WITHOUT_VNNI])
    assert portable.verification.instructions == instructions() != []
    card = (exported / "README.md").read_text()
    lines = {name: next(line for line in card.splitlines() if line.startswith(f"- `{name}`")) for name in exports}
    assert all(", ".join(instructions()) in line for line in lines.values())
    assert WITHOUT_VNNI in lines["model_int8_full.onnx"]
    assert WITHOUT_VNNI not in lines["model_int8.onnx"]


def test_descriptions_of_before_are_read(exported, tmp_path):
    """They say nothing of the form, of instruction sets, or of float32's time."""
    folder = tmp_path / "subnet"
    shutil.copytree(exported, folder)
    values = json.loads((folder / "model.json").read_text())
    for made in values["exports"].values():
        del made["int8"], made["verification"]["instructions"], made["verification"]["latency"]["fp32_ms"]
    (folder / "model.json").write_text(json.dumps(values))
    made = read_description(folder).exports["model_int8.onnx"]
    assert (made.int8, made.verification.instructions, made.verification.latency.fp32_ms) == (None, [], None)
    assert made.may_lose_on


def test_float32_of_the_same_runtime_is_timed(exported, folder):
    times = read_description(exported).exports["model_int8.onnx"].verification.latency
    assert 0 < times.fp32_ms < 1000
    assert export(folder, Request("onnx"))["model.onnx"].verification.latency.fp32_ms is None


@pytest.fixture(scope="module")
def uneven(net, evaluator, weights, tmp_path_factory):
    """The same function, but one channel in one block is 400 times the others, to which int8 leaves few levels."""
    block = net.get_submodule("stages.0.0")
    with torch.no_grad():
        for tensor in (block.expand.norm.weight, block.expand.norm.bias):
            tensor[0] *= 400
        block.depthwise.conv.weight[0] /= 400
    return saved(net, evaluator, weights, tmp_path_factory.mktemp("uneven") / "subnet")


@pytest.mark.slow
# the net that `uneven` changes is the module's: its tests are the last ones
def test_a_block_that_loses_is_found_and_kept(uneven, digits, tmp_path):
    folder = tmp_path / "subnet"
    shutil.copytree(uneven, folder)
    request = Request("onnx", "int8", calibration_images=40)
    with pytest.raises(UserError, match=r"loses \d+\.\d\d points of top-1"):
        export(folder, request, digits)
    few = replace(request, keep=("stages.1", "stages.2", "head.mix"))  # the rest is quick
    losses = explain(folder, few, digits)
    assert {loss.block for loss in losses} == {"stem", "first.0", "stages.0.0", "head.expand", "head.classifier"}
    assert [loss.error for loss in losses] == sorted((loss.error for loss in losses), reverse=True)
    assert losses[0].block == "stages.0.0"
    assert losses[0].error > 3 * losses[1].error
    assert losses[0].points > 1
    ((file, made),) = export(folder, replace(request, keep=("stages.0.0",)), digits).items()
    assert made.int8.keep == ["stages.0.0"]
    assert "`stages.0.0`" in (folder / "README.md").read_text()
    layers = {layer.name for layer in load_subnet(folder).plan.layers()}
    quantised = {name.removesuffix(".weight_quantized") for name in weights_of(folder / file)}
    assert layers - quantised == {f"stages.0.0.{role}" for role in ("expand", "depthwise", "project")}


@pytest.mark.slow
def test_litert_keeps_a_block(uneven, digits, tmp_path):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    folder = tmp_path / "subnet"
    shutil.copytree(uneven, folder)
    request = Request("litert", "int8", max_loss=100, calibration_images=30)
    stored, top1 = [], []
    for keep in ((), ("stages.0.0",)):
        ((file, made),) = export(folder, replace(request, keep=keep), digits).items()
        details = litert.Interpreter(str(folder / file)).get_tensor_details()
        stored.append({row["name"].removesuffix(".weight") for row in details
                       if row["name"].endswith(".weight") and row["dtype"] == np.int8})
        top1.append(made.verification.top1)
    layers = {layer.name for layer in load_subnet(folder).plan.layers()}
    assert stored == [layers, layers - {f"stages.0.0.{role}" for role in ("expand", "depthwise", "project")}]
    assert top1[1] > top1[0] + 0.01


@pytest.mark.slow
def test_executorch_keeps_a_block(uneven, digits, tmp_path, monkeypatch):
    """Without float32 beside it, which `test_export.py` has, and which takes as long to write."""
    written = export_module._written
    monkeypatch.setattr(export_module, "_written", lambda target, job, *more: (
        ({}, None) if job.precision == "fp32" else written(target, job, *more)))
    if find_spec("executorch") is None or find_spec("torchao") is None:
        pytest.skip("executorch is not installed")
    folder = tmp_path / "subnet"
    shutil.copytree(uneven, folder)
    request = Request("executorch", "int8", max_loss=100, calibration_images=30)
    few = replace(digits, test=digits.test.subset(range(100)))
    ((_, lost),) = export(folder, request, few).items()
    ((_, kept),) = export(folder, replace(request, keep=("stages.0.0",)), few).items()
    assert kept.verification.pictures.same_top1 > lost.verification.pictures.same_top1
    # a logit that is larger than any of the calibration is cut in both: the largest error may be the same
    assert kept.verification.pictures.relative_error < lost.verification.pictures.relative_error / 2


@pytest.mark.parametrize(("request_", "message"), [
    (Request("onnx", "int8", keep=("stages.9",)), "--keep: 'stages.9' is no layer, block or stage of this sub-network; "
     "its blocks are stem, first.0, stages.0.0, "),
    (Request("onnx", "int8", keep=("stages.0.",)), "--keep: 'stages.0.' is no layer,"),
    (Request("onnx", keep=("stem",)), "--keep: has no effect in fp32; it belongs to --int8"),
    (Request("onnx", "fp16", full_range=True), "--full-range: has no effect in fp16; it belongs to --int8"),
    (Request("executorch", "int8", full_range=True), "--full-range: is not possible: executorch has one form of int8"),
])
def test_what_cannot_be_is_one_line(trained, digits, request_, message):
    before = sorted(trained.rglob("*"))
    with pytest.raises(UserError) as error:
        export(trained, request_, digits)
    assert str(error.value).startswith(message)
    assert sorted(trained.rglob("*")) == before


def test_an_explanation_is_of_int8(trained, digits):
    with pytest.raises(UserError, match="--explain: shows what int8 loses; give --int8"):
        explain(trained, Request("onnx"), digits)
    with pytest.raises(UserError, match="--int8: needs training pictures"):
        explain(trained, Request("onnx", "int8"))
