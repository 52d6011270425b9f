"""Measures extraction against the authors' `get_active_subnet`: random sub-networks of mobilenet_v3_large, the same
weights, one a round, alternating, each side in a process of its own; both answer the same.

    python benchmarks/extract.py [--json] [--rounds N] [--threads N]
"""

from __future__ import annotations

import random

import torch
from side_by_side import Work, case, in_turn, parser, report

from onceforall.nn import Supernet, extract
from onceforall.space import Arch, search_space
from onceforall.training.evaluate import Compute

SPACE = search_space("mobilenet_v3_large")


def arch_of(round_: int) -> Arch:
    return SPACE.sample(random.Random(round_))


def supernet() -> Supernet:
    return Supernet(SPACE, dropout=0.0, generator=torch.Generator().manual_seed(1)).eval()


@torch.no_grad()
def answer(net: torch.nn.Module) -> float:
    """A number that shows whether two nets are the same."""
    return float(net.eval()(torch.ones(1, 3, 128, 128)).norm())


def ours() -> Work:
    net = supernet()
    Compute().place(net)
    return lambda round_: extract(net, arch_of(round_))


def reference() -> Work:
    from authors import active, authors_net
    net = authors_net(supernet())
    return lambda round_: active(net, SPACE, arch_of(round_)).get_active_subnet(preserve_weight=True)


def main() -> None:
    arguments = parser(__doc__, rounds=50).parse_args()
    found = in_turn({"ours": ours, "reference": reference}, rounds=arguments.rounds, warmup=3,
                    threads=arguments.threads, answer=answer)
    a, b = (found[side].first for side in ("ours", "reference"))
    report([case("extract", found["ours"], found["reference"], difference=abs(a - b) / b)], threads=arguments.threads,
           as_json=arguments.json)


if __name__ == "__main__":
    main()
