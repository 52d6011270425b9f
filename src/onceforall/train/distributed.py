"""More than one process: ranks from torchrun, Open MPI, MPICH or SLURM; one flattened all-reduce a step."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from onceforall.space import UserError

_LAUNCHERS = {  # launcher: variables of rank, number of processes, rank and number on this machine, and job
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                 "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_PORT"),
    "SLURM": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID"),
}


@dataclass(frozen=True)
class Processes:
    """This process among all: `rank` of `world`, and its place on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    job: str = ""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0


def detect(environment: Mapping[str, str]) -> Processes:
    """Which process this is, from the variables its launcher set; alone where there are none."""
    for launcher, (rank, world, local_rank, local_world, job) in _LAUNCHERS.items():
        if rank not in environment or world not in environment:
            continue
        if launcher == "SLURM" and "SLURM_STEP_ID" not in environment:
            continue  # inside an allocation, but not started by srun
        try:
            size = int(environment[world])
            local = re.match(r"[0-9]+", environment.get(local_world, "")) or re.match(r"[0-9]+", str(size))
            assert local is not None
            return Processes(int(environment[rank]), size, int(environment.get(local_rank, environment[rank])),
                             min(size, int(local[0])), _job(environment, job))
        except ValueError as error:
            raise UserError(f"environment {rank}, {world}", f"is not what {launcher} sets ({error})") from None
    return Processes()


def _job(environment: Mapping[str, str], variable: str) -> str:
    """What all processes of this run, and no other run on this machine, have in common."""
    return environment.get(variable, f"{os.getuid()}/{os.getppid()}") + "/" + environment.get("SLURM_STEP_ID", "")


@contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """All processes of the run in one group while inside: NCCL between GPUs, gloo between CPUs."""
    if processes.world == 1:
        yield
        return
    address = os.environ.get("MASTER_ADDR") or _address(processes)
    port = os.environ.get("MASTER_PORT") or str(20000 + zlib.crc32(processes.job.encode()) % 12000)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", init_method=f"tcp://{address}:{port}",
                                rank=processes.rank, world_size=processes.world, timeout=timedelta(minutes=10))
    except (dist.DistError, ValueError) as error:
        raise UserError(f"process {processes.rank} of {processes.world}", f"finds no meeting point at {address}:{port} "
                        f"({str(error).splitlines()[0]})", "set MASTER_ADDR and MASTER_PORT alike for all") from None
    try:
        yield
    finally:
        dist.destroy_process_group()


def _address(processes: Processes) -> str:
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    match = re.match(r"([^\[,]+)(?:\[([0-9]+))?", nodes)
    if match:
        return match[1] + (match[2] or "")
    if processes.local_world < processes.world:
        raise UserError("environment MASTER_ADDR", "is not set, and the processes are on several machines",
                        "set it to the host name of rank 0, on every machine")
    return "127.0.0.1"


def average_gradients(parameters: Iterable[torch.nn.Parameter], world: int) -> None:
    """Replace each gradient by its mean over the processes: one flattened all-reduce.

    Every process must hold gradients for the same parameters, which it does: all run the same sub-networks.
    """
    if world == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= world
    for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(part.view(grad.shape))


def summed(values: Tensor, world: int) -> Tensor:
    """`values` added up over the processes."""
    if world > 1:
        dist.all_reduce(values)
    return values


def follow_first(tensors: Iterable[Tensor], world: int) -> None:
    """Overwrite `tensors` by those of the first process."""
    if world > 1:
        for tensor in tensors:
            dist.broadcast(tensor, 0)


def wait(world: int) -> None:
    """Until every process is here; raises UserError where one has ended."""
    if world > 1:
        try:
            dist.barrier()
        except RuntimeError:
            raise UserError("processes", "another process of this run has ended", "its message says why") from None
