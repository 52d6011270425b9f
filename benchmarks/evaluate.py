"""Measures the scoring of a trained supernet's random sub-networks against the authors' code: extraction, BN
recalibration on 2,000 training pictures (which both keep decoded), top-1 on the validation pictures. One a round, the
same weights and pictures, the same batches of 200, no worker processes, alternating, each side in a process of its own;
what is decoded in the first round and kept is in its time.

    python benchmarks/evaluate.py RUN PICTURES [--json] [--rounds N] [--threads N]

RUN: the folder of an `ofa fit`, or a supernet's weights file. PICTURES: train/<class>/* and val/<class>/*.
"""

from __future__ import annotations

import math
import random
from functools import partial
from pathlib import Path

import torch
from side_by_side import Work, case, in_turn, parser, report
from torch import nn
from torch.utils.data import DataLoader

from onceforall.cli.pictures import evaluator_of
from onceforall.data import normalize
from onceforall.nn import Supernet
from onceforall.space import Arch
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.weights.nets import open_weights

BATCH = 200


def opened(run: Path, pictures: Path) -> tuple[Supernet, Evaluator]:
    """The supernet of a run, and what scores its sub-networks on the pictures."""
    trained = open_weights(run)
    assert isinstance(trained.net, Supernet)
    evaluator = evaluator_of(run, trained, data=str(pictures), root=None, compute=Compute())
    evaluator.workers, evaluator.batch = 0, BATCH
    return trained.net, evaluator


def arch_of(net: Supernet, round_: int) -> Arch:
    return net.space.sample(random.Random(round_)).at(max(net.space.resolutions))


def ours(run: Path, pictures: Path) -> Work:
    keep_large_blocks()
    net, evaluator = opened(run, pictures)
    evaluator.compute.place(net)
    return lambda round_: evaluator.score(net, arch_of(net, round_), evaluator.data.test).top1


def reference(run: Path, pictures: Path) -> Work:
    """`reset_running_statistics` and `validate` of their run manager, without its log."""
    from authors import active, authors_net
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
    from ofa.utils import AverageMeter, accuracy
    from torchvision import datasets, transforms
    net, evaluator = opened(run, pictures)
    theirs, data, size = authors_net(net), evaluator.data, max(net.space.resolutions)
    sample = [(normalize(images, data.mean, data.std).contiguous(), None) for images in evaluator._sample(size)]
    loader = DataLoader(datasets.ImageFolder(str(pictures / "val"), transforms.Compose([
        transforms.Resize(math.ceil(size / 0.875)), transforms.CenterCrop(size), transforms.ToTensor(),
        transforms.Normalize(data.mean, data.std)])), batch_size=BATCH)

    def work(round_: int) -> float:
        set_running_statistics(active(theirs, net.space, arch_of(net, round_)), sample)
        theirs.eval()
        losses, top1 = AverageMeter(), AverageMeter()
        with torch.no_grad():
            for images, labels in loader:
                output = theirs(images)
                losses.update(nn.functional.cross_entropy(output, labels).item(), len(images))
                top1.update(accuracy(output, labels, topk=(1, min(5, output.shape[1])))[0].item(), len(images))
        return top1.avg / 100

    return work


def main() -> None:
    options = parser(__doc__, rounds=10)
    options.add_argument("run", type=Path)
    options.add_argument("pictures", type=Path)
    arguments = options.parse_args()
    found = in_turn({"ours": partial(ours, arguments.run, arguments.pictures),
                     "reference": partial(reference, arguments.run, arguments.pictures)},
                    rounds=arguments.rounds, warmup=0, threads=arguments.threads)
    a, b = found["ours"], found["reference"]
    report([case("score_subnets", a, b, ratio_of_sums=sum(b.seconds) / sum(a.seconds), ours_top1=a.first,
                 reference_top1=b.first)], threads=arguments.threads, as_json=arguments.json)


if __name__ == "__main__":
    main()
