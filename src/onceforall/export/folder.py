"""The folder of an extracted sub-network: model.safetensors, and model.json that is enough to rebuild the net."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from onceforall.cost import macs, params
from onceforall.data import CENTRE_SHARE, DataSet
from onceforall.nn import Subnet, build
from onceforall.space import Arch, SearchSpace, UserError, lower

FORMAT = 1
WEIGHTS, ABOUT = "model.safetensors", "model.json"


def save_subnet(net: Subnet, folder: Path, *, space: SearchSpace, arch: Arch, about: Mapping[str, Any]) -> None:
    """Write the net's weights and its description; `about` adds entries such as classes and accuracy."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(str(folder), f"cannot be made: {error.strerror}", "give another folder") from None
    num_classes = net.plan.head[-1].outputs
    values = {
        "format": FORMAT, "arch": str(arch), "genotype": arch.to_genotype(space), "resolution": arch.resolution,
        "space": space.to_dict(), "num_classes": num_classes,
        "bn_eps": next(m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)),
        "macs": macs(space, arch, num_classes=num_classes), "params": params(space, arch, num_classes=num_classes),
        **about}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    save_file(state, folder / f"{WEIGHTS}.partial")
    os.replace(folder / f"{WEIGHTS}.partial", folder / WEIGHTS)
    (folder / f"{ABOUT}.partial").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(folder / f"{ABOUT}.partial", folder / ABOUT)


def describe(data: DataSet, arch: Arch, *, top1: float, images: int) -> Mapping[str, Any]:
    """What model.json says of data and accuracy: class names, preprocessing, top-1 on the test pictures."""
    return {"classes": list(data.classes), "accuracy": {"top1": top1, "images": images, "split": "test"},
            "preprocessing": {"resize_shorter_side": round(arch.resolution / CENTRE_SHARE), "crop": arch.resolution,
                              "interpolation": "bilinear", "mean": list(data.mean), "std": list(data.std)}}


def load_subnet(folder: str | Path) -> Subnet:
    """The sub-network that `ofa extract` wrote into a folder: a module of plain torch layers, in evaluation mode.

    Raises UserError for a folder that holds none, or a damaged one.
    """
    about = read_about(Path(folder))
    space = SearchSpace.from_dict(about["space"])
    plan = lower(space, Arch.parse(space, about["arch"]), about["num_classes"])
    path = Path(folder) / WEIGHTS
    try:
        return build(plan, load_file(path), bn_eps=about["bn_eps"]).eval()
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(str(path), f"does not hold the weights that {ABOUT} describes "
                        f"({str(error).splitlines()[0]})", "extract it again") from None


def read_about(folder: Path) -> dict[str, Any]:
    """The description in a sub-network's folder."""
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(str(path), f"is not a readable description of a sub-network ({error})",
                        "`ofa extract` writes one") from None
    missing = [k for k in ("arch", "space", "num_classes", "bn_eps") if k not in about]
    if about.get("format") != FORMAT or missing:
        raise UserError(str(path), f"is of format {about.get('format')!r}; this version reads {FORMAT}")
    return dict(about)
