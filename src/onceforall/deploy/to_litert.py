"""LiteRT (TensorFlow Lite): the .tflite file is written from the plan; int8 by AI Edge Quantizer."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

from ai_edge_litert.interpreter import Interpreter

from onceforall.deploy.classify import channels_last, litert_run
from onceforall.deploy.ends import PROBABILITIES
from onceforall.deploy.job import INPUT, NAME, Infer, Job
from onceforall.nn.litert_graph import ENDS, SIGNATURE, graph
from onceforall.space.parts import parts

LAYOUT = "NHWC"


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as one .tflite file, whose images are (batch, height, width, channels); its metadata says how to feed
    it."""
    about = json.dumps({**json.loads(job.metadata), "layout": LAYOUT})
    content = graph([part for _, part in parts(job.net.plan)], job.numbers, batch=job.batch,
                    half=job.precision == "fp16", names=(INPUT, job.ends.output), metadata=(NAME, about),
                    pixels=job.ends.affine, softmax=job.ends.softmax)
    path.write_bytes(_quantised(content, job) if job.precision == "int8" else content)
    return {"layout": LAYOUT}


def opened(path: Path, threads: int) -> Infer:
    """The file in LiteRT's interpreter on the CPU."""
    return litert_run(Interpreter(str(path), num_threads=threads))


def _quantised(content: bytes, job: Job) -> bytes:
    """Weights and activations in int8, between images and logits in float32."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.quantizer import Quantizer
    from ai_edge_quantizer.recipe_manager import RecipeManager
    recipe = RecipeManager()
    recipe.add_static_config(".*", TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8)
    kept = [(".*", kind) for kind in (TFLOperationName.INPUT, TFLOperationName.OUTPUT)]
    kept += [(rf"^{re.escape(name)}([./;]|$)", TFLOperationName.ALL_SUPPORTED)
             for name in (*job.keep, *ENDS, PROBABILITIES)]
    for pattern, kind in kept:
        recipe.add_quantization_config(pattern, kind, algorithm_key=AlgorithmName.NO_QUANTIZE)
    images = [{INPUT: channels_last(batch)} for batch in job.calibration]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), catch_warnings():  # sizes, a bar, a hint
        simplefilter("ignore")
        quantizer = Quantizer(bytearray(content), recipe.get_quantization_recipe())
        ranges = quantizer.calibrate({SIGNATURE: images}, num_threads=1)
        return bytes(quantizer.quantize(ranges).quantized_model)
