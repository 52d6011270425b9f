"""Times the same work in a commit and in the working tree, to see whether a change made anything slower.

    python benchmarks/trees.py COMMIT DATA [--only full_net,scoring] [--rounds N] [--json]

Three processes take turns in each round: the commit, the commit once more, and the working tree. The second of them
shows how far two measurements of one tree lie apart. Each process imports `onceforall` and the benchmarks of its own
tree. DATA is the folder of the authors' predictor and latency table, as benchmarks/search.py takes it; only the case
`search` reads it. The cases are

    full_net        a training step of the largest network, 32 pictures of 128 pixels
    shrinking       a step of four sub-networks with a teacher
    extraction      a random sub-network out of the supernet
    recalibration   BN statistics of a random sub-network, 500 pictures of 128 pixels
    scoring         that, and the accuracy on 500 other pictures
    search          100 generations of the evolution, by a predictor of accuracy and a table of latencies
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
COUNT, CLASSES = 500, 1000
CASES = {"full_net": 12, "shrinking": 12, "extraction": 50, "recalibration": 8, "scoring": 8, "search": 8}  # rounds
Work = Callable[[int], Any]


def step(case: str, _: Path) -> Work:
    """The training step of benchmarks/train_step.py, which took no size once."""
    sides = importlib.import_module("train_step").sides
    work: Work = sides(*(case, 128)[:len(inspect.signature(sides).parameters)])["ours"]()
    return work


def extraction(*_: Any) -> Work:
    work: Work = importlib.import_module("extract").ours()
    return work


def recalibration(*_: Any) -> Work:
    work: Work = importlib.import_module("recalibrate").ours(count=COUNT, subnet="random")
    return work


def scoring(*_: Any) -> Work:
    """`Evaluator.score` on random pictures, which are in memory."""
    import torch
    from recalibrate import MEAN, STD, arch_of, pictures, supernet

    from onceforall.data import ArrayPictures, DataSet
    evaluators = importlib.import_module(f"onceforall.{_training()}.evaluate")
    importlib.import_module(f"onceforall.{_training(engine=True)}.memory").keep_large_blocks()
    net = supernet()
    data = ArrayPictures(pictures(COUNT), torch.arange(COUNT) % CLASSES)
    names = tuple(str(number) for number in range(CLASSES))
    evaluator = evaluators.Evaluator(DataSet(data, data, data, names, MEAN, STD), calibration_images=COUNT)
    evaluator.compute.place(net)
    return lambda round_: evaluator.score(net, arch_of(round_, "random"), data).top1


def search(_: str, data: Path) -> Work:
    from search import Evolution, evolve, phone
    problem = phone(data)
    return lambda round_: evolve(problem, Evolution(generations=100, seed=round_))


def _training(*, engine: bool = False) -> str:
    """The package of the training loop, or of its engine; both were called `train` before."""
    found = importlib.util.find_spec("onceforall.training")
    return "train" if found is None else "training.engine" if engine else "training"


MAKERS: dict[str, Callable[[str, Path], Work]] = {
    "full_net": step, "shrinking": step, "extraction": extraction, "recalibration": recalibration, "scoring": scoring,
    "search": search}


def serve(tree: Path, case: str, data: Path) -> None:
    """Do a round for every line of standard input, and print the seconds it took."""
    sys.path[0] = str(tree / "benchmarks")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    work = MAKERS[case](case, data)
    for line in sys.stdin:
        began = time.perf_counter()
        work(int(line))
        print(time.perf_counter() - began, file=answers, flush=True)


def in_turn(trees: dict[str, Path], case: str, data: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round of each tree, after two that are not counted."""
    processes = {
        name: subprocess.Popen([sys.executable, __file__, "--serve", str(tree), case, str(data)], text=True,
                               env={**os.environ, "PYTHONPATH": str(tree / "src")},
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name, tree in trees.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    names = list(trees)
    for number in range(2 + rounds):
        for name in names[number % 3:] + names[:number % 3]:
            process = processes[name]
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{number}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise RuntimeError(f"{case}: the process of {name} ended")
            seconds[name].append(float(answer))
    for process in processes.values():
        process.communicate()
    return {name: found[2:] for name, found in seconds.items()}


def summary(case: str, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in seconds, and the ratios of the rounds over the first tree's: median, quartiles."""
    out: dict[str, Any] = {"case": case, "n": len(seconds["before"]),
                           **{name: statistics.median(found) for name, found in seconds.items()}}
    for name in ("again", "now"):
        ratios = [a / b for a, b in zip(seconds[name], seconds["before"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        out[f"{name}_ratio"] = {"median": middle, "quartiles": [low, high]}
    return out


def main() -> None:
    """Run the cases and print a line for each."""
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--rounds", type=int, help="by default 8 to 50, by the case")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", options.commit], cwd=ROOT, capture_output=True, check=True).stdout
        subprocess.run(["tar", "x"], cwd=folder, input=archive, check=True)
        trees = {"before": Path(folder), "again": Path(folder), "now": ROOT}
        for case in options.only.split(","):
            found = summary(case, in_turn(trees, case, options.data.resolve(), options.rounds or CASES[case]))
            if options.json:
                print(json.dumps(found), flush=True)
                continue
            again, now = ("{median:.3f} ({quartiles[0]:.3f} to {quartiles[1]:.3f})".format(**found[f"{name}_ratio"])
                          for name in ("again", "now"))
            print(f"{case}: before {found['before']:.4g} s, the same again {again}, now {now}, n = {found['n']}",
                  flush=True)


if __name__ == "__main__":
    main()
