"""The folder of an extracted sub-network: model.safetensors, and model.json that is enough to rebuild the net."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from onceforall.cost import macs, params
from onceforall.data import CENTRE_SHARE, DataSet
from onceforall.interop.weights import Trained, open_weights, save
from onceforall.nn import Subnet
from onceforall.space import Arch, SearchSpace, UserError

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
    pictures = {name: about["preprocessing"][name] for name in ("mean", "std")} | {"classes": about["classes"]}
    save(Trained(net, space, arch, pictures), folder / WEIGHTS)
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
    path = Path(folder) / WEIGHTS
    trained = open_weights(path)
    if not isinstance(trained.net, Subnet) or str(trained.arch) != about["arch"]:
        raise UserError(str(path), f"does not hold the sub-network that {ABOUT} describes", "extract it again")
    return trained.net


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
