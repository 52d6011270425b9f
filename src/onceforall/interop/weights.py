"""Weights files: a supernet or an extracted sub-network to `weights.h5` and back, and loading from a run folder."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onceforall.interop.nnabla_weights import Entry, entries, read_attributes, read_h5, write_h5
from onceforall.nn import Subnet, Supernet, build
from onceforall.space import CATALOG, Arch, SearchSpace, UserError, lower, search_space

_log = logging.getLogger(__name__)
_ATTRIBUTE = "onceforall"


def supernet_entries(net: Supernet) -> list[Entry]:
    """The supernet's arrays under NNablaNAS's names."""
    kernels = tuple(int(k) for k in net.space.stages[0].choices["kernel"])
    return entries(net.plan(net.space.largest), kernels=kernels)


def save_supernet(net: Supernet, path: Path, *, pictures: Mapping[str, Any] | None = None) -> None:
    """Write the supernet's `weights.h5` atomically; its root says which space it is, so that `load` needs no more.

    `pictures`: what it was trained on, as JSON values: `mean` and `std` of a channel, `classes`.
    """
    norm = net.stem.norm
    assert norm is not None
    about = {"kind": "supernet", "space": net.space.to_dict(), "num_classes": net.num_classes,
             "dropout": net.dropout, "bn": [norm.momentum, norm.eps], "pictures": dict(pictures or {})}
    write_h5(path, net.state_dict(), supernet_entries(net), {_ATTRIBUTE: json.dumps(about)})


def save_subnet_weights(net: Subnet, path: Path, *, space: SearchSpace, arch: Arch,
                        pictures: Mapping[str, Any] | None = None) -> None:
    """Write an extracted net's `weights.h5` atomically, the arrays named as NNablaNAS's static net names them.

    `pictures`: as for `save_supernet`.
    """
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    about = {"kind": "subnet", "space": space.to_dict(), "arch": str(arch), "num_classes": net.plan.head[-1].outputs,
             "bn": [norm.momentum, norm.eps], "pictures": dict(pictures or {})}
    write_h5(path, net.state_dict(), entries(net.plan), {_ATTRIBUTE: json.dumps(about)})


def load_weights(net: Supernet, path: Path) -> None:
    """Copy the arrays of a supernet's `weights.h5` into `net`.

    The file may be of a narrower space: kernel matrices it lacks start at identity, and the log says so. Raises
    UserError that names an array that is missing, unknown or of another shape.
    """
    arrays, _ = read_h5(path)
    wanted = supernet_entries(net)
    absent = [e.theirs for e in wanted if "kernel_" in e.ours and e.theirs not in arrays]
    state = _matched(path, arrays, [e for e in wanted if e.theirs not in absent], net.state_dict())
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name in state:
                tensor.copy_(state[name])
            elif "kernel_" in name:
                tensor.copy_(torch.eye(len(tensor)))
            elif name.endswith("num_batches_tracked"):
                tensor.zero_()
    if absent:
        _log.info("%s is of a narrower space: %d kernel matrices start at identity", path, len(absent))


def load(source: str | Path, *, space: str | None = None) -> Supernet:
    """The trained supernet of a run folder or of a `weights.h5` file, in evaluation mode.

    Files of this project say which space they are of; for others `space` names it (the ImageNet table by default),
    and choices of kernel are read off the arrays. Raises UserError for anything else.
    """
    path = weights_file(Path(source))
    arrays, attributes = read_h5(path)
    about = _about(path, attributes)
    if about.get("kind") == "subnet":
        raise UserError(str(path), "holds an extracted sub-network, not a supernet", "give the supernet's weights")
    if about:
        decay, eps = about["bn"]
        net = Supernet(SearchSpace.from_dict(about["space"]), about["num_classes"], dropout=about["dropout"],
                       bn_momentum=decay, bn_eps=eps)
    else:
        found = _foreign_space(arrays, space)
        classifier = arrays.get("classifier/linear/_b")
        if classifier is None:
            raise UserError(str(path), "has no array classifier/linear/_b: not a weights file of such a network")
        net = Supernet(found, len(classifier))
    load_weights(net, path)
    return net.eval()


def space_of(path: Path) -> SearchSpace | None:
    """The space that a weights file says it is of; None for a file that does not say."""
    about = read_attribute(path)
    return SearchSpace.from_dict(about["space"]) if about else None


def read_attribute(path: Path) -> dict[str, Any]:
    """What a weights file says of itself: `kind` (supernet or subnet), `space`, `num_classes`, `bn`, `pictures`; empty
    for a file of another project."""
    return _about(path, read_attributes(path))


def load_subnet_weights(path: Path) -> tuple[Subnet, SearchSpace, Arch]:
    """The net of a `weights.h5` that `save_subnet_weights` wrote, in evaluation mode; its space; which one it is."""
    arrays, attributes = read_h5(path)
    about = _about(path, attributes)
    if about.get("kind") != "subnet":
        raise UserError(str(path), "holds no extracted sub-network of this project")
    space = SearchSpace.from_dict(about["space"])
    arch = Arch.parse(space, about["arch"])
    plan = lower(space, arch, about["num_classes"])
    with torch.device("meta"):
        shapes = Subnet(plan).state_dict()
    state = _matched(path, arrays, entries(plan), shapes)
    for name, tensor in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=tensor.dtype)
    return build(plan, state, bn_eps=about["bn"][1]).eval(), space, arch


def weights_file(source: Path) -> Path:
    """The weights file that a path stands for: itself, or of a run folder the stage with the widest space."""
    if not source.exists():
        if str(source).partition("?")[0] in CATALOG:
            raise UserError(str(source), "is a search space, which has no weights", "give a run folder or a weights.h5")
        near = difflib.get_close_matches(str(source), CATALOG, n=1)
        raise UserError(str(source), "is neither a run folder nor a weights file", f"did you mean {near[0]}?" if near
                        else f"search spaces are {', '.join(CATALOG)}")
    if source.is_file():
        return source
    if (source / "weights.h5").is_file():
        return source / "weights.h5"
    spaces = {path: space_of(path) for path in sorted(source.glob("*/weights.h5"))}
    counts = {path: space.count for path, space in spaces.items() if space is not None}
    if not counts:
        if (source / "model.json").exists():
            raise UserError(str(source), "holds an extracted sub-network, not a supernet",
                            "onceforall.load_subnet loads it")
        raise UserError(str(source), "holds no weights.h5", "train first: `ofa fit -o RUN`")
    return max(counts, key=counts.__getitem__)


def _about(path: Path, attributes: Mapping[str, str]) -> dict[str, Any]:
    if _ATTRIBUTE not in attributes:
        return {}
    try:
        about = json.loads(attributes[_ATTRIBUTE])
    except json.JSONDecodeError as error:
        raise UserError(str(path), f"has a damaged `{_ATTRIBUTE}` attribute ({error})") from None
    if not isinstance(about, dict) or "space" not in about or "num_classes" not in about:
        raise UserError(str(path), f"has a damaged `{_ATTRIBUTE}` attribute")
    return about


def _foreign_space(arrays: Mapping[str, Tensor], name: str | None) -> SearchSpace:
    """The space of a file that does not say: kernel choices follow from the matrices it has."""
    space = search_space(name or "mobilenet_v3_large")
    if name is None and "first_conv/conv/_W" in arrays and len(arrays["first_conv/conv/_W"]) == 24:
        space = search_space("mobilenet_v3_large", width_mult=1.2)
    kernels = [7, *(b for a, b in ((7, 5), (5, 3)) if any(key.endswith(f"{a}to{b}_matrix") for key in arrays))]
    return space.restrict(kernel=kernels)


def _matched(path: Path, arrays: Mapping[str, Tensor], wanted: list[Entry],
             shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's arrays under our names, after checking that they are just those wanted."""
    names = {e.theirs for e in wanted}
    unknown = sorted(set(arrays) - names)
    missing = [e.theirs for e in wanted if e.theirs not in arrays]
    if missing:
        raise UserError(str(path), f"lacks {len(missing)} of {len(names)} arrays, first {missing[0]}",
                        "the file is of another network")
    if unknown:
        raise UserError(str(path), f"has {len(unknown)} arrays too many, first {unknown[0]}",
                        "the file is of another or a wider network")
    for entry in wanted:
        found, needed = tuple(arrays[entry.theirs].shape), tuple(entry.to_theirs(shapes[entry.ours]).shape)
        if found != needed:
            raise UserError(f"{path}:{entry.theirs}", f"has shape {found}; {needed} is needed",
                            "check width_mult and num_classes")
    return {e.ours: e.to_ours(arrays[e.theirs]).contiguous() for e in wanted}
