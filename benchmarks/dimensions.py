"""What each elastic dimension of a run adds to its front, on the test pictures.

    python benchmarks/dimensions.py RUN [--below 16 32 48 72 96]

The run is one of `ofa fit --from`. For each set of dimensions a search finds the sub-network that is predicted best
below each limit, in millions of MACs, where the other dimensions are at their largest. The predictor is that of the
run's search, fitted on the same measured sub-networks. The size of the pictures is always elastic. It prints a JSON
object for each set: the names, and for each limit MACs in millions and top-1 in per cent; null where nothing is below.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from onceforall.cost.features import Floats
from onceforall.cost.measured import Measured
from onceforall.cost.population import Codes
from onceforall.cost.predictor import Predictor, fit_best
from onceforall.run import Run
from onceforall.searching.costs import costs
from onceforall.searching.evolution import Evolution, evolve
from onceforall.searching.record import read_record
from onceforall.space import Arch, SearchSpace

EVOLUTION = Evolution(population=300, generations=100)


class OfPart:
    """A predictor of a whole space, for a part of it."""

    def __init__(self, predictor: Predictor, part: SearchSpace) -> None:
        self.space, self._predictor = part, predictor

    def of(self, codes: Codes) -> Floats:
        """Top-1 (N,) of sub-networks (N, genes) of the part."""
        whole = self._predictor.space
        return self._predictor.of(np.array([whole.encode(self.space.decode(code)) for code in codes.tolist()]))


def best_below(part: SearchSpace, predictor: Predictor, limits: Sequence[float],
               num_classes: int) -> list[tuple[Arch, float] | None]:
    """Of a part the sub-network that is predicted best below each limit, and its cost, in millions of MACs."""
    priced, told = costs(part, {}, num_classes=num_classes), OfPart(predictor, part)
    found = evolve(priced.problem(("accuracy", "macs"), (), told), EVOLUTION)
    predicted, macs = told.of(found.codes), priced.tables["macs"].of(found.codes) / 1e6
    best = [int(np.where(macs < limit, predicted, -1).argmax()) for limit in limits]
    return [(part.decode(found.codes[row].tolist()), float(macs[row])) if macs[row] < limit else None
            for limit, row in zip(limits, best, strict=True)]


def measured(folder: Path, limits: Sequence[float]) -> Iterator[dict[str, Any]]:
    """A row for each set of dimensions, from none to all."""
    run = Run(folder)
    net, evaluator = run.net, run.evaluator
    space, pictures = net.space, evaluator.data.test
    sampled = read_record(folder / "search")["sampled"]
    codes = np.array([space.encode(Arch.parse(space, row["arch"])) for row in sampled])
    rows = Measured(space, codes, np.array([row["accuracy_measured"] for row in sampled]))
    predictor = fit_best(rows, seed=0).predictor
    names = [*space.dimensions, "depth"]
    for some in (each for count in range(len(names) + 1) for each in combinations(names, count)):
        part = space
        for name in names:
            part = part if name in some else part.largest_of(name)
        yield {"elastic": ["resolution", *some], "best": [
            best and [round(best[1], 1), round(100 * evaluator.score(net, best[0], pictures).top1, 1)]
            for best in best_below(part, predictor, limits, net.num_classes)]}


def main() -> None:
    """Print a row for each set of dimensions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--below", type=float, nargs="+", default=[16, 32, 48, 72, 96])
    options = parser.parse_args()
    for row in measured(options.run, options.below):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
