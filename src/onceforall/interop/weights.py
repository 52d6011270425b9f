"""Weights files: a supernet or an extracted sub-network to a file of any form and back."""

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
from onceforall.interop.about import About, Kept, Pictures
from onceforall.interop.entries import COUNT, MEAN, Content, Entry, entries
from onceforall.interop.forms import Form, form_of, form_to_write
from onceforall.interop.infer import Foreign, arch_of_arrays, space_of_arrays
from onceforall.interop.mit import net_config
from onceforall.nn import Subnet, Supernet, build
from onceforall.space import CATALOG, Arch, Plan, SearchSpace, lower, read_space

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """A net with what belongs to it: its space, which sub-network it is (`arch`; None for a supernet), and what it was
    trained on (`pictures`, JSON values: `mean` and `std` of a channel, `classes`, `depth`; empty where unknown)."""

    net: Supernet | Subnet
    space: SearchSpace
    arch: Arch | None = None
    pictures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Classes it tells apart."""
        return self.net.num_classes if isinstance(self.net, Supernet) else self.net.plan.head[-1].outputs

    @property
    def entries(self) -> list[Entry]:
        """Its arrays, in NNablaNAS's order."""
        return supernet_entries(self.net) if isinstance(self.net, Supernet) else entries(self.net.plan)


def supernet_entries(net: Supernet) -> list[Entry]:
    """The supernet's arrays under NNablaNAS's names."""
    return entries(net.plan(net.space.free.largest), net.space)


def save(trained: Trained, path: Path, *, form: Form | None = None, kept: Mapping[str, Kept] | None = None) -> None:
    """Write a weights file atomically, in the form that its suffix stands for unless `form` is given.

    The file also says which net it is, so that `open_weights` needs no more; its arrays are named as the form's other
    readers name them. `kept`: see `About`; what it does not say of an array is float32 and as NNablaNAS writes it.
    """
    form = form or form_to_write(path)
    form.write(path, content_of(trained, form, kept=kept))


def content_of(trained: Trained, form: Form, *, kept: Mapping[str, Kept] | None = None) -> Content:
    """What a file of that form holds of a net."""
    norm = next(m for m in trained.net.modules() if isinstance(m, nn.BatchNorm2d))
    state, names = trained.net.state_dict(), trained.entries
    by_default: dict[str, Kept] = {e.theirs: ("float32", i, e.trained) for i, e in enumerate(names)}
    differing = {name: value for name, value in (kept or {}).items() if by_default.get(name, value) != value}
    about = About(
        kind="supernet" if trained.arch is None else "subnet",
        space=(trained.space if trained.arch is None else trained.space.free).to_dict(),
        arch=None if trained.arch is None else str(trained.arch), num_classes=trained.num_classes,
        dropout=_dropout(trained.net), bn=(norm.momentum or 0.0, norm.eps),
        pictures=Pictures(**trained.pictures), kept=differing)
    arrays = {form.key(e): form.to_file(e, state[e.ours].detach().cpu()).contiguous() for e in names}
    counts = {form.key(e): int(state[e.ours.removesuffix(MEAN) + COUNT]) for e in names if e.ours.endswith(MEAN)}
    return Content(arrays, counts, about, {**by_default, **differing})


def open_weights(source: str | Path, *, space: str | None = None) -> Trained:
    """The trained net in a weights file of any form, or in a run folder, in evaluation mode.

    Files of this project say which net they hold. For others `space` names the search space (the ImageNet table by
    default); width, number of classes, and kernels or the sub-network follow from the shapes. Raises UserError that
    names what does not fit.
    """
    path = weights_file(Path(source))
    form = form_of(path)
    return trained_of(path, form, form.read(path), space=space)


def trained_of(path: Path, form: Form, content: Content, *, space: str | None = None) -> Trained:
    """The net of a file that has been read."""
    about = content.about or _inferred(path, form, content, space)
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
        shapes = Subnet(plan).state_dict()
    state = _matched(path, form, content, entries(plan), shapes)
    own = {name: tensor.clone() for name, tensor in state.items()}  # in torch's memory: a file's may start at any byte,
    subnet = build(plan, own, dropout=about.dropout, bn_momentum=momentum, bn_eps=eps)  # which changes the last bits
    return Trained(subnet.eval(), found, arch, pictures)


def open_subnet_file(path: Path, *, space: str | None = None) -> Trained | None:
    """`open_weights` of a file that holds an ordinary net; None for one that holds a supernet."""
    form = form_of(path)
    content = form.read(path)
    return trained_of(path, form, content, space=space) if _static(path, form, content) else None


def load(source: str | Path, *, space: str | None = None) -> Supernet | Subnet:
    """The net alone of `open_weights`: a supernet, or the extracted sub-network that the file holds."""
    return open_weights(source, space=space).net


def load_supernet(source: str | Path) -> Supernet:
    """The same; raises UserError where it is an extracted sub-network."""
    net = load(source)
    if isinstance(net, Supernet):
        return net
    raise UserError(str(source), "holds an extracted sub-network, not a supernet", "give the supernet's weights")


def load_weights(net: Supernet, path: Path) -> None:
    """Copy the arrays of a supernet's weights file of any form into `net`.

    The file may be of a narrower space: kernel matrices it lacks start at identity, and the log says so; and it may be
    an ordinary net, the largest sub-network. Raises UserError that names an array that is missing, unknown or of
    another shape.
    """
    form = form_of(path)
    _fill(net, path, form, form.read(path), narrower=True)


def space_of(path: Path) -> SearchSpace | None:
    """The space that a weights file says it is of; None for a file that does not say."""
    about = form_of(path).read_about(path)
    return read_space(about.space) if about else None


def classes_of(path: Path) -> tuple[str, ...] | None:
    """The names of the classes that a weights file says its network tells apart; None for a file that does not say."""
    about = form_of(path).read_about(path)
    return about.pictures.classes or None if about else None


def weights_file(source: Path) -> Path:
    """The weights file that a path stands for: itself, or of a run folder the stage with the widest space, of
    several the last by name."""
    if not source.exists():
        if str(source).partition("?")[0] in CATALOG:
            raise UserError(str(source), "is a search space, which has no weights", "give a run folder or a weights.h5")
        near = difflib.get_close_matches(str(source), CATALOG, n=1)
        raise UserError(str(source), "is neither a run folder nor a weights file", f"did you mean {near[0]}?" if near
                        else f"search spaces are {', '.join(CATALOG)}")
    if source.is_file():
        return source
    for name in ("weights.h5", "model.safetensors", "init"):  # of a stage; extracted; as the authors publish
        if (source / name).is_file():
            return source / name
    files = sorted(source.glob("*/weights.h5"))
    if not files:
        raise UserError(str(source), "holds no weights.h5", "train first: `ofa fit -o RUN`")
    counts = {path: (space.free.count, path) for path in files if (space := space_of(path)) is not None}
    if not counts:
        raise UserError(str(source), "holds weights.h5 that do not say what they are of", f"name one, as {files[0]}")
    return max(counts, key=counts.__getitem__)


def _inferred(path: Path, form: Form, content: Content, name: str | None) -> About:
    """What a foreign file does not say of itself."""
    file = Foreign(path, form, content)
    classes = file.classes
    space = space_of_arrays(file, name)
    about = About(kind="supernet", space=space.to_dict(), num_classes=classes, bn=(0.1, space.bn_eps))
    if file.elastic:
        return about
    config = net_config.read(path.parent) if path.name == "init" else None
    arch = arch_of_arrays(file, space, config.image_size if config else None)
    about = about.model_copy(update={"kind": "subnet", "arch": str(arch)})
    if config is None:
        return about
    config.check(lower(space, arch, classes))
    return about.model_copy(update={"bn": config.bn, "dropout": config.dropout})


def _dropout(net: Supernet | Subnet) -> float:
    return net.dropout if isinstance(net, Supernet) else next(m.p for m in net.modules() if isinstance(m, nn.Dropout))


def _fill(net: Supernet, path: Path, form: Form, content: Content, *, narrower: bool) -> None:
    """Copy the arrays into the net; `narrower`: kernel matrices that the file's own space does not have may be absent,
    or in a file that does not name it, those of a kernel step that no block of it has."""
    wanted = supernet_entries(net)
    if _static(path, form, content):
        wanted = entries(net.plan(net.space.free.largest))  # the largest sub-network has the supernet's own names
        if {form.key(e) for e in wanted} != content.arrays.keys():
            raise UserError(str(path), "holds an extracted sub-network, not a supernet", "give the supernet's weights")
    if narrower and content.about:
        theirs = read_space(content.about.space)
        stored = {e.ours for e in entries(lower(theirs, theirs.free.largest), theirs)}
        wanted = [e for e in wanted if not _step(e) or e.ours in stored]
    elif narrower:
        steps = {_step(e) for e in wanted if form.key(e) in content.arrays}
        wanted = [e for e in wanted if _step(e) in steps]
    state = _matched(path, form, content, wanted, net.state_dict())
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            tensor.copy_(state[name] if name in state else torch.eye(len(tensor)))
    absent = net.state_dict().keys() - state.keys()
    if absent:
        _log.info("%s is of a narrower space: %d kernel matrices start at identity", path, len(absent))


def _static(path: Path, form: Form, content: Content) -> bool:
    """Whether a file holds an ordinary net: an extracted sub-network, or just the largest one."""
    return content.about.arch is not None if content.about else not Foreign(path, form, content).elastic


def _check_size(path: Path, form: Form, content: Content, plan: Plan) -> None:
    """Refuse a file that holds fewer numbers than its net's convolutions have, before the net takes their memory."""
    needed = sum(layer.outputs * layer.inputs // layer.groups * layer.kernel**2 for layer in plan.layers())
    if needed > sum(array.numel() for array in content.arrays.values()):
        raise UserError(str(path), f"holds fewer than the {needed:,} numbers of the network it says it is of",
                        f"give a whole {form.name} file")


def _step(entry: Entry) -> str:
    """Of a kernel matrix which step it is for, such as 7to5; of other arrays nothing."""
    return entry.ours.rpartition("kernel_")[2] if "kernel_" in entry.ours else ""


def _matched(path: Path, form: Form, content: Content, wanted: list[Entry],
             shapes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's arrays and counts under our names, after checking that they are just those wanted."""
    keys = {form.key(e): e for e in wanted}
    unknown = sorted(content.arrays.keys() - keys.keys())
    missing = [key for key in keys if key not in content.arrays]
    if missing:
        raise UserError(str(path), f"lacks {len(missing)} of {len(keys)} arrays, first {missing[0]}",
                        "the file is of another network")
    unknown += sorted(key for key in content.counts if key not in keys)
    if unknown:
        raise UserError(str(path), f"has {len(unknown)} arrays too many, first {unknown[0]}",
                        "the file is of another or a wider network")
    state = {}
    for key, entry in keys.items():
        found, needed = tuple(content.arrays[key].shape), tuple(form.to_file(entry, shapes[entry.ours]).shape)
        if found != needed:
            raise UserError(f"{path}:{key}", f"has shape {found}; {needed} is needed",
                            "check width_mult and num_classes")
        state[entry.ours] = form.to_ours(entry, content.arrays[key]).contiguous()
        if entry.ours.endswith(MEAN):
            state[entry.ours.removesuffix(MEAN) + COUNT] = torch.tensor(content.counts.get(key, 0))
    return state
