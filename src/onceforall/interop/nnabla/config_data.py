"""The configuration's data sets: where pictures come from and how they are augmented."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from onceforall.errors import UserError
from onceforall.interop.nnabla.config_sections import Choice, Pair, Section, Text


class Data(Section):
    """One data set and how its pictures are read."""

    name: ClassVar[str]
    list_keys: ClassVar[tuple[str, ...]] = ("train_path", "train_file", "valid_path", "valid_file")

    root: Text | None = Field(None, description="folder with the data, such as train/<class>/* and val/<class>/*")
    train_path: Text | None = Field(None, description="folder that train_file's paths start from")
    train_file: Text | None = Field(None, description="text file, a training picture a line: path label")
    valid_path: Text | None = Field(None, description="folder that valid_file's paths start from")
    valid_file: Text | None = Field(None, description="text file, a validation picture a line: path label")
    train_portion: float = Field(0.9, gt=0, le=1, description="part of the training pictures that is trained on "
                                 "under --search; the rest validates")
    augment_valid: bool = Field(False, description="augment the validation pictures that --search splits off")
    colortwist: bool = Field(False, description="augment colour too: brightness and saturation")
    crop_scale: Pair = Field((0.08, 1.0), description="smallest and largest area of a training crop, 1 = whole")
    flip: bool = Field(True, description="mirror training pictures at random")
    brightness: float = Field(32 / 255, ge=0, le=1, description="colortwist's largest change of brightness")
    saturation: float = Field(0.5, ge=0, le=1, description="colortwist's largest change of saturation")
    balanced: bool = Field(False, description="draw every class equally often instead of every picture once an epoch")
    prefetch: int = Field(2, ge=1, le=1000, description="batches that each worker reads ahead")
    pin_memory: bool | None = Field(None, description="copy batches to pinned memory; null: where there is a GPU")
    workers: int | None = Field(None, ge=0, le=512, description="processes that read pictures; null: chosen to suit")
    cache: int = Field(0, ge=0, description="bytes of shrunk training pictures to keep on disk; 0: train on the files "
                       "themselves")
    strict_data: bool = Field(False, description="stop at a broken picture instead of counting and skipping it")
    download: bool = Field(False, description="fetch missing data where the data set offers it")

    @field_validator("crop_scale")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise UserError("", f"{list(value)} is not 0 < smallest <= largest <= 1", "NNablaNAS has [0.08, 1]")
        return value

    @property
    def listed(self) -> list[str]:
        """The list-file keys that are given."""
        return [key for key in self.list_keys if getattr(self, key) is not None]


class _Pictures(Data):
    @model_validator(mode="after")
    def _one_form(self) -> _Pictures:
        given, four = self.listed, ", ".join(self.list_keys)
        if self.root is not None and given:
            raise UserError("root", f"{self.root!r} stands beside {given[0]}", f"give root, or {four}, not both")
        if self.root is None and not given:
            raise UserError("", "names no pictures", f"give root, or {four}")
        if given and len(given) < 4:
            missing = next(key for key in self.list_keys if key not in given)
            raise UserError(missing, "is missing", f"{four} come together")
        return self


class _Bundled(Data):
    @model_validator(mode="after")
    def _no_lists(self) -> _Bundled:
        for key in self.listed:
            raise UserError(key, f"{self.name} is not read from lists of pictures", "give root, or use folder")
        return self


class ImageNet(_Pictures):
    """ImageNet: folders of classes under root, or NNablaNAS's list files."""

    name = "imagenet"


class Folder(_Pictures):
    """Your own pictures, in the forms of ImageNet."""

    name = "folder"


class Cifar10(_Bundled):
    """CIFAR-10, as torchvision stores it."""

    name = "cifar10"


class FashionMnist(_Bundled):
    """Fashion-MNIST, as torchvision or Debian stores it."""

    name = "fashion-mnist"


class Digits(_Bundled):
    """scikit-learn's 1,797 handwritten digits; a mirrored or cut-off digit is another one, hence the defaults."""

    name = "digits"
    crop_scale: Pair = Field((0.7, 1.0), description="smallest and largest area of a training crop, 1 = whole")
    flip: bool = Field(False, description="mirror training pictures at random")


class Dataloader(Choice):
    """Which data set."""

    imagenet: ImageNet | None = Field(None, description="ImageNet, or pictures of that form")
    cifar10: Cifar10 | None = Field(None, description="CIFAR-10")
    fashion_mnist: FashionMnist | None = Field(None, alias="fashion-mnist", description="Fashion-MNIST")
    digits: Digits | None = Field(None, description="scikit-learn's handwritten digits")
    folder: Folder | None = Field(None, description="your own pictures: train/<class>/*, val/<class>/*")

    @property
    def section(self) -> Data:
        """The settings of the chosen data set."""
        data: Data = self._chosen()
        return data
