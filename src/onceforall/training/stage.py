"""Stage: what one run folder trains, as values: pictures, a network, and how a part of its space is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, PlainValidator, field_validator, model_validator

from onceforall.data import DataSpec
from onceforall.errors import UserError
from onceforall.functions import check_function, check_named
from onceforall.space import Arch, SearchSpace
from onceforall.training.network import Network, Teacher
from onceforall.training.settings import Function, Listed, Loss, Mixing, Optimizer, Rate, Schedule, Setting
from onceforall.training.strategy import SELF_TAUGHT, STRATEGIES

Count = Annotated[int, Field(ge=1, le=1_000_000)]
_USUAL = ("smallest", "middle", "largest")


def _data(value: Any) -> DataSpec:
    if isinstance(value, DataSpec):
        return value
    if isinstance(value, Mapping):
        return DataSpec.from_dict(value)
    raise UserError("", "is no data set", 'give an object such as {"name": "folder", "root": "pictures"}')


Data = Annotated[DataSpec, PlainValidator(_data), PlainSerializer(DataSpec.to_dict)]


class Batches(Setting):
    """How pictures are cut into batches."""

    size: Count = Field(default=64, description="pictures a step of one process")
    micro: Count | None = Field(default=None, description="pictures a forward pass in training; null: size")
    valid: Count = Field(default=64, description="pictures a forward pass in validation")
    calibration: Count = Field(default=2000, description="training pictures that BN is recalibrated on")
    balanced: bool = Field(default=False, description="draw every class equally often instead of every picture once "
                           "an epoch")
    prefetch: int = Field(default=2, ge=1, le=1000, description="batches that each reading process reads ahead")
    pin_memory: bool | None = Field(default=None, description="copy batches to pinned memory; null: where there is a "
                                    "GPU")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        """Write a forward pass of the whole batch always as null."""
        whole = isinstance(values, Mapping) and values.get("micro", 0) == values.get("size", 64)
        return {**values, "micro": None} if whole else values

    @model_validator(mode="after")
    def _whole(self) -> Batches:
        if self.size % self.each:
            raise UserError("size", f"{self.size} is not a multiple of micro, {self.micro}")
        return self

    @property
    def each(self) -> int:
        """Pictures a forward pass in training."""
        return self.size if self.micro is None else self.micro


class Safety(Setting):
    """What keeps a run safe, and what it says meanwhile. All of it may change when a stopped run goes on."""

    checkpoint_minutes: float | None = Field(default=10.0, gt=0, le=1e6, description="minutes from one checkpoint "
                                             "within an epoch to the next; null: none within epochs")
    checkpoint_steps: int | None = Field(default=None, ge=1, description="steps of an epoch from one to the next")
    setbacks: int = Field(default=3, ge=0, le=100, description="times in a row that training goes back to the last "
                          "validated epoch, where a loss is not finite or the largest sub-network falls to chance; 0: "
                          "it ends")
    setback_rate: float = Field(default=0.5, gt=0, le=1, description="factor of the learning rate from each setback on")
    setback_clip: float | None = Field(default=None, gt=0, description="largest norm of all gradients from the first "
                                       "on")
    print_every: Count = Field(default=20, description="steps between lines in the log")


class Stage(Setting):
    """One stage of training: which part of the space, which sub-networks a step runs, how they learn.

        Stage(choices={"kernel": [7], "depth": [4], "expand": [6]}, epochs=10, optimizer=Optimizer(lr=0.1))
    """

    choices: dict[str, Listed[float | int]] = Field(
        default={}, description="the part of the space that is trained: choices of an elastic dimension, of depth or "
        "of resolution; all of those that are left out")
    at_largest: Listed[str] = Field(default=(), description="elastic dimensions, or depth or resolution, of which only "
                                    "the largest choice that a block or a stage has is trained")
    epochs: Count = Field(description="how often every picture is seen, the warm-up counted")
    optimizer: Optimizer = Field(description="how weights are updated")
    schedule: Schedule = Field(default=Schedule(), description="how the learning rate moves")
    loss: Loss = Field(default=Loss(), description="what the sub-networks are judged by; the losses of a step's "
                       "sub-networks are added up")
    mixing: Mixing = Field(default=Mixing(), description="pictures that are mixed with others of their batch")
    teacher: Teacher | str | None = Field(default=None, description="what they also learn from: a supernet's largest "
                                          "sub-network; in a run of several stages also the name of an earlier one")
    strategy: str | Function = Field(default="shrinking", description="what a step trains: shrinking, "
                                     "subnets_per_step random ones; sandwich, the largest, the smallest and random "
                                     "ones, which learn from the largest; or a function of the space, the step's "
                                     "randomness and the moment that returns terms")
    subnets_per_step: int = Field(default=1, ge=1, le=1000, description="sub-networks whose gradients a step sums")
    sampling: Literal["seed", "spread", "authors", "best_up", "worst_up"] = Field(
        default="seed", description="which sub-networks a step draws: from the seed, every choice by itself; spread, "
        "all choices of one leaning to small or to large values, so that small and large ones come as often as those "
        "between; those that the authors' code draws in that step; or of several of the same MACs the one that "
        "predictor gives the highest accuracy, or the lowest")
    predictor: str | None = Field(default=None, description="file of an accuracy predictor, for best_up and worst_up")
    candidates: int = Field(default=50, ge=2, le=10_000, description="of how many best_up and worst_up take one")
    delay: float = Field(default=0.0, ge=0, lt=1, description="share of the steps at first in which the largest "
                         "sub-network is trained alone; DepS has 0.5")
    rise: float = Field(default=0.0, ge=0, le=1, description="share of the steps after it in which the others' losses "
                        "rise from 0 to their weight")
    largest_share: float = Field(default=0.0, ge=0, le=1, description="share of the steps that train the largest "
                                 "sub-network alone; 1: all of them")
    bn: Literal["batch", "kept", "measured"] = Field(
        default="batch", description="statistics that normalise in training: batch, those of each batch; kept, the "
        "running ones that the weights came with; measured, those of the largest sub-network on training pictures, "
        "measured before the first step and then kept. The last two are for stages that train the largest alone. The "
        "supernet that they leave has statistics of the pictures, and a scale and shift that keep its answers")
    sort: Literal["none", "bands", "squeeze", "all", "pictures"] = Field(
        default="none", description="channels that are sorted by importance before the stage, where weights are "
        "loaded: none; bands, within the bands that are trained already; squeeze, the same, but SE's squeezed "
        "channels in full; all, in full; pictures, in full, by how far outputs vary with a channel on training "
        "pictures")
    update_unused: bool = Field(default=False, description="whether weight decay and momentum also move parameters "
                                "that no sub-network of a step used")
    validate_archs: Listed[str] = Field(default=_USUAL, min_length=1, description="sub-networks that are validated")
    validate_at: Listed[int] | None = Field(
        default=None, min_length=1, description="resolutions that they are validated at; null: their own")
    validate_every: Count = Field(default=1, description="epochs from one validation to the next")
    validate_start: bool = Field(default=False, description="whether they are also validated before the first step and "
                                 "after the first epoch")
    batches: Batches = Field(default=Batches(), description="how pictures are cut into batches")
    safety: Safety = Field(default=Safety(), description="checkpoints, setbacks, and lines in the log")
    seed: int = Field(default=0, ge=0, lt=2**32, description="what all random draws derive from")

    @field_validator("teacher", mode="before")
    @classmethod
    def _taught(cls, value: Any) -> Any:
        """Make the teacher here, so that the place of an error does not name the types that pydantic tries."""
        return Teacher.from_dict(value) if isinstance(value, Mapping) else value

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: Any) -> Any:
        check_function(value, STRATEGIES, place="", what="strategy")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Stage:
        if self.schedule.warmup_epochs > self.epochs:
            raise UserError("schedule.warmup_epochs", f"{self.schedule.warmup_epochs} is above epochs, {self.epochs}")
        if self.sampling in ("best_up", "worst_up") and self.predictor is None:
            raise UserError("predictor", f"is missing, and sampling {self.sampling} chooses by it",
                            "`ofa predictor fit` makes one")
        if self.bn != "batch" and self.largest_share < 1:
            raise UserError("bn", f"{self.bn} stands beside smaller sub-networks, whose statistics are others",
                            "give largest_share 1, or bn batch")
        _check_teacher(self)
        _check_strategy(self)
        return self

    def part(self, space: SearchSpace) -> SearchSpace:
        """The part of a space that is trained."""
        known = [*space.dimensions, "depth", "resolution"]
        for place, names in (("choices", self.choices), ("at_largest", self.at_largest)):
            for name in names:
                if name not in known:
                    raise UserError(f"{place}.{name}", f"is no elastic dimension of {space.name}",
                                    f"it has {', '.join(known)}")
        choices: dict[str, Any] = dict(self.choices)
        part = space.restrict(resolutions=choices.pop("resolution", None), depth=choices.pop("depth", None), **choices)
        for name in self.at_largest:
            part = part.largest_of(name)
        return part

    def validated(self, part: SearchSpace, whole: SearchSpace) -> list[Arch]:
        """The sub-networks that are validated, each once.

        Args:
            part: the part of the space that is trained; names such as `largest` are of it.
            whole: the whole space, of which all other sub-networks may be.
        """
        archs = [Arch.parse(part if text in _USUAL else whole.free, text) for text in self.validate_archs]
        return list(dict.fromkeys(whole.free.check(arch.at(size)) for arch in archs
                                  for size in self.validate_at or [arch.resolution]))

    def rate(self, steps_per_epoch: int) -> Rate:
        """The learning rate of each step."""
        return self.schedule.rate(self.optimizer.lr, epochs=self.epochs, steps_per_epoch=steps_per_epoch)


class Training(Setting):
    """What one run folder trains. Its JSON is the folder's config.json, and enough to repeat the run."""

    data: Data = Field(description="where pictures are, and how they are augmented")
    network: Network = Field(description="what is trained")
    stage: Stage = Field(description="how it is trained")

    @model_validator(mode="after")
    def _alone(self) -> Training:
        stage, classes = self.stage, self.network.num_classes
        teacher, loss = stage.teacher, stage.loss
        if isinstance(teacher, str):
            raise UserError("stage.teacher", f"{teacher!r} names a stage, and there is none beside this one",
                            "give the teacher's network and weights")
        if teacher is None and loss.kd_weight:
            raise UserError("stage.loss.kd_weight", f"is {loss.kd_weight:g} without a teacher",
                            "give a teacher, or leave it out")
        if self.data.unlabelled is not None and stage.batches.balanced:
            raise UserError("stage.batches.balanced", "stands beside data.unlabelled, whose pictures have no class",
                            "leave one of them out")
        if stage.bn == "measured" and self.network.arch is not None:
            raise UserError("stage.bn", "measured is for supernets, and this trains one sub-network", "give kept")
        network = None if teacher is None else teacher.network
        if network is not None and network.num_classes != classes:
            raise UserError("stage.teacher.network.num_classes", f"{network.num_classes} is not {classes}, as "
                            "the network has", "teacher and student tell the same classes apart")
        for place, function in (("strategy", stage.strategy), ("schedule.shape", stage.schedule.shape),
                                ("loss.labels", loss.labels), ("loss.kd", loss.kd),
                                ("teacher.module", None if teacher is None else teacher.module)):
            check_named(function, place=f"stage.{place}")
        return self

    def as_teacher(self, weights: str) -> Teacher:
        """The largest sub-network of what it leaves in a weights file, which normalises as it was trained to."""
        return Teacher(network=self.network.model_copy(update={"weights": weights, "dropout": 0.0}),
                       batch_statistics=self.stage.bn == "batch")

    @property
    def teacher(self) -> Teacher | None:
        """What the sub-networks also learn from."""
        teacher = self.stage.teacher
        assert not isinstance(teacher, str)  # checked when the training was made
        return teacher

    @property
    def searches(self) -> bool:
        """Whether some of the training pictures validate, so that the test pictures stay unseen."""
        return self.data.train_portion < 1

    @property
    def part(self) -> SearchSpace:
        """The part of the space that is trained; of a sub-network the space around it."""
        subnet = self.network.subnet
        return self.stage.part(self.network.space) if subnet is None else self.network.space.at([subnet.resolution])

    def keeps(self, arch: Arch) -> bool:
        """Whether a sub-network is used with the supernet's BN statistics: the one that was trained with fixed ones."""
        largest = self.part.largest
        return self.stage.bn != "batch" and arch.at(largest.resolution) == largest

    @property
    def validated(self) -> list[Arch]:
        """The sub-networks that are validated, each once."""
        subnet = self.network.subnet
        return self.stage.validated(self.part, self.network.space) if subnet is None else [subnet]


def _check_teacher(stage: Stage) -> None:
    taught, weight = stage.teacher is not None, stage.loss.kd_weight
    if stage.strategy in SELF_TAUGHT and (taught or weight):
        raise UserError("teacher", f"stands beside strategy {stage.strategy}, whose teacher is the largest sub-network",
                        "leave it out, and kd_weight 0")
    if taught and not weight:
        raise UserError("loss.kd_weight", "is 0 beside a teacher", "give 1, or leave the teacher out")
    if not taught and not stage.loss.label_weight:
        raise UserError("loss.label_weight", "is 0 without a teacher, so that there is nothing to learn from",
                        "give a teacher, or leave it out")


def _check_strategy(stage: Stage) -> None:
    least = SELF_TAUGHT.get(stage.strategy, 1) if isinstance(stage.strategy, str) else 1
    if stage.subnets_per_step < least:
        raise UserError("subnets_per_step", f"{stage.subnets_per_step} is below {least}, the least of strategy "
                        f"{stage.strategy}: it takes the largest and the smallest", "BigNAS has 4")
    if stage.delay + stage.rise > 1:
        raise UserError("rise", f"{stage.rise:g} after a delay of {stage.delay:g} is longer than the stage",
                        f"give at most {1 - stage.delay:g}")
    delayed = stage.delay or stage.rise or stage.largest_share
    if stage.sampling == "authors" and (delayed or stage.strategy != "shrinking"):
        raise UserError("sampling", "authors draws as their code does, and other settings beside it draw too",
                        "leave out strategy, delay, rise and largest_share")
    if stage.strategy not in STRATEGIES and (delayed or stage.sampling != "seed"):
        raise UserError("strategy", "a function draws by itself, and other settings beside it draw too",
                        "leave out sampling, delay, rise and largest_share")
