"""What to load, how to augment it and how to serve it, as values that a JSON configuration can hold."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError

from onceforall.errors import UserError
from onceforall.problems import as_user_error

NAMED = ("digits", "fashion-mnist", "cifar10")  # data sets that are found by name
DEFAULT_ROOT = "datasets"
BY_DEFAULT = ("fashion-mnist", "cifar10")  # those that are looked for there when no root is given
PATHS = ("root", "train_file", "valid_file", "train_path", "valid_path", "unlabelled")  # of a DataSpec
GIVEN = "given:"  # begins the `source` of pictures that one process was given
MAX_DEFAULT_WORKERS = 16
DEFAULT_CACHE = 20 * 1024**3  # bytes, of `ofa fit`
Colour: TypeAlias = tuple[float, float, float]
Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
_FORM = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Framing:
    """How pictures are scaled and cut when they are scored, and not trained on.

    Args:
        share: side of the central square that is cut out, as a share of the shorter side; 0.875 is 224 out of 256.
        interpolation: bilinear or bicubic, both with antialiasing.
    """

    __pydantic_config__ = _FORM

    share: float = 0.875
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if not 0.1 <= self.share <= 1:
            raise UserError("share", f"{self.share} is not within 0.1..1")

    def shorter_side(self, resolution: int) -> int:
        """What the shorter side is scaled to before the square of `resolution` pixels is cut out."""
        return round(resolution / self.share)


USUAL_FRAMING = Framing()

@dataclass(frozen=True)
class Augment:
    """Random resized crop, horizontal flip and colour jitter of the training pictures.

    Args:
        crop_scale: the smallest and the largest share of the picture's area that a crop has.
        ratio: the smallest and the largest width / height of a crop.
        flip: whether half of the pictures are mirrored.
        brightness: a factor is drawn from [max(0, 1 - value), 1 + value]; 0 leaves it alone.
        saturation: likewise.
    """

    __pydantic_config__ = _FORM

    crop_scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    brightness: float = 32 / 255
    saturation: float = 0.5

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise UserError("crop_scale", f"{low}..{high} is not within 0 < low <= high <= 1")
        low, high = self.ratio
        if not 0 < low <= high:
            raise UserError("ratio", f"{low}..{high} is not within 0 < low <= high")
        for name, strength in (("brightness", self.brightness), ("saturation", self.saturation)):
            if strength < 0:
                raise UserError(name, f"{strength} is negative", "0 switches it off")

    @property
    def words(self) -> str:
        """What is done to training pictures, in one line."""
        smallest, largest = (f"{100 * share:.3g}" for share in self.crop_scale)
        area = f"{smallest} to {largest}" if smallest != largest else largest
        varied = [name for name in ("brightness", "saturation") if getattr(self, name)]
        colours = f"{' and '.join(varied)} varied" if varied else "colours kept"
        mirrored = "mirrored at random" if self.flip else "not mirrored"
        return f"random crops of {area} % of the area, {mirrored}, {colours}"


@dataclass(frozen=True)
class DataSpec:
    """A data set by name and place.

    Args:
        name: "digits", "fashion-mnist", "cifar10"; "folder" or "imagenet", class folders under `root`; "list", list
            files; "python", torch Datasets.
        root: the folder. CIFAR-10 and Fashion-MNIST look in ./datasets without one.
        train_path: the folder that the paths in `train_file` start from.
        train_file: a list file, lines `relative/path label`.
        valid_path: the folder that the paths in `valid_file` start from.
        valid_file: the list file of the test pictures.
        train_portion: the share of each class's training pictures that trains; the rest is held out for the search.
        augment: what is done to training pictures.
        strict: whether a broken picture ends the run.
        workers: processes that read pictures; None picks a default, 0 reads in this process.
        cache: bytes of shrunk training pictures that are kept on disk (`onceforall.data.cache`); 0: none are shrunk.
        download: whether missing files are fetched, where the data set offers it.
        score_only: whether a folder may lack training pictures, and one without splits is the test split as a whole.
        source: of "python", a function as module:name that returns (train, test).
        mean: of each channel on [0, 1], which normalising subtracts; None: the pictures' own, or ImageNet's.
        std: of each channel, which it then divides by; None: likewise.
        framing: how pictures are scaled and cut when they are scored.
        unlabelled: a folder of further pictures, without labels; stages with a teacher train on them, too.
    """

    __pydantic_config__ = _FORM

    name: str
    root: str | None = None
    train_path: str | None = None
    train_file: str | None = None
    valid_path: str | None = None
    valid_file: str | None = None
    train_portion: float = 0.9
    augment: Augment = field(default_factory=Augment)
    strict: bool = False
    workers: int | None = None
    cache: int = 0
    download: bool = False
    score_only: bool = False
    source: str | None = None
    mean: Colour | None = None
    std: Colour | None = None
    framing: Framing = field(default_factory=Framing)
    unlabelled: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.train_portion <= 1:
            raise UserError("train_portion", f"{self.train_portion} is not within 0 < portion <= 1")
        check_workers("workers", self.workers)
        _check_cache(self.cache)
        if (self.mean is None) != (self.std is None) or min(self.std or (1.0,)) <= 0:
            raise UserError("mean", "and std go together, and std is above 0", "give both, or leave both out")
        if self.mean is not None and self.std is not None and not len(self.mean) == len(self.std) == 3:
            raise UserError("mean", "and std have three channels")

    @property
    def place(self) -> str:
        """What messages call the pictures."""
        source = "pictures given from Python" if (self.source or "").startswith(GIVEN) else self.source
        return self.root or self.train_file or source or self.name

    @property
    def labelled(self) -> DataSpec:
        """The same without the pictures that have no label, which are of training alone."""
        return replace(self, unlabelled=None)

    def with_pictures_of(self, other: DataSpec) -> DataSpec:
        """These settings with the pictures of another specification."""
        return replace(self, name=other.name, source=other.source, **{key: getattr(other, key) for key in PATHS})

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return dict(json.loads(json.dumps(asdict(self))))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> DataSpec:
        """The value of `to_dict`.

        Raises:
            UserError: a key is unknown or missing, or its value breaks a rule.
        """
        try:
            return _form().validate_json(json.dumps(values))
        except ValidationError as error:
            raise as_user_error(error, DataSpec) from None


def spec_of(data: str, root: str | None = None, **settings: Any) -> DataSpec:
    """The pictures that a user names.

    Args:
        data: a data set's name, a folder, or a function of pictures in Python as module:name.
        root: where the files are of a data set that goes by name.
        settings: further fields of `DataSpec`.

    Raises:
        UserError: a root does not go with these pictures.
    """
    if data == "digits" and root is not None:
        raise UserError("--root", f"{root!r} stands beside --data digits", "they come with scikit-learn")
    if data == "imagenet" and root is None:
        raise UserError("--root", "is missing", "give the folder that holds train/<class>/* and val/<class>/*")
    if data in (*NAMED, "imagenet"):
        return DataSpec(data, root=root, **settings)
    if root is not None:
        raise UserError("--root", f"{root!r} stands beside --data {data}", "give the folder once")
    if re.fullmatch(r"[\w.]+:[\w.]+", data) and not os.path.exists(data):
        return DataSpec("python", source=data, **settings)
    return DataSpec("folder", root=data, **settings)


@cache
def _form() -> TypeAdapter[DataSpec]:
    return TypeAdapter(DataSpec)


@dataclass(frozen=True)
class Loader:
    """How batches are cut and served.

    Args:
        batch: pictures of one process.
        workers: processes that read pictures; None: chosen by the cores of this machine, none for pictures in memory.
        prefetch: batches that each worker reads ahead.
        pin: whether batches lie in pinned memory where there is a GPU.
        strict: whether the first broken picture ends the run.
        rank: the number of this process.
        world: how many processes there are.
        local_world: how many of them are on this machine.
        cache: bytes of shrunk training pictures that are kept on disk; 0: none are shrunk.
    """

    batch: int
    workers: int | None = None
    prefetch: int = 2
    pin: bool = False
    strict: bool = False
    rank: int = 0
    world: int = 1
    local_world: int = 1
    cache: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UserError("batch", f"{self.batch} pictures are no batch", "give at least 1")
        if self.prefetch < 1:
            raise UserError("prefetch", f"{self.prefetch} is less than 1")
        if not 0 <= self.rank < self.world:
            raise UserError("rank", f"{self.rank} is not within 0..{self.world - 1}")
        check_workers("workers", self.workers)
        _check_cache(self.cache)


def check_workers(place: str, workers: int | None) -> None:
    """Raise `UserError` for a negative number of worker processes."""
    if workers is not None and workers < 0:
        raise UserError(place, f"{workers} is negative", "0 loads in this process, leave it out for a default")


def _check_cache(cache: int) -> None:
    if type(cache) is not int:
        raise UserError("cache", f"{cache!r} is no whole number of bytes", "0 keeps no shrunk pictures")
    if cache < 0:
        raise UserError("cache", f"{cache} is negative", "0 keeps no shrunk pictures")


def default_workers(local_world: int) -> int:
    """Worker processes for decoding picture files, of each of `local_world` processes that share this machine: its
    share of the cores less one, at most 16."""
    return max(0, min(MAX_DEFAULT_WORKERS, _cores() // local_world - 1))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
