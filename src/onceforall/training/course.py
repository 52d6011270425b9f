"""Course: what the loop runs, a stage on a space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onceforall.cost.predictor_file import load
from onceforall.errors import UserError
from onceforall.functions import function_of
from onceforall.space import SearchSpace
from onceforall.space.catalog import of_catalogue
from onceforall.training.sampling import Sampler, attentive, spread
from onceforall.training.stage import Stage, Training
from onceforall.training.strategy import STRATEGIES, Strategy, authors_order, delayed, often_largest, only


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """What the loop runs: a stage on a space.

    Args:
        space: the part of the search space that is trained.
        strategy: which sub-networks a step runs, and what each learns from.
        stage: everything else.
        unlabelled: whether some pictures have no label, which is -1 then.
    """

    space: SearchSpace
    strategy: Strategy
    stage: Stage
    unlabelled: bool = False


def course_of(training: Training) -> Course:
    """What the loop runs.

    Raises:
        UserError: a function of the user's own cannot be imported; a predictor cannot be read, or is of another space.
    """
    stage, subnet, space = training.stage, training.network.subnet, training.part
    stage.loss.check()
    stage.rate(1)
    teacher = stage.teacher is not None
    strategy = _strategy(stage, training.network.space, space) if subnet is None else only(subnet, teacher=teacher)
    return Course(space=space, strategy=strategy, stage=stage,
                  unlabelled=teacher and training.data.unlabelled is not None)


def _strategy(stage: Stage, whole: SearchSpace, space: SearchSpace) -> Strategy:
    """What a step of a supernet's stage trains."""
    teacher = stage.teacher is not None
    if stage.sampling == "authors":
        return authors_order(stage.subnets_per_step, teacher=teacher)
    if not isinstance(stage.strategy, str) or stage.strategy not in STRATEGIES:
        own: dict[str, Strategy] = {}
        return function_of(stage.strategy, own, place="stage.strategy")
    sampler: Sampler = spread if stage.sampling == "spread" else SearchSpace.sample
    if stage.sampling in ("best_up", "worst_up"):
        assert stage.predictor is not None  # checked when the stage was made
        predictor = load(Path(stage.predictor), space=of_catalogue(whole) or whole.free)
        if not predictor.space.covers(space.at(predictor.space.resolutions)):
            raise UserError("stage.predictor", f"{stage.predictor} does not know all of {space.name} that is trained",
                            "fit it on this supernet")
        sampler = attentive(sampler, predictor, best=stage.sampling == "best_up", candidates=stage.candidates)
    strategy = STRATEGIES[stage.strategy](stage.subnets_per_step, teacher=teacher, sampler=sampler)
    if stage.largest_share:
        strategy = often_largest(strategy, stage.largest_share, teacher=teacher)
    if not stage.delay and not stage.rise:
        return strategy
    return delayed(strategy, until=stage.delay, rise=stage.rise, teacher=teacher)
