"""Pick: search a trained supernet, and save the best sub-networks for a few budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onceforall.cost.memory import peak_memory
from onceforall.deploy.elastic_file import ELASTIC
from onceforall.deploy.elastic_write import spread_rows, write_elastic
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.nn import Supernet
from onceforall.recipes.transfer import TUNED
from onceforall.searching.evolution import Evolution
from onceforall.searching.front import best_below, with_measured
from onceforall.searching.score import Scorer, shared
from onceforall.searching.search import Request as Wanted
from onceforall.searching.search import search
from onceforall.searching.study import Plan
from onceforall.space import Arch
from onceforall.training.evaluate import Evaluator
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Training
from onceforall.weights.nets import load_supernet, weights_file

if TYPE_CHECKING:
    from onceforall.recipes.fit import Request

SEARCH, SUBNETS = "search", "subnets"  # folders in a run's
Row = dict[str, Any]  # a saved sub-network in summary.json


def pick(request: Request, stages: Mapping[str, Training], run: Path, options: Options) -> dict[str, list[Row]]:
    """Search the trained supernet, and save the smallest, the best found for each budget, and the largest.

    The held-out pictures choose, or the test pictures where there are none; the test pictures score. Every process
    measures; the first one alone gets rows. The tuned network of a pretrained start is saved, too, at every size: where
    pictures are few it may be the better one.

    Args:
        request: what the user asked for.
        stages: of the recipe, by their folders. The last one trained the supernet.
        run: the run's folder.
        options: how to run.

    Returns:
        What was saved, by ascending MACs: the sub-networks as `subnets`, and the tuned network as `tuned`.
    """
    last, training = list(stages.items())[-1]
    weights = weights_file(run / last)
    data, net = data_of(training.data), load_supernet(weights)
    evaluator = Evaluator(data, options.compute, workers=training.data.workers,
                          calibration_images=training.stage.batches.calibration)
    options.compute.place(net)
    scorer = Scorer(net, evaluator, run / SEARCH, processes=options.processes, listener=options.listener)
    wanted = Wanted(plan=Plan(request.collect, rounds=1, largest=training.stage.largest_share > 0),
                    evolution=Evolution(seed=training.stage.seed), measure=0)
    with shared(scorer) as first:
        if not first:
            return {}
        record = search(net.space, wanted, num_classes=net.num_classes, scorer=scorer, listener=options.listener)
    chosen: dict[Arch, str] = {net.space.smallest: "smallest", net.space.largest: "largest"}
    for i, row in enumerate(best_below(record.front, "macs", request.budgets)):
        chosen.setdefault(row.arch, f"budget-{i + 1}")
    rows = {arch: _save(evaluator, net, arch, run / SUBNETS / name, source=weights) for arch, name in chosen.items()}
    front = with_measured(record.front, {arch: row["top1"] for arch, row in rows.items()})
    replace(record, front=front).write(run / SEARCH)
    write_elastic(net, spread_rows(front, record.objectives, request.elastic), evaluator, run / ELASTIC,
                  listener=options.listener)
    return {"subnets": sorted(rows.values(), key=itemgetter("macs")),
            "tuned": _save_tuned(evaluator, stages[TUNED], run) if TUNED in stages else []}


def _save_tuned(evaluator: Evaluator, training: Training, run: Path) -> list[Row]:
    """Save the network that a stage tuned, as it was before shrinking, at every size."""
    weights = weights_file(run / TUNED)
    net = load_supernet(weights)
    evaluator.compute.place(net)
    return [_save(evaluator, net, arch, run / SUBNETS / f"{TUNED}-{arch.resolution}", source=weights,
                  kept=training.keeps(arch)) for arch in map(net.space.largest.at, net.space.resolutions)]


def _save(evaluator: Evaluator, net: Supernet, arch: Arch, folder: Path, *, source: Path, kept: bool = False) -> Row:
    found = Scored.of(evaluator, evaluator.subnet(net, arch, kept=kept), net.space, arch)
    about = save_subnet(found.extracted, folder, source=source)
    return {"arch": about.arch, "resolution": arch.resolution, "macs": about.macs, "params": about.params,
            "memory": peak_memory(net.space, arch), "top1": found.score.top1,
            "path": f"{folder.parent.name}/{folder.name}", "foreign": about.foreign}
