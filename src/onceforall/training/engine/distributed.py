"""More than one process: ranks from torchrun, Open MPI, MPICH or SLURM; one flattened all-reduce of a step's gradients;
and what becomes of the run when one of them fails."""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from onceforall.data.serve import died
from onceforall.errors import UserError

_LAUNCHERS = {  # launcher: variables of rank, number of processes, rank and number on this machine, and job
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                 "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "PMI_PORT"),
    "SLURM": ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID"),
}
_ANSWER = 5.0  # seconds within which a living process says so, once something has failed
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among all: `rank` of `world`, and its place on its machine; `store`: what they all can read and
    write, inside `joined`."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    job: str = ""
    store: Store | None = field(default=None, repr=False, compare=False)

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
def joined(processes: Processes, device: torch.device) -> Iterator[Processes]:
    """All processes of the run in one group while inside: NCCL between GPUs, gloo between CPUs.

    A process that does not answer for ten minutes, or the seconds in `ONCEFORALL_TIMEOUT`, ends the run.
    """
    if processes.world == 1:
        yield processes
        return
    address = os.environ.get("MASTER_ADDR") or _address(processes)
    port = os.environ.get("MASTER_PORT") or str(20000 + zlib.crc32(processes.job.encode()) % 12000)
    timeout = timedelta(seconds=_timeout())
    try:
        store, *_ = next(rendezvous(f"tcp://{address}:{port}", processes.rank, processes.world, timeout=timeout))
        # torchrun keeps its store over a restart: what the processes before wrote there must not be taken for ours
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store=PrefixStore("group", store),
                                rank=processes.rank, world_size=processes.world, timeout=timeout)
    except (dist.DistError, ValueError) as error:
        raise UserError(f"process {processes.rank} of {processes.world}", f"finds no meeting point at {address}:{port} "
                        f"({str(error).splitlines()[0]})", "set MASTER_ADDR and MASTER_PORT alike for all") from None
    try:
        yield replace(processes, store=store)
    finally:
        dist.destroy_process_group()


def _timeout() -> float:
    given = os.environ.get("ONCEFORALL_TIMEOUT", "600")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 1e6:
        raise UserError("environment ONCEFORALL_TIMEOUT", f"{given!r} is no number of seconds from 1 to 1,000,000")
    return seconds


def _address(processes: Processes) -> str:
    nodes = os.environ.get("SLURM_JOB_NODELIST", "")
    match = re.match(r"([^\[,]+)(?:\[([0-9]+))?", nodes)
    if match:
        return match[1] + (match[2] or "")
    if processes.local_world < processes.world:
        raise UserError("environment MASTER_ADDR", "is not set, and the processes are on several machines",
                        "set it to the host name of rank 0, on every machine")
    return "127.0.0.1"


@contextmanager
def _together(processes: Processes) -> Iterator[None]:
    """Around whatever needs all processes: where it fails, a UserError names those that no longer answer."""
    try:
        yield
    except RuntimeError as error:
        if died(error) is not None:  # one of this process's workers
            raise
        raise UserError("processes", _absent(processes), "what it printed says why; the same command goes on from the "
                        "last checkpoint") from None


def _absent(processes: Processes) -> str:
    """Which processes do not answer, once a common operation has failed: they have ended, or hang."""
    absent = list(range(processes.world))
    if processes.store is None:
        return "one of them has ended or hangs"
    with suppress(RuntimeError):  # the store ends with the first process
        processes.store.set_timeout(timedelta(seconds=_ANSWER))
        processes.store.set(f"answers/{processes.rank}", "")
        deadline = time.monotonic() + _ANSWER
        while absent and time.monotonic() < deadline:
            absent = [rank for rank in absent if not processes.store.check([f"answers/{rank}"])]
            time.sleep(0.1)
        if not absent:
            return "the connection between them broke"
        return f"process {', '.join(map(str, absent))} of {processes.world} has ended or hangs"
    return f"process 0 of {processes.world} has ended"


def average_gradients(parameters: Iterable[torch.nn.Parameter], processes: Processes) -> None:
    """Replace each gradient by its mean over the processes: one flattened all-reduce.

    Every process must hold gradients for the same parameters, which it does: all run the same sub-networks.
    """
    if processes.world == 1:
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in grads])
    with _together(processes):
        dist.all_reduce(flat)
    flat /= processes.world
    for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
        grad.copy_(part.view(grad.shape))


def summed(values: Tensor, processes: Processes) -> Tensor:
    """`values` added up over the processes."""
    if processes.world > 1:
        with _together(processes):
            dist.all_reduce(values)
    return values


def follow_first(tensors: Iterable[Tensor], processes: Processes) -> None:
    """Overwrite `tensors` by those of the first process."""
    if processes.world > 1:
        with _together(processes):
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def told(value: T, processes: Processes) -> T:
    """What the first process says."""
    if processes.world == 1:
        return value
    box = [value]
    with _together(processes):
        dist.broadcast_object_list(box)
    return box[0]


def gathered(value: T, processes: Processes) -> list[T]:
    """What every process says, by rank."""
    if processes.world == 1:
        return [value]
    found = [value] * processes.world
    with _together(processes):
        dist.all_gather_object(found, value)
    return found


def wait(processes: Processes) -> None:
    """Until every process is here; raises UserError where one has ended."""
    if processes.world > 1:
        with _together(processes):
            dist.barrier()
