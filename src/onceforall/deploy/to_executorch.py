"""ExecuTorch: a .pte file for phones and boards, computed by XNNPACK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime

from onceforall.deploy.blocks import within
from onceforall.deploy.ends import Fed, Images
from onceforall.deploy.job import NAME, Infer, Job
from onceforall.deploy.to_torch import program, wrapped


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as a program with a method `forward`; its constant method `onceforall` says how to feed it."""
    exported = program(job)
    if job.precision == "int8":
        exported = _quantised(exported, job)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()],
                                          constant_methods={NAME: job.metadata})
    path.write_bytes(lowered.to_executorch().buffer)
    return {}


def opened(path: Path, threads: int) -> Infer:
    """The program on ExecuTorch's runtime for Python, whose threads are those of the process from now on."""
    _unsafe_reset_threadpool(threads)
    method = Runtime.get().load_program(path).load_method("forward")

    def infer(images: Fed) -> Images:
        logits: Images = method.execute([torch.from_numpy(np.ascontiguousarray(images))])[0].numpy().copy()
        return logits

    return infer


def _quantised(exported: torch.export.ExportedProgram, job: Job) -> torch.export.ExportedProgram:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(lambda node: not _kept(node, job))
    prepared = prepare_pt2e(exported.module(), quantizer)
    for images in job.calibration:
        prepared(torch.from_numpy(images))
    return torch.export.export(convert_pt2e(prepared), (torch.from_numpy(job.calibration[0]),))


def _kept(node: torch.fx.Node, job: Job) -> bool:
    """Whether the node stays in float: it was traced in a module that the job keeps, or stands before or behind the
    net."""
    paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    if not wrapped(job):
        return any(within(path, job.keep) for path in paths)
    return paths == [""] or any(within(path.removeprefix("net."), job.keep) for path in paths)
