"""Measures what the search stands on: costs of a million sub-networks, and the accuracy predictor on real ImageNet
accuracies, ten random halves.

    python benchmarks/search.py ROWS.jsonl [--json]

ROWS: measured sub-networks of mobilenet_v3_large, as `ofa predictor fit` takes them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from onceforall.cost.measured import Errors, Measured, errors, read_rows
from onceforall.cost.population import macs_table
from onceforall.cost.predictor import REGRESSORS
from onceforall.space import search_space

SPLITS = 10


def predictor(rows: Measured) -> dict[str, list[Errors]]:
    """For each regressor its errors on the half that it was not fitted on, a split each."""
    out: dict[str, list[Errors]] = {name: [] for name in REGRESSORS}
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(rows.top1))
        fitted, rest = np.array_split(order, 2)
        tested = Measured(rows.space, rows.codes[rest], rows.top1[rest])
        for name, fit in REGRESSORS.items():
            model = fit(rows.space, rows.codes[fitted], rows.top1[fitted], split)
            out[name].append(errors(model.of(tested.codes), tested))
    return out


def costs_a_second() -> list[float]:
    """MACs looked up, sub-networks a second, of a million random ones; five repetitions."""
    space = search_space("mobilenet_v3_large")
    table, rng = macs_table(space), np.random.default_rng(0)
    codes = np.stack([rng.integers(0, count, 1_000_000) for count in space.cardinalities], axis=1)
    rates = []
    for _ in range(5):
        began = time.perf_counter()
        table.of(codes)
        rates.append(len(codes) / (time.perf_counter() - began))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rates = costs_a_second()
    cases = []
    for name, scores in predictor(read_rows(arguments.rows, search_space("mobilenet_v3_large"))).items():
        tau = [score.tau for score in scores]
        within = [float(np.mean(list(score.tau_within.values()))) for score in scores]
        cases.append({"case": f"predictor {name}", "n": SPLITS, "tau": float(np.mean(tau)), "tau_min": min(tau),
                      "tau_max": max(tau), "tau_within": float(np.mean(within)), "tau_within_min": min(within),
                      "tau_within_max": max(within), "rmse": float(np.mean([score.rmse for score in scores]))})
    if arguments.json:
        print(json.dumps([{"case": "macs a second", "n": len(rates), "median": float(np.median(rates)),
                           "min": min(rates), "max": max(rates)}, *cases]))
        return
    print(f"MACs: {np.median(rates):,.0f} sub-networks a second ({min(rates):,.0f}..{max(rates):,.0f}), "
          f"n = {len(rates)}")
    for case in cases:
        print("{case}: tau {tau:.4f} ({tau_min:.4f}..{tau_max:.4f}), within a resolution {tau_within:.4f} "
              "({tau_within_min:.4f}..{tau_within_max:.4f}), RMSE {rmse:.5f}, {n} splits".format(**case))


if __name__ == "__main__":
    main()
