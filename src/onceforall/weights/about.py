"""What a weights file of this project says of its net, checked when it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from onceforall.errors import UserError
from onceforall.problems import first_of

NAME = "onceforall"  # under this name it stands in a file
DType = Literal["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
                "uint64"]
Kept = tuple[DType, int, bool]
Positive = Annotated[float, Field(gt=0)]


class _Framing(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    share: Annotated[float, Field(ge=0.1, le=1)]
    interpolation: Literal["bilinear", "bicubic"]


class Pictures(BaseModel):
    """What the net was trained on: mean and standard deviation of a channel on [0, 1], names of the classes, by the
    type of deep pixels, such as uint16, the level that is white, and how pictures are framed when they are scored."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    classes: tuple[str, ...] | None = None
    depth: dict[Literal["uint16", "int32", "float32"], Positive] | None = None
    framing: _Framing | None = None


class About(BaseModel):
    """What a weights file of this project says of its net.

    Args:
        kind: whether it is a supernet or a sub-network.
        space: the rows of its space.
        num_classes: outputs of the classifier.
        arch: the sub-network; None for a supernet.
        dropout: share of the classifier's inputs that training sets to 0.
        bn: momentum and eps of batch normalisation.
        pictures: what it was trained on.
        kept: what the writer of a file of NNablaNAS chose for an array, by its name: dtype, index, need_grad.
        counts: batches that each batch normalisation has seen, for forms without a place for them.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    kind: Literal["supernet", "subnet"]
    space: dict[str, Any]
    num_classes: int = Field(ge=1, le=10_000_000)
    arch: str | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bn: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(gt=0, lt=1)]] = (0.1, 1e-5)
    pictures: Pictures = Pictures()
    kept: dict[str, Kept] = {}
    counts: dict[str, Annotated[int, Field(ge=0, lt=2**63)]] = {}

    @model_validator(mode="after")
    def _says_which(self) -> About:
        if (self.arch is None) != (self.kind == "supernet"):
            raise ValueError("arch belongs to a subnet, and only there")
        return self

    def text(self) -> str:
        """The description as a file holds it."""
        return self.model_dump_json(exclude_defaults=True)


def parsed(path: Path, text: str) -> About:
    """The description in a file; raises UserError where it is damaged."""
    try:
        return About.model_validate_json(text)
    except ValidationError as error:
        raise UserError(str(path), f"has a damaged `{NAME}` entry ({first_of(error)})") from None
