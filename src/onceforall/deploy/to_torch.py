"""torch.export: one .pt2 file that torch alone loads, without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onceforall.deploy.job import NAME, Images, Infer, Job


def write(job: Job, path: Path) -> dict[str, Any]:
    """The net as an exported program; the file's entry `onceforall` says how to feed it."""
    torch.export.save(program(job), path, extra_files={NAME: job.metadata})
    return {}


def program(job: Job) -> torch.export.ExportedProgram:
    """The net traced at its resolution, for any batch or a fixed one."""
    net = job.net.to(memory_format=torch.contiguous_format)
    images = torch.zeros(job.batch or 2, 3, job.about.resolution, job.about.resolution)
    shapes = None if job.batch else ({0: torch.export.Dim("batch")},)
    return torch.export.export(_Half(net) if job.precision == "fp16" else net, (images,), dynamic_shapes=shapes)


def opened(path: Path, _threads: int) -> Infer:
    """The program in this process, whose threads are torch's."""
    net = torch.export.load(path).module()

    def infer(images: Images) -> Images:
        with torch.inference_mode():
            logits: Images = net(torch.from_numpy(images)).numpy()
        return logits

    return infer


class _Half(nn.Module):
    """Computes in float16 between float32 images and logits."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.half()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images.half())
        return logits.float()
