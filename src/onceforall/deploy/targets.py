"""The forms that a sub-network ships in, by the names that `ofa export --to` takes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from types import ModuleType

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from onceforall.errors import UserError


@dataclass(frozen=True)
class Target:
    """A form that a sub-network ships in.

    Args:
        home: the name of the module that has `write(job, path)`, which returns what model.json says of the file beside
            the usual, and `opened(path, threads)`, which returns a function from images to logits (`Infer`).
        suffix: of its file.
        precisions: of fp32, fp16 and int8 those that it has.
        packages: what its module imports.
        extra: which of this project's extras brings them.
        fixed: precisions that need a batch of a known size.
        single: whether it takes one picture at a time.
        pixels: whether its files can take bytes and normalise them.
        softmax: whether its files can give probabilities.
        full_range: whether its int8 may have weights of 8 bits, which are wrong on some processors.
    """

    home: str
    suffix: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()
    extra: str = ""
    fixed: tuple[str, ...] = ()
    full_range: bool = False
    single: bool = False
    pixels: bool = False
    softmax: bool = False

    def versions(self) -> dict[str, str]:
        """The installed versions of its packages; empty where one is missing."""
        needed = self.packages or ("torch",)
        return {name: _version(name) for name in needed}

    @property
    def remedy(self) -> str:
        """The command that installs its packages."""
        return f"pip install 'onceforall{f'[{self.extra}]' if self.extra else ''}'"

    def module(self) -> ModuleType:
        """The target's module; raises UserError where a package is missing or too old."""
        for name, found in self.versions().items():
            if not found:
                raise UserError("--to", f"needs the package {name}", self.remedy)
            wanted = _requirements()[canonicalize_name(name)]
            if not wanted.contains(found, prereleases=True):
                raise UserError("--to", f"needs {name} {wanted}, and {found} is here", self.remedy)
        return import_module(self.home)

    def batch(self, precision: str, asked: int | None) -> int:
        """The batch to write: the one asked for, or else any (0) where that is possible, or else 1.

        Raises UserError for a batch that is not possible.
        """
        if self.single and asked not in (None, 1):
            raise UserError("--batch", f"{asked or 'dynamic'} is not possible: this form takes one picture at a time",
                            "leave it out")
        if precision in self.fixed and asked == 0:
            raise UserError("--batch", f"'dynamic' is not possible in {precision} here", "give a number, such as 1")
        return asked if asked is not None else int(self.single or precision in self.fixed)


def _version(package: str) -> str:
    """The installed version; empty where the package is missing, or comes under another name."""
    try:
        return version(package) if find_spec(package) else ""
    except PackageNotFoundError:
        return ""


@cache
def _requirements() -> defaultdict[str, SpecifierSet]:
    """The versions of packages that this project takes, by their names; any version of others."""
    found = map(Requirement, requires("onceforall") or ())
    return defaultdict(SpecifierSet, {canonicalize_name(row.name): row.specifier for row in found})


TARGETS = {
    "onnx": Target("onceforall.deploy.to_onnx", ".onnx", ("fp32", "fp16", "int8"), ("onnx", "onnxruntime"), "onnx",
                   full_range=True, pixels=True, softmax=True),
    # int8 with an open batch ends its CPU plugin on processors with AMX: openvinotoolkit/openvino#37577
    "openvino": Target("onceforall.deploy.to_openvino", ".xml", ("fp32", "fp16", "int8"),
                       ("openvino", "onnx", "nncf"), "openvino", fixed=("int8",), full_range=True, pixels=True,
                       softmax=True),
    "torch-export": Target("onceforall.deploy.to_torch", ".pt2", ("fp32", "fp16"), pixels=True, softmax=True),
    # XNNPACK, which LiteRT uses too, widens to 16 bits before it multiplies, so its sums never saturate
    "executorch": Target("onceforall.deploy.to_executorch", ".pte", ("fp32", "int8"), ("executorch", "torchao"),
                         "executorch", fixed=("fp32", "int8"), pixels=True, softmax=True),
    "litert": Target("onceforall.deploy.to_litert", ".tflite", ("fp32", "fp16", "int8"),
                     ("ai_edge_litert", "ai_edge_quantizer"), "litert", fixed=("int8",), pixels=True, softmax=True),
    # its maps are floats: an app's bytes become one by `Mat::from_pixels` and `substract_mean_normalize`
    "ncnn": Target("onceforall.deploy.to_ncnn", ".ncnn.param", ("fp32", "fp16"), ("ncnn",), "ncnn", single=True,
                   softmax=True),
}


def target_named(name: str, precision: str) -> Target:
    """The target; raises UserError for a name that is none, and for a precision that it does not have."""
    if name not in TARGETS:
        raise UserError("--to", f"{name!r} is not one of {', '.join(TARGETS)}")
    target = TARGETS[name]
    if precision not in target.precisions:
        able = ", ".join(other for other in TARGETS if precision in TARGETS[other].precisions)
        raise UserError(f"--{precision}", f"{name} has {', '.join(target.precisions)} only", f"take --to {able}")
    return target
