"""The folder that run.py works in: graphs of a few kilobytes, and what the random numbers they share look like."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from math import log2, prod, sqrt
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from onceforall.errors import UserError
from onceforall.latency import runner
from onceforall.latency.job import Job
from onceforall.nn.onnx_graph import graph
from onceforall.space import Layer, Plan
from onceforall.space.parts import parts

_PAGE = 4096  # bytes; tensors that begin on one can be mapped into memory


class _Numbers:
    """Places of tensors in files of random numbers, one file a standard deviation (a power of two).

    Graphs share the files, the tensors of one graph do not overlap: a network reads as many bytes as with weights of
    its own.
    """

    def __init__(self) -> None:
        self.files: dict[str, tuple[float, int]] = {}
        self._ends: dict[str, int] = defaultdict(int)

    def begin(self) -> None:
        """Begin with another graph."""
        self._ends.clear()

    def tensor(self, layer: Layer, kind: str, shape: tuple[int, ...]) -> TensorProto:
        """An initialiser that points into a file. Its standard deviation keeps activations in their size (He et al.
        2015)."""
        gain = 1 if layer.act is None else 2
        power = round(log2(sqrt(gain / (layer.inputs // layer.groups * layer.kernel ** 2))))
        name, length = f"numbers{power}.bin", 4 * prod(shape)
        start = -(-self._ends[name] // _PAGE) * _PAGE
        self._ends[name] = start + length
        self.files[name] = 2.0 ** power, max(self._ends[name] // 4, self.files.get(name, (0.0, 0))[1])
        tensor = TensorProto(data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", name), ("offset", start), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def write_folder(job: Job, folder: Path) -> dict[str, Any]:
    """Write graphs, description and run.py of a job, and give the description; raises UserError for a folder that
    holds something else."""
    if folder.exists() and any(folder.iterdir()) and not (folder / runner.JOB).is_file():
        raise UserError(str(folder), "is not empty, and no runner's folder", "give another")
    graphs = folder / runner.GRAPHS
    if graphs.exists():
        shutil.rmtree(graphs)
    graphs.mkdir(parents=True)
    numbers = _Numbers()
    for key, case in job.cases.items():
        numbers.begin()
        pieces = [part for _, part in parts(case)] if isinstance(case, Plan) else [case]
        onnx.save(graph(pieces, numbers.tensor, batch=job.settings.batch), graphs / f"{key}.onnx")
    values = {**job.values(), "numbers": numbers.files}
    (folder / runner.JOB).write_text(json.dumps(values), encoding="utf-8")
    shutil.copyfile(runner.__file__, folder / "run.py")
    return values
