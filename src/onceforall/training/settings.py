"""Settings: how a stage learns, as values that are checked where they are made."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError, field_validator, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from onceforall.errors import UserError
from onceforall.functions import check_function, function_of, name_of
from onceforall.problems import as_user_error
from onceforall.training.losses import Distillation, alpha_divergence, distillation
from onceforall.training.optimizer import OPTIMIZERS, made, spared
from onceforall.training.schedule import CosineWarmup, Stairs

LabelLoss = Callable[[Tensor, Tensor], Tensor]  # logits (B, K), labels (B,) to a mean over the batch
Rate = Callable[[int], float]  # the learning rate of step 0, 1, ..
T = TypeVar("T")
DISTILLATIONS: dict[str, Distillation] = {"cross_entropy": distillation, "alpha": alpha_divergence}
_SHAPES = {  # and the fields that each reads
    "cosine": ("warmup_epochs", "warmup_share", "warmup_lr"), "stairs": ("factor", "every")}


class Setting(BaseModel):
    """A frozen value of known fields. Making one raises UserError for the first field that breaks a rule."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise as_user_error(error, type(self)) from None

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values. A function is written as `module:name`."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The value of `to_dict`.

        Raises:
            UserError: a key is unknown or missing, or its value breaks a rule.
        """
        if not isinstance(values, Mapping) or not all(isinstance(key, str) for key in values):
            raise UserError("", "is not an object {...} of settings")
        return cls(**values)


Function = Annotated[Callable[..., Any], PlainSerializer(name_of)]
Listed = Annotated[tuple[T, ...], Field(strict=False)]  # JSON has lists


class Optimizer(Setting):
    """How weights are updated: a class of `torch.optim`, and its arguments as further fields.

        Optimizer(lr=0.1)                                            # SGD with Nesterov's momentum of 0.9
        Optimizer(name="adamw", lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(default="sgd", description="class of torch.optim, in lower case")
    lr: float = Field(gt=0, le=1000, description="learning rate after the warm-up")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="weight decay of all parameters that no_decay "
                                "leaves")
    no_decay: Listed[str] = Field(default=("norm", "bias"), description="parameters that decay otherwise: norm, bias, "
                                  "or regular expressions to search for in names")
    no_decay_rate: float = Field(default=0.0, ge=0, le=1, description="weight decay of those")

    # Written again, so that type checkers accept arguments of the class of `torch.optim`.
    def __init__(self, /, **values: Any) -> None:
        super().__init__(**values)

    @model_validator(mode="before")
    @classmethod
    def _tuples(cls, values: Any) -> Any:
        """JSON's lists as the tuples that the classes of `torch.optim` take."""
        if not isinstance(values, dict):
            return values
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    @field_validator("no_decay")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for i, pattern in enumerate(value):
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                raise UserError(f"[{i}]", f"{pattern!r} is not a regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _known(self) -> Optimizer:
        if self.name not in OPTIMIZERS:
            raise UserError("name", f"{self.name!r} is no optimizer here", f"known: {', '.join(OPTIMIZERS)}")
        kind = OPTIMIZERS[self.name]
        taken = inspect.signature(kind).parameters.keys() - {"params", "lr"}
        for field in ("weight_decay", "no_decay_rate"):
            if getattr(self, field) and "weight_decay" not in taken:
                raise UserError(field, f"torch.optim.{self.name} has no weight decay", "give 0")
        for argument in self.model_extra or {}:
            if argument not in taken:
                near = difflib.get_close_matches(argument, taken, n=1)
                raise UserError(argument, f"is no argument of torch.optim.{self.name}",
                                f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(taken))}")
        if not all(math.isfinite(value) for value in self.arguments.values() if isinstance(value, float)):
            raise UserError("optimizer", f"{self.arguments} holds a number that is not finite")
        try:
            made(self.name, [{"params": [torch.zeros(1, requires_grad=True)]}], lr=self.lr, **self.arguments)
        except (TypeError, ValueError, LookupError, RuntimeError, AssertionError) as error:
            raise UserError("optimizer", f"torch.optim.{self.name} does not take {self.arguments}: {error}") from None
        return self

    def over(self, net: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a net: a group of parameters with weight decay, and one of those that `no_decay` means."""
        parameters = dict(net.named_parameters())
        exempt = spared(parameters, self.no_decay)
        split: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
        for name, parameter in parameters.items():
            split[name in exempt].append(parameter)
        groups = [{"params": params, "weight_decay": rate}
                  for params, rate in zip(split, (self.weight_decay, self.no_decay_rate), strict=True) if params]
        return made(self.name, groups, lr=self.lr, **self.arguments)

    @property
    def arguments(self) -> dict[str, Any]:
        """What the class takes beside parameters, rate and weight decay."""
        given = dict(self.model_extra or {})
        if self.name == "sgd":
            given.setdefault("momentum", 0.9)
            given.setdefault("nesterov", given["momentum"] != 0 and not given.get("dampening"))
        return given


class Schedule(Setting):
    """How the learning rate moves over a stage.

    A function of one's own is given (step, steps) and returns the rate as a share of the optimizer's `lr`.
    """

    shape: str | Function = Field(default="cosine", description="cosine to 0, step by step; stairs; or a function")
    warmup_epochs: int = Field(default=0, ge=0, le=1_000_000, description="epochs of a linear warm-up, among the "
                               "stage's own")
    warmup_share: float = Field(default=0.0, ge=0, lt=1, description="share of the steps that a linear warm-up takes, "
                                "in place of warmup_epochs")
    warmup_lr: float = Field(default=0.0, ge=0, le=1000, description="learning rate that the warm-up starts from")
    factor: float = Field(default=0.94, gt=0, le=1, description="of stairs: factor of the learning rate at each")
    every: int = Field(default=2, ge=1, description="of stairs: epochs from one to the next")

    @model_validator(mode="after")
    def _has_effect(self) -> Schedule:
        check_function(self.shape, _SHAPES, place="shape", what="schedule")
        read = _SHAPES.get(self.shape, ()) if isinstance(self.shape, str) else ()
        for field, about in type(self).model_fields.items():
            if field not in ("shape", *read) and getattr(self, field) != about.default:
                raise UserError(field, f"has no effect on {self.shape if read else 'a function'}", "leave it out")
        if self.warmup_epochs and self.warmup_share:
            raise UserError("warmup_share", "stands beside warmup_epochs", "leave one of them out")
        return self

    def rate(self, lr: float, *, epochs: int, steps_per_epoch: int) -> Rate:
        """The learning rate of each step of a stage."""
        steps = epochs * steps_per_epoch
        if self.shape == "stairs":
            return Stairs(lr, self.factor, self.every * steps_per_epoch)
        if self.shape == "cosine":
            warmup = self.warmup_epochs * steps_per_epoch or round(self.warmup_share * steps)
            return CosineWarmup(lr, self.warmup_lr, warmup=warmup, total=steps)
        share: Callable[[int, int], float] = function_of(self.shape, {}, place="schedule.shape")
        return lambda step: lr * share(step, steps)


class Loss(Setting):
    """What a sub-network's logits (B, K) are judged by.

    Functions of one's own return the mean over a batch: `labels` of (logits, labels (B,)), `kd` of (logits, the
    teacher's probabilities (B, K)).
    """

    labels: str | Function = Field(default="cross_entropy", description="loss against the labels: cross_entropy, or a "
                                   "function")
    smoothing: float = Field(default=0.1, ge=0, lt=1, description="probability that cross entropy spreads over all "
                             "classes")
    kd: str | Function = Field(default="cross_entropy", description="loss against a teacher's probabilities: "
                               "cross_entropy; alpha, AlphaNet's alpha-divergence; or a function")
    kd_weight: float = Field(default=0.0, ge=0, le=1000, description="weight of the teacher's loss")
    label_weight: float = Field(default=1.0, ge=0, le=1000, description="weight of the loss against the labels; 0: a "
                                "teacher alone is learned from")

    @model_validator(mode="after")
    def _known(self) -> Loss:
        check_function(self.labels, {"cross_entropy": None}, place="labels", what="loss")
        check_function(self.kd, DISTILLATIONS, place="kd", what="loss")
        return self

    def check(self) -> None:
        """Raise UserError for a function that cannot be imported."""
        function_of(self.labels, {"cross_entropy": F.cross_entropy}, place="loss.labels")
        function_of(self.kd, DISTILLATIONS, place="loss.kd")

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss against labels (B,)."""
        if self.labels == "cross_entropy":
            return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        loss: LabelLoss = function_of(self.labels, {}, place="loss.labels")
        return loss(logits, labels)

    def of_teacher(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        """The loss against a teacher's probabilities (B, K), without its weight."""
        return function_of(self.kd, DISTILLATIONS, place="loss.kd")(logits, probabilities)


class Mixing(Setting):
    """Training pictures that are mixed with another one of their batch.

    A mixture has both pictures' labels, each for its share, and a teacher is shown the mixture. A step draws one of the
    kinds that have a parameter.
    """

    mixup: float = Field(default=0.0, ge=0, le=100, description="parameter of the beta distribution of the shares of "
                         "two pictures that are added up (mixup, Zhang et al. 2018); 0: none; 1: all shares alike")
    cutmix: float = Field(default=0.0, ge=0, le=100, description="the same of a box that is cut from the other picture "
                          "(CutMix, Yun et al. 2019)")
