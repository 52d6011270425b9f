"""OpenVINO: its IR (.xml and .bin) made of the ONNX graph; int8 by NNCF's post-training quantisation."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import openvino
from openvino.passes import ConstantFolding, Manager

from onceforall.deploy.ends import Fed, Images
from onceforall.deploy.job import INPUT, NAME, Infer, Job
from onceforall.deploy.to_onnx import onnx_model
from onceforall.latency.openvino_core import core
from onceforall.nn.onnx_graph import ENDS


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as IR; its rt_info says how to feed it."""
    model = core().read_model(onnx_model(job).SerializeToString())
    if job.precision == "int8":
        model = _quantised(model, job)
    model.set_rt_info(job.metadata, [NAME])
    openvino.save_model(model, path, compress_to_fp16=False)  # the net's own precision
    return {}


def opened(path: Path, threads: int) -> Infer:
    """The IR on OpenVINO's CPU device, which computes in float32: some processors would take bfloat16 by themselves."""
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads,
               "INFERENCE_PRECISION_HINT": "f32"}
    request = core().compile_model(path, "CPU", options).create_infer_request()

    def infer(images: Fed) -> Images:
        logits: Images = request.infer({INPUT: images})[0].copy()
        return logits

    return infer


def _quantised(model: openvino.Model, job: Job) -> openvino.Model:
    import nncf
    from nncf.quantization.advanced_parameters import OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its set_log_level changes the level of others' handlers, too
    folding = Manager()  # NNCF takes the weights of depthwise layers, which reading reshapes, for activations otherwise
    folding.register_pass(ConstantFolding())
    folding.run_passes(model)
    advanced = nncf.AdvancedQuantizationParameters(
        # ENABLE: weights of 7 bits in all layers, since processors without VNNI add two products in 16 bits
        overflow_fix=OverflowFix.DISABLE if job.full_range else OverflowFix.ENABLE,
        # the mean of each picture's range, NNCF's own choice, cuts off too much: three times the error on digits
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX)
    kept = [rf"^{re.escape(name)}[./]" for name in (*job.keep, *ENDS)]  # an operation is called layer/operation
    with redirect_stdout(sys.stderr):  # its progress
        # mixed: weights symmetric, activations not, as hard swish's are not
        return nncf.quantize(model, nncf.Dataset(list(job.calibration)), preset=nncf.QuantizationPreset.MIXED,
                             subset_size=len(job.calibration),
                             ignored_scope=nncf.IgnoredScope(patterns=kept, validate=False),
                             advanced_parameters=advanced)
