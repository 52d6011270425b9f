"""Network: a supernet or one sub-network as a setting, and the teacher that is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, model_validator
from torch import nn

from onceforall.errors import UserError
from onceforall.functions import check_function
from onceforall.space import Arch, SearchSpace, search_space
from onceforall.training.settings import Function, Setting


def _space(value: Any) -> SearchSpace:
    """A space by its value, its catalogue name, or the rows of `SearchSpace.to_dict`."""
    if isinstance(value, SearchSpace):
        return value
    if not isinstance(value, str | Mapping):
        raise UserError("", "is no search space", "give its catalogue name, or its rows")
    try:
        return search_space(value) if isinstance(value, str) else SearchSpace.from_dict(value)
    except UserError as error:  # the field is called space, too
        place = error.place.removeprefix("search ").removeprefix("space").removeprefix(".")
        raise UserError(place, error.problem, error.remedy) from None


Space = Annotated[SearchSpace, PlainValidator(_space), PlainSerializer(SearchSpace.to_dict)]


class Network(Setting):
    """A supernet, or one sub-network of a space, and where its weights come from."""

    space: Space = Field(description="search space: a catalogue name, or rows")
    num_classes: int = Field(ge=2, le=1_000_000, description="classes to tell apart")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the classifier")
    bn_momentum: float = Field(default=0.1, gt=0, le=1, description="share of a batch in BN's running statistics")
    bn_eps: float | None = Field(default=None, gt=0, lt=1, description="what BN adds to variances; null: the space's")
    weights: str | None = Field(default=None, description="weights file to start from; null: random weights")
    arch: str | None = Field(default=None, description="the one sub-network that is trained; null: the supernet")
    new_classifier: bool = Field(default=False, description="start the classifier anew, for other classes than the "
                                 "weights of the sub-network tell apart")

    @model_validator(mode="after")
    def _fits(self) -> Network:
        if self.space.in_channels != 3:
            raise UserError("space", f"takes pictures of {self.space.in_channels} channels; those that train have 3")
        if self.arch is not None:
            Arch.parse(self.space, self.arch)
        return self

    @property
    def subnet(self) -> Arch | None:
        """The one sub-network that is trained; None for a supernet."""
        return None if self.arch is None else Arch.parse(self.space, self.arch)

    @property
    def eps(self) -> float:
        """What BN adds to variances."""
        return self.space.bn_eps if self.bn_eps is None else self.bn_eps


class Teacher(Setting):
    """A trained network, whose answers the sub-networks of a step also learn: the largest sub-network of a supernet,
    or a module of the user's own.

        Teacher(module=my_resnet)    # def my_resnet() -> torch.nn.Module, at the top of a module that can be imported
    """

    network: Network | None = Field(default=None, description="the supernet that it is taken from, with its weights")
    module: str | Function | None = Field(
        default=None, description="a function without arguments, as module:name in a file, that returns a trained "
        "torch.nn.Module: normalised images (B, 3, R, R) of every size that is trained at, to logits (B, K)")
    batch_statistics: bool = Field(default=True, description="whether its BN normalises by the batch's statistics, or "
                                   "by its own; a module's by its own unless it says so")

    @model_validator(mode="before")
    @classmethod
    def _own_statistics(cls, values: Any) -> Any:
        of_module = isinstance(values, Mapping) and values.get("module") is not None
        if of_module and isinstance(values["module"], nn.Module):
            raise UserError("module", f"is a {type(values['module']).__name__}, which another process cannot make",
                            "give a function at the top of a module that returns it")
        return {"batch_statistics": False, **values} if of_module else values

    @model_validator(mode="after")
    def _trained(self) -> Teacher:
        if self.network is None and self.module is None:
            raise UserError("network", "is missing, and so is module", "give one of them")
        if self.network is not None and self.module is not None:
            raise UserError("module", "stands beside network", "give one of them")
        if self.network is not None and self.network.weights is None:
            raise UserError("network.weights", "is missing", "a teacher comes trained: name its weights file")
        check_function(self.module, {}, place="module", what="function")
        return self

    @property
    def weights(self) -> str | None:
        """The supernet's weights file; None of a module."""
        return None if self.network is None else self.network.weights
