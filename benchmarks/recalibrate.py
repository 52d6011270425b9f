"""Measures BN recalibration on 2,000 pictures at 128 pixels against the authors' `set_running_statistics`: random
sub-networks of mobilenet_v3_large, one a round, the same weights and the same random pictures in memory, in batches of
100, alternating, each side in a process of its own. Ours begins with the supernet and bytes, and ends with an extracted
net; theirs begins with normalised floats.

    python benchmarks/recalibrate.py [--json] [--rounds N] [--threads N] [--pictures N] [--subnet random|largest]
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import torch
from side_by_side import Work, case, in_turn, parser, report

from onceforall.data import ArrayPictures, DataSet, normalize
from onceforall.nn import Supernet
from onceforall.space import Arch, search_space
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.evaluate import CALIBRATION_BATCH, Evaluator

SPACE, SIZE = search_space("mobilenet_v3_large").at([128]), 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def arch_of(round_: int, subnet: str) -> Arch:
    return SPACE.largest if subnet == "largest" else SPACE.sample(random.Random(round_))


def supernet() -> Supernet:
    return Supernet(SPACE, dropout=0.0, generator=torch.Generator().manual_seed(1)).eval()


def pictures(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def statistics_of(net: Any) -> float:
    """A number that shows whether two nets have the same statistics: the last normalisation's."""
    last = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
    return float(last.running_mean.norm() + last.running_var.norm())


def ours(*, count: int, subnet: str) -> Work:
    """`Evaluator.subnet`, whose sample of training pictures is decoded and kept before the first round."""
    keep_large_blocks()
    net = supernet()
    data = ArrayPictures(pictures(count), torch.zeros(count, dtype=torch.int64))
    evaluator = Evaluator(DataSet(data, data, data, ("0",), MEAN, STD), calibration_images=count)
    evaluator.compute.place(net)
    evaluator._calibration[SIZE] = list(torch.split(data.images, CALIBRATION_BATCH))  # as they are, not resized
    return lambda round_: evaluator.subnet(net, arch_of(round_, subnet))


def reference(*, count: int, subnet: str) -> Work:
    from authors import active, authors_net
    from ofa.imagenet_classification.elastic_nn.utils import set_running_statistics
    net = authors_net(supernet())
    batches = [(normalize(images, MEAN, STD).contiguous(), None)
               for images in torch.split(pictures(count), CALIBRATION_BATCH)]

    def work(round_: int) -> Any:
        set_running_statistics(active(net, SPACE, arch_of(round_, subnet)), batches)
        return net

    return work


def main() -> None:
    options = parser(__doc__, rounds=5)
    options.add_argument("--pictures", type=int, default=2000)
    options.add_argument("--subnet", choices=("random", "largest"), default="random")
    arguments = options.parse_args()
    given = {"count": arguments.pictures, "subnet": arguments.subnet}
    found = in_turn({"ours": partial(ours, **given), "reference": partial(reference, **given)},
                    rounds=arguments.rounds, warmup=1, threads=arguments.threads, answer=statistics_of)
    a, b = (found[side].first for side in ("ours", "reference"))
    report([case(f"recalibrate_{arguments.subnet}", found["ours"], found["reference"], pictures=arguments.pictures,
                 difference=abs(a - b) / b)], threads=arguments.threads, as_json=arguments.json)


if __name__ == "__main__":
    main()
