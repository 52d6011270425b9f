"""ncnn: a .param and a .bin file for phones and boards, written from the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ncnn

from onceforall.deploy.classify import ncnn_run
from onceforall.deploy.job import INPUT, Infer, Job
from onceforall.nn.ncnn_graph import graph
from onceforall.space.parts import parts


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as text and numbers. The files have no place to say how to feed them."""
    text, numbers = graph([part for _, part in parts(job.net.plan)], job.numbers, half=job.precision == "fp16",
                          names=(INPUT, job.ends.output), softmax=job.ends.softmax)
    path.write_text(text, encoding="ascii")
    path.with_suffix(".bin").write_bytes(numbers)
    return {}


def opened(path: Path, threads: int) -> Infer:
    """The files on ncnn's CPU code."""
    return ncnn_run(ncnn, str(path), threads)
