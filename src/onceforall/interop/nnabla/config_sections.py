"""The configuration's network and optimizer: each key with its type, default, range and description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from onceforall.errors import UserError
from onceforall.interop.mit.arch_dict import restrict_resnet
from onceforall.interop.nnabla.genotype import decode, has_operators, operators_of, restrict_to
from onceforall.space import SearchSpace, search_space
from onceforall.space.catalog import settings_of

T = TypeVar("T")
Listed = Annotated[tuple[T, ...], Field(strict=False)]
Pair = Annotated[tuple[float, float], Field(strict=False)]
Text = Annotated[str, Field(min_length=1)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]




def _genes(value: Any) -> tuple[float, ...] | dict[str, Any]:
    """A list of numbers, or of ResNet50D an object with d, e and w."""
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, list | tuple):
        raise UserError("", f"{json.dumps(value, default=repr)} is not a list of whole numbers", "write [5, 2, ..]")
    for i, gene in enumerate(value):
        if not isinstance(gene, int | float) or isinstance(gene, bool):
            quoted = isinstance(gene, str) and gene.isdigit()
            raise UserError(f"[{i}]", f"{json.dumps(gene, default=repr)} is not a whole number",
                            f"write {gene}, without quotes" if quoted else "")
    return tuple(value)


_NUMBERS = {"type": "array", "items": {"type": "number"}}
Genotype = Annotated[Any, PlainValidator(_genes), WithJsonSchema({"anyOf": [_NUMBERS, {"type": "object"}]})]


class Section(BaseModel):
    """A frozen mapping of known keys. Its validators raise UserError with a place relative to the section or
    key they belong to (`""` for itself, `[3]` for an entry, a name for a key)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Choice(Section):
    """A mapping with exactly one key, the name of what is chosen."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    @model_validator(mode="before")
    @classmethod
    def _one_key(cls, value: Any) -> Any:
        names = [field.alias or key for key, field in cls.model_fields.items()]
        if isinstance(value, Mapping) and len(value) != 1:
            found = ", ".join(key if key.isprintable() else ascii(key) for key in value) or "none"
            raise UserError("", f"has {len(value)} keys ({found})", f"give exactly one of {', '.join(names)}")
        for name in names:
            if isinstance(value, Mapping) and name in value and value[name] is None:
                raise UserError(name, "null is not an object {...}")
        return value

    @property
    def name(self) -> str:
        """The one key, as the file spells it."""
        key = next(key for key in type(self).model_fields if getattr(self, key) is not None)
        return type(self).model_fields[key].alias or key

    def _chosen(self) -> Any:
        return next(value for _, value in self if value is not None)


FIXED_KERNELS = (3, 5, 3, 3, 5)  # of MobileNetV3's elastic stages (Howard et al. 2019, table 1)


class Network(Section):
    """A supernet (or teacher): its search space, the part of it that is used, and where its weights come from."""

    space: Text = Field("mobilenet_v3_large", description="search space, by its name in the catalogue")
    num_classes: int = Field(1000, ge=2, le=1_000_000, description="classes to tell apart")
    bn_param: Pair = Field(None, validate_default=True, description="decay of batch norm's running statistics, and its "
                           "eps; default: 0.9 and the space's own eps, mostly 1e-5")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="dropout before the classifier")
    width_mult: float | None = Field(None, validate_default=True, description="factor of all widths; default: the "
                                     "space's own, mostly 1")
    op_candidates: Listed[str] = Field(None, validate_default=True, description="operators of a block, all "
                                       "combinations of some kernels, expand ratios and, of Xception, numbers of "
                                       "layers; default: all of the space")
    depth_candidates: Listed[int] = Field(None, validate_default=True,
                                          description="blocks of a stage; default: all of the space")
    depth_list: Listed[int] | None = Field(None, min_length=1, description="of resnet50d alone: blocks of a stage "
                                           "beside those it always has; default: all")
    expand_ratio_list: Listed[float] | None = Field(None, min_length=1, description="of resnet50d alone: expand "
                                                    "ratios; default: all")
    width_mult_list: Listed[float] | None = Field(None, min_length=1, description="of resnet50d alone: factors of the "
                                                  "elastic widths; default: all")
    genotype: Genotype | None = Field(None, description="one sub-network: for each block an index into op_candidates, "
                                      "their number for a skipped block; of resnet50d d, e and w of all stages, blocks "
                                      "and widths; of a space without operators an index for each of its choices")
    weights: Text | None = Field(None, description="weights to start from: a supernet's, or those of the sub-network "
                                 "that the genotype encodes")
    new_classifier: bool = Field(False, description="start the classifier anew, for other classes than the weights of "
                                 "the sub-network tell apart")
    base_stage_width: Listed[Count] | None = Field(None, description="widths of the table (only its own values)")
    weight_init: Literal["he_fout", "he_fin", "pytorch"] = Field("he_fout", description="how convolutions start")
    compound: bool = Field(False, description="CompOFA's coupled depth and expand ratio")
    fixed_kernel: bool = Field(False, description="CompOFA's fixed kernel sizes, of this network and the weights it "
                               "starts from: 3, 5, 3, 3, 5 by stage")

    @field_validator("space")
    @classmethod
    def _in_catalogue(cls, value: str) -> str:
        if "?" in value:
            raise UserError("", f"{value!r} has settings in it", "give the bare name; width_mult is a key of its own")
        try:
            search_space(value)
        except UserError as error:
            raise UserError("", error.problem, error.remedy) from None
        return value

    @field_validator("width_mult")
    @classmethod
    def _possible_width(cls, value: float | None, info: ValidationInfo) -> float | None:
        space = info.data.get("space", "mobilenet_v3_large")
        if value is None:
            return settings_of(space).get("width_mult")
        try:
            search_space(space, width_mult=value)
        except UserError as error:
            raise UserError("", error.problem, error.remedy) from None
        return value

    @field_validator("bn_param", mode="before")
    @classmethod
    def _own_eps(cls, value: Any, info: ValidationInfo) -> Any:
        return (0.9, search_space(info.data.get("space", "mobilenet_v3_large")).bn_eps) if value is None else value

    @field_validator("bn_param")
    @classmethod
    def _decay_and_eps(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not (0 <= value[0] < 1 and 0 < value[1] < 1):
            raise UserError("", f"{list(value)} is not [decay, eps] with 0 <= decay < 1, 0 < eps < 1",
                            "NNablaNAS has [0.9, 1e-5]")
        return value

    @field_validator("op_candidates", "depth_candidates", "depth_list", "expand_ratio_list", "width_mult_list",
                     mode="before")
    @classmethod
    def _one_or_all(cls, value: Any, info: ValidationInfo) -> Any:
        """One value stands for a list of it, as in NNablaNAS. Null stands for all values of the space."""
        if value is None and info.field_name in ("op_candidates", "depth_candidates"):
            space = search_space(info.data.get("space", "mobilenet_v3_large"))
            return tuple(operators_of(space)) if info.field_name == "op_candidates" else _depths_of(space)
        return (value,) if isinstance(value, str | int | float) else value

    @field_validator("op_candidates")
    @classmethod
    def _pairs(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "space" in info.data:
            restrict_to(search_space(info.data["space"]), value, place="")
        return value

    @field_validator("depth_candidates")
    @classmethod
    def _depths(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        space = search_space(info.data.get("space", "mobilenet_v3_large"))
        allowed = _depths_of(space)
        if value and not allowed:
            raise UserError("", f"{space.name} has none", "leave it out")
        for i, depth in enumerate(value):
            if depth not in allowed or depth in value[:i]:
                fault = "is listed twice" if depth in value[:i] else f"is not one of {', '.join(map(str, allowed))}"
                raise UserError(f"[{i}]", f"{depth} {fault}")
        if allowed and not value:
            raise UserError("", "is empty", f"list some of {', '.join(map(str, allowed))}")
        return value

    @field_validator("depth_list", "expand_ratio_list", "width_mult_list")
    @classmethod
    def _of_resnet(cls, value: tuple[float, ...] | None, info: ValidationInfo) -> tuple[float, ...] | None:
        if value is not None and "space" in info.data:
            given: dict[str, Any] = {str(info.field_name): value}
            restrict_resnet(search_space(info.data["space"]), **given, place="")
        return value

    @model_validator(mode="after")
    def _decodes(self) -> Network:
        if self.genotype is not None:
            decode(self.part(search_space(self.space)), self.genotype, operators=self.op_candidates, place="genotype")
        return self

    def part(self, space: SearchSpace) -> SearchSpace:
        """The part of a space of the network's family that its lists of choices name."""
        if self.depth_list or self.expand_ratio_list or self.width_mult_list:
            return restrict_resnet(space, self.depth_list, self.expand_ratio_list, self.width_mult_list)
        return restrict_to(space, self.op_candidates, self.depth_candidates)


def _depths_of(space: SearchSpace) -> tuple[int, ...]:
    """Numbers of blocks that depth_candidates can list."""
    return space.stages[0].depth if has_operators(space) and len(space.stages[0].depth) > 1 else ()


_OTHERS = {"ofa_resnet50": ("resnet50d",), "ofa_xception": ("xception41", "xception65")}


class NetworkChoice(Choice):
    """The network under one of NNablaNAS's names for it. The names differ only in the space that they stand for."""

    ofa: Network | None = Field(None, description="Once-for-All network")
    ofa_mbv3: Network | None = Field(None, description="the same under its later name")
    ofa_resnet50: Network | None = Field(None, description="the same of space resnet50d")
    ofa_xception: Network | None = Field(None, description="the same of space xception41 (or xception65)")

    @field_validator(*_OTHERS, mode="before")
    @classmethod
    def _own_space(cls, value: Any, info: ValidationInfo) -> Any:
        spaces = _OTHERS[str(info.field_name)]
        if isinstance(value, Mapping) and value.get("space", spaces[0]) not in spaces:
            raise UserError("space", f"{value['space']!r} is not one of {', '.join(spaces)}",
                            'other spaces go under "ofa"')
        return {"space": spaces[0], **value} if isinstance(value, Mapping) else value

    @property
    def section(self) -> Network:
        """The network's settings."""
        network: Network = self._chosen()
        return network


class OptimizerGroup(Section):
    """How one group of parameters is updated."""

    name: Literal["Nesterov", "Momentum", "Sgd"] = Field("Nesterov", description="SGD with Nesterov's, with plain, or "
                                                         "without momentum")
    lr: float = Field(gt=0, le=1000, description="learning rate after the warm-up")
    momentum: float = Field(None, validate_default=True, ge=0, lt=1, description="momentum; default 0.9, for Sgd 0")
    weight_decay: float = Field(0.0, ge=0, le=1, description="L2 penalty's factor")
    lr_scheduler: Literal["CosineSchedulerWarmup", "CosineScheduler", "StepScheduler"] = Field(
        "CosineSchedulerWarmup", description="cosine to 0, step by step, after a linear warm-up or without it; or "
        "step_decay_rate times as much every epoch_steps epochs")

    @field_validator("momentum", mode="before")
    @classmethod
    def _default_momentum(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return 0.0 if info.data.get("name") == "Sgd" else 0.9
        return value

    @model_validator(mode="after")
    def _plain_sgd(self) -> OptimizerGroup:
        if self.name == "Sgd" and self.momentum > 0:
            raise UserError("momentum", f"{self.momentum:g} does not go with Sgd, which has none",
                            'take "Momentum" or "Nesterov"')
        if self.name == "Nesterov" and self.momentum == 0:
            raise UserError("momentum", "0 does not go with Nesterov, which needs some", 'take "Sgd", or 0.9')
        return self


class Optimizer(Section):
    """The parameters that decay, and those that match no_decay_keys; both follow one schedule."""

    train: OptimizerGroup = Field(description="parameters with weight decay")
    train_no_decay: OptimizerGroup = Field(None, validate_default=True, description="parameters that match "
                                           "no_decay_keys; default: as train, weight_decay 0")

    @field_validator("train_no_decay", mode="before")
    @classmethod
    def _as_train(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            train = info.data.get("train") or OptimizerGroup.model_validate({"lr": 1})
            return train.model_copy(update={"weight_decay": 0.0})
        return value

    @model_validator(mode="after")
    def _agree(self) -> Optimizer:
        for key in ("name", "lr", "momentum", "lr_scheduler"):
            one, other = getattr(self.train, key), getattr(self.train_no_decay, key)
            if one != other:
                raise UserError(f"train_no_decay.{key}", f"{other!r} differs from optimizer.train.{key}, {one!r}",
                                "both groups follow one schedule; only weight_decay may differ")
        return self
