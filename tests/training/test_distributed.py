"""More than one process: ranks from every launcher, and two processes that agree with one."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import torch
from forked import Popen

from onceforall.errors import UserError
from onceforall.training.engine.distributed import Processes, detect, joined

LAUNCHED = {
    "torchrun": {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
                 "TORCHELASTIC_RUN_ID": "j"},
    "openmpi": {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "j"},
    "mpich": {"PMI_RANK": "1", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2", "PMI_PORT": "j"},
    "slurm": {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
              "SLURM_JOB_ID": "j", "SLURM_STEP_ID": "0"},
}


@pytest.mark.parametrize("launcher", LAUNCHED)
def test_ranks_of_every_launcher(launcher):
    assert detect(LAUNCHED[launcher]) == Processes(1, 4, 1, 2, "j/0" if launcher == "slurm" else "j/")


def test_alone():
    assert detect({}) == Processes()
    allocation = {k: v for k, v in LAUNCHED["slurm"].items() if k != "SLURM_STEP_ID"}
    assert detect(allocation) == Processes()
    with pytest.raises(UserError, match="OMPI_COMM_WORLD_RANK"):
        detect({"OMPI_COMM_WORLD_RANK": "x", "OMPI_COMM_WORLD_SIZE": "2"})


WORKER = """
import os, sys, torch
torch.set_num_threads(1)
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.engine.distributed import detect, joined
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.settings import Optimizer
from onceforall.training.course import Course
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Moment, progressive_shrinking
import random
space = search_space("mobilenet_v3_large_32px?width_mult=0.25")
me = detect(os.environ)
generator = torch.Generator().manual_seed(3)
net = Supernet(space, 5, dropout=0.0, generator=generator).double().train()
images, labels = torch.rand(4, 16, 3, 16, 16, generator=generator).double(), torch.arange(16) % 5
share = 16 // me.world
course = Course(space=space, strategy=progressive_shrinking(2, teacher=False),
                stage=Stage(epochs=1, batches=Batches(size=share, micro=8), optimizer=Optimizer(lr=0.1)))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
learner = Learner(net, net, optimizer, None, Compute(), torch.amp.GradScaler("cpu", enabled=False), me)
with joined(me, torch.device("cpu")) as me:
    learner.processes = me
    for step in range(4):
        part = slice(me.rank * share, (me.rank + 1) * share)
        terms = course.strategy(space, random.Random(step), Moment(step, 4))
        train_step(learner, course, images[step][part], labels[part], terms=terms, lr=0.1)
if me.rank == 0:
    torch.save({n: p.detach() for n, p in net.named_parameters()}, sys.argv[1])
"""


def run(world: int, out: Path) -> dict[str, torch.Tensor]:
    processes = [Popen(
        [sys.executable, "-c", WORKER, str(out)],
        env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
             "LOCAL_WORLD_SIZE": str(world), "TORCHELASTIC_RUN_ID": str(out), "OMP_NUM_THREADS": "1"})
        for rank in range(world)]
    assert [p.wait(120) for p in processes] == [0] * world
    return torch.load(out, weights_only=True)


@pytest.mark.slow
def test_two_processes_agree_with_one_that_accumulates(tmp_path):
    """Four steps in float64, each process half of the batch: parameters within 1e-9."""
    one, two = run(1, tmp_path / "one.pt"), run(2, tmp_path / "two.pt")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-9, atol=1e-9)


TOGETHER = """
import os, signal, sys, time, torch
from onceforall.cli import main
from onceforall.training.engine.distributed import detect, joined, summed, told, gathered
me = detect(os.environ)
try:
    with joined(me, torch.device("cpu")) as me:
        assert told("first" if me.first else "other", me) == "first"
        assert gathered(me.rank, me) == list(range(me.world))
        for step in range(1000):
            if me.rank == 1 and step == 5:
                {fault}
            summed(torch.ones(1), me)
except ValueError as error:
    print(error)
    sys.exit(2)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "timeout"), [
    ("os.kill(os.getpid(), signal.SIGKILL)", "600"), ("sys.exit(3)", "600"), ("time.sleep(30)", "3")])
def test_a_process_that_dies_or_hangs_is_named(fault, timeout):
    """The others end, and say which; a death is noticed at once, a hang after the timeout."""
    job = f"{os.getpid()}-{fault}"
    processes = [Popen(
        [sys.executable, "-c", TOGETHER.format(fault=fault)],
        env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "3", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "3",
             "TORCHELASTIC_RUN_ID": job, "OMP_NUM_THREADS": "1", "ONCEFORALL_TIMEOUT": timeout})
        for rank in range(3)]
    began = time.monotonic()
    texts = [processes[rank].communicate(timeout=60)[0] for rank in (0, 2)]
    assert time.monotonic() - began < 40
    processes[1].kill()
    assert [processes[rank].returncode for rank in (0, 2)] == [2, 2]
    assert any("process 1 of 3 has ended or hangs" in text for text in texts), texts


@pytest.mark.parametrize("given", ["", "soon", "0", "nan", "1e9"])
def test_a_timeout_that_is_none(monkeypatch, given):
    monkeypatch.setenv("ONCEFORALL_TIMEOUT", given)
    with pytest.raises(UserError, match="environment ONCEFORALL_TIMEOUT: .* is no number of seconds from 1"), \
            joined(Processes(0, 2, 0, 2), torch.device("cpu")):
        pass
