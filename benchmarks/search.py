"""Measures the search: costs of a million sub-networks, the accuracy predictor on real ImageNet accuracies (ten random
halves), with the authors' predictor and phone the front of five seeds, against the authors' evolution in this run, and
on a trained supernet the measured front against random search's.

    OMP_NUM_THREADS=1 python benchmarks/search.py DATA [--json] [--only costs|predictor|front|rate|measured] [--run RUN]

DATA: a folder with ofa_mbv3_imagenet_top1.jsonl, measured sub-networks of mobilenet_v3_large as `ofa predictor fit`
takes them, and mit/ with the authors' predictor and latency tables of width 1.2. `rate` needs PyPI's `ofa`, their code.
RUN: the folder of an `ofa fit`, for `measured`, which keeps what it measures in RUN/benchmark.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import torch
import yaml

from onceforall.cli.pictures import evaluator_of
from onceforall.cli.running import compute_of
from onceforall.cost.measured import Errors, Measured, errors, read_rows
from onceforall.cost.population import canonical, macs_table
from onceforall.cost.predictor import REGRESSORS
from onceforall.cost.predictor_file import load
from onceforall.interop.mit.weights import loaded
from onceforall.latency.table import read_table
from onceforall.nn import Supernet
from onceforall.searching.costs import costs
from onceforall.searching.evolution import Evolution, evolve, hypervolume
from onceforall.searching.problem import Problem
from onceforall.searching.score import Scorer
from onceforall.searching.study import Plan, study
from onceforall.space import search_space
from onceforall.training.engine.distributed import Processes
from onceforall.weights.nets import open_weights

SPLITS, SEEDS, ROUNDS = 10, 5, 5
WIDE = search_space("mobilenet_v3_large", width_mult=1.2)
WANTED = {15: 0.786, 18: 0.800, 20: 0.807, 25: 0.818, 30: 0.828, 40: 0.840}  # ms: top-1 to reach
THEIRS = {15: 0.7854, 18: 0.7995, 20: 0.8068, 25: 0.8181, 30: 0.8274, 40: 0.8391}  # their evolution, best of two seeds
Case = dict[str, Any]


def costs_a_second(data: Path) -> list[Case]:
    """MACs and latencies looked up, sub-networks a second, of a million random ones; five repetitions."""
    latencies = read_table(data / "mit" / "note10_latency").of(WIDE)
    cases = []
    for name, table in (("MACs", macs_table(search_space("mobilenet_v3_large"))), ("latencies", latencies)):
        rng = np.random.default_rng(0)
        codes = np.stack([rng.integers(0, count, 1_000_000) for count in table.space.cardinalities], axis=1)
        rates = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            table.of(codes)
            rates.append(len(codes) / (time.perf_counter() - began))
        cases.append({"case": f"{name} a second", **spread(rates)})
    return cases


def predictor(rows: Measured) -> list[Case]:
    """Each regressor on the half that it was not fitted on, ten splits."""
    out: dict[str, list[Errors]] = {name: [] for name in REGRESSORS}
    for split in range(SPLITS):
        order = np.random.default_rng(split).permutation(len(rows.top1))
        fitted, rest = np.array_split(order, 2)
        tested = Measured(rows.space, rows.codes[rest], rows.top1[rest])
        for name, fit in REGRESSORS.items():
            model = fit(rows.space, rows.codes[fitted], rows.top1[fitted], split)
            out[name].append(errors(model.of(tested.codes), tested))
    measures = {"tau": lambda e: e.tau, "tau within a resolution": lambda e: float(np.mean([*e.tau_within.values()])),
                "RMSE": lambda e: e.rmse}
    return [{"case": f"predictor {name} {what}", **spread([of(e) for e in found])}
            for name, found in out.items() for what, of in measures.items()]


def phone(data: Path) -> Problem:
    """Predicted accuracy against latency on the Note10."""
    model = load(data / "mit" / "ofa_mbv3_w1.2_acc_predictor.pth", space=WIDE)
    priced = costs(WIDE, {"note10": read_table(data / "mit" / "note10_latency")}, predictor=model)
    return priced.problem(("accuracy", "latency_ms"), (), model)


def front(problem: Problem) -> list[Case]:
    """Predicted accuracy at six latencies, from one run a seed."""
    found = [evolve(problem, Evolution(seed=seed)) for seed in range(SEEDS)]
    cases = [{"case": f"front at {ms} ms", "wanted": top1, "theirs": THEIRS[ms], **spread(
        [float(-f.values[f.values[:, 1] <= ms, 0].min()) for f in found])} for ms, top1 in WANTED.items()]
    return [*cases, {"case": "front seconds", **spread([f.seconds for f in found])},
            {"case": "front evaluations", **spread([float(f.evaluations) for f in found])}]


def rate(problem: Problem, data: Path) -> list[Case]:
    """Sub-networks a second through the whole loop, predictor included, theirs and ours in turn."""
    theirs, counted = authors(data), 100 * (40 + 1)
    ours_, theirs_ = [], []
    for seed in range(ROUNDS):
        began = time.perf_counter()
        theirs.run_evolution_search(25, max_time_budget=40)
        theirs_.append(counted / (time.perf_counter() - began))
        found = evolve(problem, Evolution(generations=100, seed=seed))
        ours_.append(found.evaluations / found.seconds)
    return [{"case": "search loop ours, a second", **spread(ours_)},
            {"case": "search loop theirs, a second", **spread(theirs_)},
            {"case": "search loop ratio", **spread([a / b for a, b in zip(ours_, theirs_, strict=True)])}]


def authors(data: Path) -> Any:
    """The authors' evolution on the same predictor and tables."""
    from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    from ofa.nas.accuracy_predictor import AccuracyPredictor, MobileNetArchEncoder
    from ofa.nas.efficiency_predictor import Mbv3LatencyModel, latency_lookup_table
    from ofa.nas.search_algorithm import EvolutionFinder

    read = yaml.load
    latency_lookup_table.yaml.load = lambda file: read(file, yaml.SafeLoader)  # theirs predates PyYAML 6
    sizes = (160, 176, 192, 208, 224)
    net = OFAMobileNetV3(dropout_rate=0, width_mult=1.2, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6],
                         depth_list=[2, 3, 4])
    latencies = Mbv3LatencyModel(net, {size: str(data / "mit" / "note10_latency") for size in sizes})
    latency_lookup_table.yaml.load = read
    known = latencies.get_efficiency
    latencies.get_efficiency = lambda arch: known(arch) if arch["image_size"] in sizes else float("inf")
    encoder = MobileNetArchEncoder(image_size_list=list(range(112, 225, 16)), ks_list=[3, 5, 7],
                                   expand_list=[3, 4, 6], depth_list=[2, 3, 4])
    model = AccuracyPredictor(encoder, 400, 3, device="cpu")
    values = loaded(data / "mit" / "ofa_mbv3_w1.2_acc_predictor.pth")
    state = values.get("state_dict", values)
    with torch.no_grad():
        for mine, published in zip(model.layers.parameters(), state.values(), strict=False):
            mine.copy_(published)
    return EvolutionFinder(latencies, model, population_size=100)


def measured(run: Path) -> list[Case]:
    """Front against front at 60 measured sub-networks each, chosen on held-out pictures: the hypervolume of accuracy on
    the test pictures and MACs, both from 0 to 1 between the smallest and the largest sub-network's."""
    trained = open_weights(run)
    assert isinstance(trained.net, Supernet)
    compute = compute_of("auto", 0, "float", Processes())
    compute.place(trained.net)
    scorer = Scorer(trained.net, evaluator_of(run, trained, data=None, root=None, compute=compute), run / "benchmark",
                    listener=lambda r: print(f"\r{r['done']} of {r['of']} ", end="", file=sys.stderr))
    space, plan = trained.space, Plan(40, rounds=2, each=10)
    priced = costs(space, {}, num_classes=trained.num_classes)
    ends = np.array([space.encode(space.smallest), space.encode(space.largest)])
    low, high = priced.tables["macs"].of(ends)
    floor, top = (scorer.scores([arch], split="test")[0] for arch in (space.smallest, space.largest))
    out: dict[str, list[float]] = {"search": [], "random search": []}
    for seed in range(SEEDS):
        found = study(priced, ("accuracy", "macs"), (), scorer=scorer, plan=plan, evolution=Evolution(seed=seed)).rows
        count = len(found.top1)
        drawn = canonical(space, np.random.default_rng(1000 + seed).integers(0, space.cardinalities,
                                                                              (count, len(space.cardinalities))))
        archs = [space.decode(row) for row in drawn.tolist()]
        other = Measured(space, drawn, np.array(scorer.scores(archs, split=scorer.choosing)))
        for name, rows in (("search", found), ("random search", other)):
            values = np.stack([-rows.top1, priced.tables["macs"].of(rows.codes)], axis=1)
            front = np.flatnonzero(moocore.is_nondominated(values))
            tested = np.array(scorer.scores([space.decode(row) for row in rows.codes[front].tolist()], split="test"))
            share = np.stack([(top - tested) / (top - floor), (values[front, 1] - low) / (high - low)], axis=1)
            out[name].append(hypervolume(share, np.ones(2)))
    ratios = [a / b for a, b in zip(*out.values(), strict=True)]
    return [{"case": f"hypervolume of {name}", "values": values, **spread(values)}
            for name, values in {**out, "search over random search": ratios}.items()]


def spread(values: list[float]) -> Case:
    return {"n": len(values), "median": float(np.median(values)), "mean": float(np.mean(values)),
            "min": float(min(values)), "max": float(max(values))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["costs", "predictor", "front", "rate", "measured"])
    parser.add_argument("--run", type=Path)
    arguments = parser.parse_args()
    if arguments.only == "measured" and arguments.run is None:
        parser.error("measured needs --run")
    data = arguments.data
    parts = {"costs": lambda: costs_a_second(data),
             "predictor": lambda: predictor(read_rows(data / "ofa_mbv3_imagenet_top1.jsonl",
                                                      search_space("mobilenet_v3_large"))),
             "front": lambda: front(phone(data)), "rate": lambda: rate(phone(data), data)}
    if arguments.run is not None:
        parts["measured"] = lambda: measured(arguments.run)
    cases = [case for name, part in parts.items() if arguments.only in (None, name) for case in part()]
    if arguments.json:
        print(json.dumps(cases))
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, Python "
          f"{platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")
    for case in cases:
        more = "".join(f", {name} {case[name]}" for name in ("wanted", "theirs") if name in case)
        print(f"{case['case']}: median {case['median']:,.6g}, mean {case['mean']:,.6g} ({case['min']:,.6g} .. "
              f"{case['max']:,.6g}), n = {case['n']}{more}")


if __name__ == "__main__":
    main()
