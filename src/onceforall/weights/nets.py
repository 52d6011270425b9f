"""Nets: a supernet or an extracted sub-network to a weights file of any form and back."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onceforall.errors import UserError
from onceforall.nn import Subnet, Supernet, build
from onceforall.space import CATALOG, Arch, Plan, SearchSpace, lower, read_space
from onceforall.weights.about import About, Kept, Pictures
from onceforall.weights.content import COUNT, MEAN, Content
from onceforall.weights.forms import Form, form_of, form_to_write

_log = logging.getLogger(__name__)
WEIGHTS, NNABLA_WEIGHTS = "weights.safetensors", "weights.h5"  # of a training stage, by our and by NNablaNAS's names


@dataclass(frozen=True, eq=False)
class Trained:
    """A net with what belongs to it.

    Args:
        net: the supernet, or the sub-network.
        space: its search space.
        arch: which sub-network it is; None for a supernet.
        pictures: what it was trained on, as JSON values: `mean` and `std` of a channel, `classes`, `depth`; empty where
            that is not known.
    """

    net: Supernet | Subnet
    space: SearchSpace
    arch: Arch | None = None
    pictures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Classes it tells apart."""
        return self.net.num_classes if isinstance(self.net, Supernet) else self.net.plan.head[-1].outputs


def save(trained: Trained, path: Path, *, form: Form | None = None, kept: Mapping[str, Kept] | None = None) -> None:
    """Write a weights file as a whole or not at all.

    The file also says which net it holds, so that `open_weights` needs no more. Its arrays have the names that the
    form's other readers know.

    Args:
        trained: the net.
        path: the file.
        form: the kind of file; None: what its suffix stands for.
        kept: as in `About`; None: what the form writes by default.

    Raises:
        UserError: the form has no names for this family of networks, or the file cannot be written.
    """
    form = form or form_to_write(path)
    form.write(path, content_of(trained, form, kept=kept))


def content_of(trained: Trained, form: Form, *, kept: Mapping[str, Kept] | None = None) -> Content:
    """What a file of that form holds of a net."""
    norm = next(m for m in trained.net.modules() if isinstance(m, nn.BatchNorm2d))
    state, code = trained.net.state_dict(), form.code
    names, kept = code.names(trained.net), dict(kept or {})
    about = About(
        kind="supernet" if trained.arch is None else "subnet",
        space=(trained.space if trained.arch is None else trained.space.free).to_dict(),
        arch=None if trained.arch is None else str(trained.arch), num_classes=trained.num_classes,
        dropout=_dropout(trained.net), bn=(norm.momentum or 0.0, norm.eps),
        pictures=Pictures(**trained.pictures), kept=kept)
    arrays = {theirs: code.to_file(ours, state[ours].detach().cpu()).contiguous() for ours, theirs in names.items()}
    counts = {theirs: int(state[ours.removesuffix(MEAN) + COUNT]) for ours, theirs in names.items()
              if ours.endswith(MEAN)}
    return Content(arrays, counts, about, kept)


def open_weights(source: str | Path, *, space: str | None = None) -> Trained:
    """Read the net of a weights file, in evaluation mode.

    Files of this project say which net they hold. Of others the shapes of the arrays tell the width, the number of
    classes, and the kernels or the sub-network.

    Args:
        source: a file of any form, or a run's folder.
        space: the search space of a file that does not say it; None: its family's table for ImageNet.

    Returns:
        The net with what belongs to it.

    Raises:
        UserError: something does not fit.
    """
    path = weights_file(Path(source))
    form = form_of(path)
    return trained_of(path, form, form.code.read(path), space=space)


def trained_of(path: Path, form: Form, content: Content, *, space: str | None = None) -> Trained:
    """The net of a file that has been read."""
    about = content.about or form.code.foreign(path, content).about(space)
    found = read_space(about.space)
    if content.about and space not in (None, found.name, found.name.partition("?")[0]):
        raise UserError("--space", f"{space!r} is given, and {path} says that it is of {found.name}", "leave it out")
    momentum, eps = about.bn
    pictures = about.pictures.model_dump(exclude_none=True)
    if about.arch is None:
        _check_size(path, form, content, lower(found, found.free.largest, about.num_classes))
        net = Supernet(found, about.num_classes, dropout=about.dropout, bn_momentum=momentum, bn_eps=eps,
                       generator=torch.Generator())
        _fill(net, path, form, content, narrower=False)
        return Trained(net.eval(), found, None, pictures)
    arch = Arch.parse(found, about.arch)
    plan = lower(found, arch, about.num_classes)
    with torch.device("meta"):
        empty = Subnet(plan)
    state = _matched(path, form, content, form.code.names(empty), empty.state_dict())
    own = {name: tensor.clone() for name, tensor in state.items()}  # in torch's memory: a file's may start at any byte,
    subnet = build(plan, own, dropout=about.dropout, bn_momentum=momentum, bn_eps=eps)  # which changes the last bits
    return Trained(subnet.eval(), found, arch, pictures)


def open_subnet_file(path: Path, *, space: str | None = None) -> Trained | None:
    """`open_weights` of a file that holds an ordinary net; None for one that holds a supernet."""
    form = form_of(path)
    content = form.code.read(path)
    return trained_of(path, form, content, space=space) if _static(path, form, content) else None


def load(source: str | Path, *, space: str | None = None) -> Supernet | Subnet:
    """Load the net in a weights file or a run's folder.

    Args:
        source: a file of ours, of NNablaNAS's or of the authors'; or a run's folder, of which the widest stage counts.
        space: the catalogue's name of the search space, for a file that does not say it.

    Returns:
        A supernet, or the extracted sub-network that the file holds.

    Raises:
        UserError: the file cannot be read, or fits no search space.
    """
    return open_weights(source, space=space).net


def load_supernet(source: str | Path) -> Supernet:
    """Load the supernet in a weights file or a run's folder; raises UserError for an extracted sub-network."""
    net = load(source)
    if isinstance(net, Supernet):
        return net
    raise UserError(str(source), "holds an extracted sub-network, not a supernet", "give the supernet's weights")


def load_weights(net: Supernet, path: Path) -> None:
    """Copy a weights file into a supernet.

    The file may be of a narrower space: the kernel matrices that it lacks start at identity, and the log says so. It
    may also hold the largest sub-network.

    Args:
        net: the supernet.
        path: a file of any form.

    Raises:
        UserError: an array is missing, unknown or of another shape.
    """
    form = form_of(path)
    _fill(net, path, form, form.code.read(path), narrower=True)


def space_of(path: Path) -> SearchSpace | None:
    """The space that a weights file says it is of; None for a file that does not say."""
    about = form_of(path).code.read_about(path)
    return read_space(about.space) if about else None


def classes_of(path: Path) -> tuple[str, ...] | None:
    """The names of the classes that a weights file says its network tells apart; None for a file that does not say."""
    about = form_of(path).code.read_about(path)
    return about.pictures.classes or None if about else None


def weights_file(source: Path) -> Path:
    """The weights file that a path stands for.

    A file stands for itself. A run folder stands for the stage with the widest space, the one that was written last
    where several are equally wide.
    """
    if not source.exists():
        if str(source).partition("?")[0] in CATALOG:
            raise UserError(str(source), "is a search space, which has no weights", "give a run folder or a weights.h5")
        near = difflib.get_close_matches(str(source), CATALOG, n=1)
        raise UserError(str(source), "is neither a run folder nor a weights file", f"did you mean {near[0]}?" if near
                        else f"search spaces are {', '.join(CATALOG)}")
    if source.is_file():
        return source
    for name in (WEIGHTS, NNABLA_WEIGHTS, "model.safetensors", "init"):  # of a stage; extracted; as the authors publish
        if (source / name).is_file():
            return source / name
    files = stages_in(source)
    if not files:
        raise UserError(str(source), f"holds no {WEIGHTS} and no {NNABLA_WEIGHTS}", "train first: `ofa fit -o RUN`")
    counts = {path: (space.free.count, path.stat().st_mtime_ns, path) for path in files
              if (space := space_of(path)) is not None}
    if not counts:
        raise UserError(str(source), "holds weights that do not say what they are of", f"name one, as {files[0]}")
    return max(counts, key=counts.__getitem__)


def stages_in(run: Path) -> list[Path]:
    """The weights files of the stages in a run folder, by the names of the stages."""
    found = {path.parent: path for name in (NNABLA_WEIGHTS, WEIGHTS) for path in run.glob(f"*/{name}")}
    return [found[stage] for stage in sorted(found)]


def _dropout(net: Supernet | Subnet) -> float:
    return net.dropout if isinstance(net, Supernet) else next(m.p for m in net.modules() if isinstance(m, nn.Dropout))


def _fill(net: Supernet, path: Path, form: Form, content: Content, *, narrower: bool) -> None:
    """Copy the arrays into the net; `narrower`: kernel matrices that the file's own space does not have may be absent,
    or in a file that does not name it, those of a kernel step that no block of it has."""
    if _static(path, form, content):
        with torch.device("meta"):
            largest = Subnet(net.plan(net.space.free.largest))
        wanted = form.code.names(largest)  # the largest sub-network's arrays have the supernet's own names with us
        if set(wanted.values()) != content.arrays.keys():
            raise UserError(str(path), "holds an extracted sub-network, not a supernet", "give the supernet's weights")
    else:
        wanted = form.code.names(net)
    if narrower and content.about:
        with torch.device("meta"):
            stored = Supernet(read_space(content.about.space), 1).state_dict().keys()
        wanted = {ours: theirs for ours, theirs in wanted.items() if not _step(ours) or ours in stored}
    elif narrower:
        steps = {_step(ours) for ours, theirs in wanted.items() if theirs in content.arrays}
        wanted = {ours: theirs for ours, theirs in wanted.items() if _step(ours) in steps}
    state = _matched(path, form, content, wanted, net.state_dict())
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.copy_(state[name] if name in state else torch.eye(len(tensor)))
    absent = net.state_dict().keys() - state.keys()
    if absent:
        _log.info("%s is of a narrower space: %d kernel matrices start at identity", path, len(absent))


def _static(path: Path, form: Form, content: Content) -> bool:
    """Whether a file holds an ordinary net: an extracted sub-network, or just the largest one."""
    return content.about.arch is not None if content.about else not form.code.foreign(path, content).elastic


def _check_size(path: Path, form: Form, content: Content, plan: Plan) -> None:
    """Refuse a file that holds fewer numbers than its net's convolutions have, before the net takes their memory."""
    needed = sum(layer.outputs * layer.inputs // layer.groups * layer.kernel**2 for layer in plan.layers())
    if needed > sum(array.numel() for array in content.arrays.values()):
        raise UserError(str(path), f"holds fewer than the {needed:,} numbers of the network it says it is of",
                        f"give a whole {form.name} file")


def _step(name: str) -> str:
    """The step that a kernel matrix is for, such as 7to5; empty for another array."""
    return name.rpartition("kernel_")[2] if "kernel_" in name else ""


def _matched(path: Path, form: Form, content: Content, wanted: Mapping[str, str],
             shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's arrays and counts under our names, after checking that they are just those wanted; `wanted`: their
    names in the file by ours."""
    known = set(wanted.values())
    unknown = sorted(content.arrays.keys() - known)
    missing = [name for name in wanted.values() if name not in content.arrays]
    if missing:
        raise UserError(str(path), f"lacks {len(missing)} of {len(known)} arrays, first {missing[0]}",
                        "the file is of another network")
    unknown += sorted(name for name in content.counts if name not in known)
    if unknown:
        raise UserError(str(path), f"has {len(unknown)} arrays too many, first {unknown[0]}",
                        "the file is of another or a wider network")
    state = {}
    for ours, theirs in wanted.items():
        array = content.arrays[theirs]
        found, needed = tuple(array.shape), tuple(form.code.to_file(ours, shapes[ours]).shape)
        if found != needed:
            raise UserError(f"{path}:{theirs}", f"has shape {found}; {needed} is needed",
                            "check width_mult and num_classes")
        state[ours] = form.code.to_ours(ours, array).contiguous()
        if ours.endswith(MEAN):
            state[ours.removesuffix(MEAN) + COUNT] = torch.tensor(content.counts.get(theirs, 0))
    return state
