"""model.json: what an extracted sub-network is, where it comes from, how to feed it, and what was exported from it."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from onceforall.data import BEFORE, DataSet, DataSpec, Depth, Framing
from onceforall.errors import UserError, within
from onceforall.files import parse_json, unreadable, write_text
from onceforall.problems import first_of
from onceforall.space import Arch, Plan, SearchSpace, lower, read_space
from onceforall.space.older import renewed

FORMAT: Literal[2] = 2
WEIGHTS, ABOUT = "model.safetensors", "model.json"
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(ge=1, le=65_536)]
Positive = Annotated[float, Field(gt=0)]
Precision = Literal["fp32", "fp16", "int8"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid")


class Channels(_Part):
    """How pictures are made ready at any size. They are upright, as their EXIF data says.

    Args:
        interpolation: how they are scaled.
        share: side of the central square that is cut out, as a share of the shorter side.
        rounded: whether they are rounded to 8 bits after scaling. Pictures from files are, pictures in memory are not.
        mean: what is subtracted from each channel, of values in [0, 1].
        std: what each channel is divided by then.
        depth: the levels that become white in files of more than 8 bits a channel.
    """

    interpolation: Literal["bilinear, antialiased", "bicubic, antialiased"] = "bilinear, antialiased"
    share: Annotated[float, Field(ge=0.1, le=1)] = 0.875
    rounded: bool
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    depth: Depth = BEFORE

    @classmethod
    def of(cls, data: DataSet) -> Channels:
        """The way in which evaluation makes the pictures of `data` ready."""
        bicubic = data.framing.interpolation == "bicubic"
        return cls(interpolation="bicubic, antialiased" if bicubic else "bilinear, antialiased",
                   share=data.framing.share, rounded=data.test.rounded, mean=data.mean, std=data.std, depth=data.depth)

    @property
    def framing(self) -> Framing:
        """How they are scaled and cut."""
        return Framing(self.share, "bicubic" if self.interpolation.startswith("bicubic") else "bilinear")

    def at(self, resolution: int) -> Preprocessing:
        """The same, with the sizes that belong to a resolution."""
        return Preprocessing(**self.model_dump(), crop=resolution,
                             resize_shorter_side=self.framing.shorter_side(resolution))


class Preprocessing(Channels):
    """From a picture to the net's input (3, crop, crop), in RGB. The channels follow as in `Channels`.

    Args:
        resize_shorter_side: what the shorter side is scaled to, in pixels. The longer one is scaled alike, rounded
            down.
        crop: side of the central square that is cut out then, in pixels.
    """

    resize_shorter_side: Pixels
    crop: Pixels


class Accuracy(_Part):
    """Top-1 in [0, 1] over `images` pictures of a split."""

    top1: Share
    images: Annotated[int, Field(ge=1)]
    split: str = "test"


class Answers(_Part):
    """How many test pictures with the label `label` the net takes for `answer`; both are numbers of outputs."""

    label: Annotated[int, Field(ge=0)]
    answer: Annotated[int, Field(ge=0)]
    images: Annotated[int, Field(ge=1)]


class Latency(_Part):
    """How long a batch takes: medians over rounds in which the nets take turns.

    Args:
        ms: milliseconds of the export.
        fp32_ms: of the same net in float32 in the same runtime; None where the export is that, or an older version
            wrote it.
        torch_ms: of torch.
        batch: pictures of the batch.
        threads: threads of each.
        rounds: how many rounds.
        device: the processor.
    """

    ms: Positive
    fp32_ms: Positive | None = None
    torch_ms: Positive
    batch: int
    threads: int
    rounds: int
    device: str


class Comparison(_Part):
    """How far the logits of an export are from torch's.

    Args:
        images: how many pictures were compared.
        max_error: the largest difference.
        relative_error: the largest difference, divided by the largest logit of its picture.
        same_top1: how many pictures got the same top-1.
    """

    images: int
    max_error: float
    relative_error: float
    same_top1: int


class Verification(_Part):
    """How an export answers.

    Args:
        random: its answers to random inputs.
        torch_error: the relative error of torch's own logits in float32, on these inputs, against float64.
        pictures: its answers to the test pictures; None where these were not at hand.
        top1: its accuracy on them, in [0, 1].
        torch_top1: torch's.
        latency: how long it takes.
        instructions: the processor's instruction sets that integer arithmetic depends on; empty in older files.
    """

    random: Comparison
    torch_error: float
    pictures: Comparison | None = None
    top1: Share | None = None
    torch_top1: Share | None = None
    latency: Latency
    instructions: list[str] = []


class Int8(_Part):
    """How an int8 export is laid out.

    Args:
        form: "portable" answers the same on every processor; "full-range" has weights of 8 bits.
        may_lose_on: processors on which it may lose accuracy.
        keep: layers and blocks that are left in float.
    """

    form: Literal["portable", "full-range"]
    may_lose_on: list[str]
    keep: list[str] = []


class Export(_Part):
    """One exported file: what it is for, how it is called, and how it was verified.

    `batch` 0 is any; `type` is that of the images' numbers, of which "uint8" are an app's own pixels, and `layout` the
    order of their axes; `output` is "logits" or "probabilities"; `int8` is None in other precisions, and where an older
    version wrote the file.
    """

    target: str
    precision: Precision
    batch: Annotated[int, Field(ge=0)]
    input: str
    output: str
    type: Literal["float32", "uint8"] = "float32"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    size: int
    sha256: dict[str, str]
    opset: int | None = None
    calibration_images: int | None = None
    int8: Int8 | None = None
    versions: dict[str, str]
    verification: Verification

    @property
    def may_lose_on(self) -> str:
        """The processors on which it may lose accuracy, in words; empty where there are none."""
        if self.precision != "int8":
            return ""
        return "other processors (an older version wrote it)" if self.int8 is None else ", ".join(self.int8.may_lose_on)


class Description(_Part):
    """Everything in model.json."""

    format: Literal[2] = FORMAT
    arch: str
    resolution: Pixels
    space: dict[str, Any]
    num_classes: Annotated[int, Field(ge=1)]
    bn_eps: Positive
    macs: int
    params: int
    classes: list[str]
    preprocessing: Preprocessing
    accuracy: Accuracy | None
    data: dict[str, str | float | bool] | None
    provenance: dict[str, Any]
    versions: dict[str, str]
    sha256: dict[str, str]
    exports: dict[str, Export] = {}
    plan: list[dict[str, Any]] = []
    confusion: list[Answers] = []
    foreign: dict[str, dict[str, Any]] = {}

    _renewed = model_validator(mode="before")(renewed)

    def network(self, path: Path) -> tuple[SearchSpace, Arch, Plan]:
        """The search space, the sub-network, and its layers; raises UserError, with `path` as place, where one is not
        valid."""
        with within(str(path)):
            space = read_space(self.space)
            arch = Arch.parse(space, self.arch)
            return space, arch, lower(space, arch, self.num_classes)

    def data_spec(self) -> DataSpec | None:
        """The data set it was scored on, None where nothing says."""
        values: dict[str, Any] = dict(self.data or {})
        try:
            return DataSpec(**values) if values else None
        except (TypeError, UserError) as error:
            raise UserError("data", f"names no data set ({error})", "give --data") from None

    def write(self, folder: Path) -> None:
        """Write model.json, with each row of a list on its own line; raises UserError where it cannot be written."""
        lines = [f"{json.dumps(name)}: {_text(value)}" for name, value in self.model_dump(mode="json").items()]
        write_text(folder / ABOUT, "{\n" + ",\n".join(lines) + "\n}\n")


def _text(value: Any) -> str:
    rows = isinstance(value, list) and value and isinstance(value[0], dict)
    return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n]" if rows else \
        json.dumps(value, indent=2 if isinstance(value, dict) else None)


def read_description(folder: Path) -> Description:
    """What model.json in a sub-network's folder says; raises UserError for a folder that holds none, or one of another
    version."""
    path = folder / ABOUT
    try:
        values = parse_json(path.read_text(encoding="utf-8"), str(path))
        found = values["format"]
    except OSError as error:
        raise unreadable(path, error, missing="`ofa extract` writes one") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(str(path), "is no description of a sub-network", "`ofa extract` writes one") from None
    if found != FORMAT:
        raise UserError(str(path), f"is of format {found!r}; this version reads {FORMAT}", "extract it again")
    try:
        return Description.model_validate(values)
    except ValidationError as error:
        raise UserError(str(path), f"is damaged ({first_of(error)})", "extract it again") from None


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """The versions of Python, of this project, and of `packages`."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("onceforall", *packages)}}
