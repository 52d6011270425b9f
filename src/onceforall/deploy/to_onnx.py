"""ONNX: the graph is written from the plan; int8 by onnxruntime's static quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onceforall.deploy.blocks import within
from onceforall.deploy.ends import Fed, Images
from onceforall.deploy.job import INPUT, NAME, Infer, Job
from onceforall.nn.onnx_graph import ENDS, OPSET, graph
from onceforall.space import Layer
from onceforall.space.parts import parts


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as one ONNX file; its metadata says how to feed it."""
    model = onnx_model(job)
    if job.precision == "int8":
        _quantise(model, job, path)
    else:
        onnx.save(model, path)
    return {"opset": OPSET}


def onnx_model(job: Job) -> onnx.ModelProto:
    """The net in float32 or float16, before any quantisation."""
    half = job.precision == "fp16"

    def tensor(layer: Layer, kind: str, shape: tuple[int, ...]) -> TensorProto:
        values = np.ascontiguousarray(job.numbers(layer, kind).reshape(shape))
        return numpy_helper.from_array(values.astype(np.float16) if half else values)

    model = graph([part for _, part in parts(job.net.plan)], tensor, batch=job.batch, half=half,
                  names=(INPUT, job.ends.output), pixels=job.ends.affine, softmax=job.ends.softmax)
    helper.set_model_props(model, {NAME: job.metadata})
    onnx.checker.check_model(model, full_check=True)
    return model


def opened(path: Path, threads: int) -> Infer:
    """The file on onnxruntime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def infer(images: Fed) -> Images:
        given: Images = session.run(None, {INPUT: images})[0]
        return given

    return infer


class _Batches(CalibrationDataReader):  # type: ignore[misc]
    """Calibration batches as the quantiser asks for them."""

    def __init__(self, job: Job) -> None:
        self._batches: Iterator[Fed] = iter(job.calibration)

    def get_next(self) -> dict[str, Fed] | None:
        images = next(self._batches, None)
        return None if images is None else {INPUT: images}


def _quantise(model: onnx.ModelProto, job: Job, path: Path) -> None:
    """Weights by channel, signed; activations unsigned, by their least and largest value: the form that onnxruntime's
    integer convolutions are fastest in.

    Without VNNI they add two products in 16 bits, which saturate: 255 * 127 * 2 does not fit. With weights of 7 bits
    (-64 to 64) every sum fits. Unsigned weights would be exact as well, but are slower (docs/results.md).
    """
    with TemporaryDirectory(prefix="ofa-export-") as folder:
        floats = Path(folder) / "float.onnx"
        quant_pre_process(model, floats, skip_optimization=True, skip_symbolic_shape=True)
        kept = [node.name for node in model.graph.node if within(node.name.partition("/")[0], (*job.keep, *ENDS))]
        quantize_static(floats, path, _Batches(job), per_channel=True, weight_type=QuantType.QInt8,
                        activation_type=QuantType.QUInt8, reduce_range=not job.full_range, nodes_to_exclude=kept)
