"""Measures a training step against the authors' code (PyPI's `ofa`): the same weights, pictures and sub-networks,
batch 32 at 128 pixels, float32, teacher and four random sub-networks for shrinking, alternating, each in a process of
its own. `_channels_last`: their net and pictures moved to channels_last, which their code does not do.

    python benchmarks/train_step.py [--json] [--rounds N] [--threads N] [--only CASE] [--size PIXELS]

`--only elastic`: what elasticity costs: forward and backward of random sub-networks in the supernet against the
extracted nets (the reference).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from side_by_side import Case, Work, case, in_turn, parser, progress, report

from onceforall.nn import Supernet, extract
from onceforall.space import Arch, search_space
from onceforall.training.course import Course
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.evaluate import Compute
from onceforall.training.loop import Learner, train_step
from onceforall.training.optimizer import sgd
from onceforall.training.settings import Loss, Optimizer
from onceforall.training.stage import Batches, Stage
from onceforall.training.strategy import Term

SPACE = search_space("mobilenet_v3_large")
BATCH, SUBNETS, SMOOTHING, RATE, DECAY = 32, 4, 0.1, 0.01, 3e-5
CASES = ("full_net", "shrinking", "full_net_channels_last", "shrinking_channels_last")


def archs_of(round_: int, *, shrinking: bool) -> list[Arch]:
    """The sub-networks of a round: random ones, or the largest."""
    rng = random.Random(round_)
    return [SPACE.sample(rng) for _ in range(SUBNETS)] if shrinking else [SPACE.largest]


def supernet() -> Supernet:
    return Supernet(SPACE, dropout=0.0, generator=torch.Generator().manual_seed(1)).train()


def batch(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(BATCH, 3, size, size, generator=generator), torch.randint(1000, (BATCH,), generator=generator)


def ours(size: int, *, shrinking: bool) -> Work:
    """Our step as `ofa train` runs it."""
    keep_large_blocks()
    compute, net = Compute(), supernet()
    teacher = extract(net, SPACE.largest).requires_grad_(False)
    compute.place(net)
    compute.place(teacher)
    groups = [{"params": list(net.parameters()), "weight_decay": DECAY}]
    optimizer = sgd(groups, lr=RATE, momentum=0.9, nesterov=True)
    learner = Learner(net, net, optimizer, teacher, compute, torch.amp.GradScaler("cpu", enabled=False), Processes())
    course = Course(space=SPACE, strategy=lambda *_: [], stage=Stage(
        epochs=1, batches=Batches(size=BATCH), optimizer=Optimizer(lr=RATE),
        loss=Loss(smoothing=SMOOTHING, kd_weight=1)))
    images, labels = batch(size)

    def work(round_: int) -> float:
        terms = [Term(arch, "teacher" if shrinking else "labels") for arch in archs_of(round_, shrinking=shrinking)]
        return float(train_step(learner, course, images.contiguous(memory_format=torch.channels_last), labels,
                                terms=terms, lr=RATE))

    return work


def reference(size: int, *, shrinking: bool, channels_last: bool) -> Work:
    """The authors' step: what `train_one_epoch` does between two batches, without its metrics."""
    from authors import active, authors_net
    from ofa.utils import cross_entropy_loss_with_soft_target
    net = authors_net(supernet())
    teacher = active(net, SPACE, SPACE.largest).get_active_subnet(preserve_weight=True).requires_grad_(False).train()
    images, labels = batch(size)
    if channels_last:
        for each in (net, teacher):
            each.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)

    def work(round_: int) -> float:
        if shrinking:
            with torch.no_grad():
                soft = F.softmax(teacher(images).detach(), dim=1)
        net.zero_grad()
        total = 0.0
        for arch in archs_of(round_, shrinking=shrinking):
            output = active(net, SPACE, arch)(images)
            loss = F.cross_entropy(output, labels, label_smoothing=SMOOTHING)
            if shrinking:
                loss = cross_entropy_loss_with_soft_target(output, soft) + loss
            loss.backward()
            total += loss.item()
        optimizer.step()
        return total

    return work


def one_pass(size: int, *, extracted: bool) -> Work:
    """Forward and backward of one random sub-network a round."""
    keep_large_blocks()
    net = supernet()
    Compute().place(net)
    images, labels = batch(size)
    images = images.contiguous(memory_format=torch.channels_last)
    nets = {round_: extract(net, archs_of(round_, shrinking=True)[0]) for round_ in range(20)} if extracted else {}

    def work(round_: int) -> float:
        logits = nets[round_ % 20](images) if extracted else net(images, archs_of(round_ % 20, shrinking=True)[0])
        loss = F.cross_entropy(logits, labels)
        loss.backward()
        return float(loss.detach())

    return work


def sides(name: str, size: int) -> dict[str, Callable[[], Work]]:
    """The two sides of a case on pictures of so many pixels."""
    if name == "elastic":
        return {"ours": partial(one_pass, size, extracted=False), "reference": partial(one_pass, size, extracted=True)}
    shrinking, theirs_last = name.startswith("shrinking"), name.endswith("channels_last")
    return {"ours": partial(ours, size, shrinking=shrinking),
            "reference": partial(reference, size, shrinking=shrinking, channels_last=theirs_last)}


def main() -> None:
    options = parser(__doc__, rounds=10)
    options.add_argument("--only", choices=(*CASES, "elastic"))
    options.add_argument("--size", type=int, default=128, help="of a picture")
    arguments = options.parse_args()
    cases: list[Case] = []
    for name in CASES if arguments.only is None else [arguments.only]:
        progress(name)
        found = in_turn(sides(name, arguments.size), rounds=arguments.rounds, warmup=2, threads=arguments.threads)
        first = [found[side].first for side in ("ours", "reference")]
        cases.append(case(name, found["ours"], found["reference"], first_loss=first[0],
                          first_loss_difference=abs(first[0] - first[1]) / first[1]))
    report(cases, threads=arguments.threads, as_json=arguments.json)


if __name__ == "__main__":
    main()
