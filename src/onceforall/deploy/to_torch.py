"""torch.export: one .pt2 file that torch alone loads, without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onceforall.deploy.ends import Fed, Images
from onceforall.deploy.job import NAME, Infer, Job


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as an exported program; the file's entry `onceforall` says how to feed it."""
    torch.export.save(program(job), path, extra_files={NAME: job.metadata})
    return {}


def program(job: Job) -> torch.export.ExportedProgram:
    """The net traced at its resolution, for any batch or a fixed one."""
    net: nn.Module = job.net.to(memory_format=torch.contiguous_format)
    if wrapped(job):
        net = _Ends(net, job)
    size = job.about.resolution
    images = torch.from_numpy(job.ends.fed(np.zeros((job.batch or 2, 3, size, size), np.float32)))
    shapes = None if job.batch else ({0: torch.export.Dim("batch")},)
    return torch.export.export(net, (images,), dynamic_shapes=shapes)


def wrapped(job: Job) -> bool:
    """Whether something stands before or behind the net, which is the submodule `net` then."""
    return job.precision == "fp16" or job.ends.pixels or job.ends.softmax


def opened(path: Path, _threads: int) -> Infer:
    """The program in this process, whose threads are torch's."""
    net = torch.export.load(path).module()

    def infer(images: Fed) -> Images:
        with torch.inference_mode():
            logits: Images = net(torch.from_numpy(images)).numpy()
        return logits

    return infer


class _Ends(nn.Module):
    """The net between what the file takes and what it gives; in float16 where it is to compute so."""

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, job: Job) -> None:
        super().__init__()
        self._half, self._pixels, self._softmax = job.precision == "fp16", job.ends.pixels, job.ends.softmax
        self.net = net.half() if self._half else net
        if job.ends.affine is not None:
            for name, values in zip(("scale", "shift"), job.ends.affine, strict=True):
                self.register_buffer(name, torch.from_numpy(values).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if self._pixels:
            images = images.permute(0, 3, 1, 2).float() * self.scale + self.shift
        out: Tensor = self.net(images.half()).float() if self._half else self.net(images)
        return out.softmax(1) if self._softmax else out
