"""Settings: how a stage learns, as values that are checked where they are made."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor

from onceforall.errors import UserError
from onceforall.problems import as_user_error
from onceforall.training.losses import Distillation, alpha_divergence, distillation
from onceforall.training.optimizer import OPTIMIZERS, made
from onceforall.training.schedule import CosineWarmup, Stairs

LabelLoss = Callable[[Tensor, Tensor], Tensor]  # logits (B, K), labels (B,) to a mean over the batch
Rate = Callable[[int], float]  # the learning rate of step 0, 1, ..
DISTILLATIONS: dict[str, Distillation] = {"cross_entropy": distillation, "alpha": alpha_divergence}
_SHAPES = {"cosine": ("warmup_epochs", "warmup_lr"), "stairs": ("factor", "every")}  # and the fields that each reads


class Setting(BaseModel):
    """A frozen value of known fields. Making one raises UserError for the first field that breaks a rule."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise as_user_error(error, type(self)) from None


class Optimizer(Setting):
    """How weights are updated: a class of `torch.optim`, and its arguments as further fields.

        Optimizer(lr=0.1)                                            # SGD with Nesterov's momentum of 0.9
        Optimizer(name="adamw", lr=1e-3, weight_decay=0.05, betas=(0.9, 0.98))
    """

    model_config = ConfigDict(extra="allow")

    name: Annotated[str, Field(description="class of torch.optim, in lower case")] = "sgd"
    lr: Annotated[float, Field(gt=0, le=1000, description="learning rate after the warm-up")]
    weight_decay: Annotated[float, Field(ge=0, le=1, description="weight decay of all parameters that no_decay "
                                         "leaves")] = 0.0
    no_decay: Annotated[tuple[str, ...], Field(strict=False, description="parameters that decay otherwise: norm, bias, "
                                               "or regular expressions to search for in names")] = ("norm", "bias")
    no_decay_rate: Annotated[float, Field(ge=0, le=1, description="weight decay of those")] = 0.0

    # Written again, so that type checkers accept arguments of the class of `torch.optim`.
    def __init__(self, **values: Any) -> None:
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

    shape: Annotated[str | Callable[[int, int], float], Field(
        description="cosine to 0, step by step; stairs; or a function")] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0, le=1_000_000, description="epochs of a linear warm-up, among the "
                                        "stage's own")] = 0
    warmup_lr: Annotated[float, Field(ge=0, le=1000, description="learning rate that the warm-up starts from")] = 0.0
    factor: Annotated[float, Field(gt=0, le=1, description="of stairs: factor of the learning rate at each")] = 0.94
    every: Annotated[int, Field(ge=1, description="of stairs: epochs from one to the next")] = 2

    @model_validator(mode="after")
    def _has_effect(self) -> Schedule:
        if isinstance(self.shape, str) and self.shape not in _SHAPES:
            raise UserError("shape", f"{self.shape!r} is no schedule", f"known: {', '.join(_SHAPES)}; or a function")
        read = _SHAPES[self.shape] if isinstance(self.shape, str) else ()
        for field in self.model_fields_set - {"shape", *read}:
            raise UserError(field, f"has no effect on {self.shape if read else 'a function'}", "leave it out")
        return self

    def rate(self, lr: float, *, epochs: int, steps_per_epoch: int) -> Rate:
        """The learning rate of each step of a stage."""
        steps = epochs * steps_per_epoch
        if self.shape == "stairs":
            return Stairs(lr, self.factor, self.every * steps_per_epoch)
        if isinstance(self.shape, str):
            return CosineWarmup(lr, self.warmup_lr, warmup=self.warmup_epochs * steps_per_epoch, total=steps)
        share = self.shape
        return lambda step: lr * share(step, steps)


class Loss(Setting):
    """What a sub-network's logits (B, K) are judged by.

    Functions of one's own return the mean over a batch: `labels` of (logits, labels (B,)), `kd` of (logits, the
    teacher's probabilities (B, K)).
    """

    labels: Annotated[str | LabelLoss, Field(description="loss against the labels: cross_entropy, or a "
                                             "function")] = "cross_entropy"
    smoothing: Annotated[float, Field(ge=0, lt=1, description="probability that cross entropy spreads over all "
                                      "classes")] = 0.1
    kd: Annotated[str | Distillation, Field(description="loss against a teacher's probabilities: cross_entropy; alpha, "
                                            "AlphaNet's alpha-divergence; or a function")] = "cross_entropy"
    kd_weight: Annotated[float, Field(ge=0, le=1000, description="weight of the teacher's loss beside the "
                                      "labels'")] = 0.0

    @model_validator(mode="after")
    def _known(self) -> Loss:
        for field, value, known in (("labels", self.labels, ["cross_entropy"]), ("kd", self.kd, DISTILLATIONS)):
            if isinstance(value, str) and value not in known:
                raise UserError(field, f"{value!r} is no loss", f"known: {', '.join(known)}; or a function")
        return self

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss against labels (B,)."""
        if isinstance(self.labels, str):
            return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        return self.labels(logits, labels)

    def of_teacher(self, logits: Tensor, probabilities: Tensor) -> Tensor:
        """The loss against a teacher's probabilities (B, K), without its weight."""
        kd = DISTILLATIONS[self.kd] if isinstance(self.kd, str) else self.kd
        return kd(logits, probabilities)
