"""Convert: a weights file of one form to another, proved to answer the same before it gets its name."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from onceforall.interop import net_config
from onceforall.interop.entries import Content
from onceforall.interop.forms import MIT, Form, form_named, form_of, form_to_write
from onceforall.interop.weights import Trained, open_weights, save, trained_of, weights_file
from onceforall.nn import Subnet, Supernet
from onceforall.space import Arch, UserError

_INIT = "init"


@dataclass(frozen=True)
class Converted:
    """What was converted: the two forms, the number of arrays, and the sub-networks that answer the same."""

    source: str
    target: str
    net: Trained
    arrays: int
    proved: tuple[Arch, ...]


def convert(source: Path, target: Path, *, to: str | None = None, space: str | None = None) -> Converted:
    """Write the weights of `source` (a file of any form, or a run folder) to `target`.

    The form of `target` follows from its suffix, or is `to`. A sub-network in the authors' form whose target has no
    suffix becomes a folder of theirs: `init`, `net.config`, `run.config`. Array values are the same to the bit, as
    float32. Raises UserError, and leaves no target, where the written file does not answer the same.
    """
    path = weights_file(source)
    form = form_of(path)
    content = form.read(path)
    trained = trained_of(path, form, content, space=space)
    other = form_to_write(target) if to is None else form_named(to)
    folder = other is MIT and trained.arch is not None and not target.suffix
    final = target / _INIT if folder else target
    _make_room(path, target, final)
    proved = _write(trained, content, final, other)
    if folder:
        norm = trained.net.get_submodule("stem.norm")
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert isinstance(trained.net, Subnet)
        net_config.write(target, trained.net.plan, dropout=0.0, bn_momentum=norm.momentum or 0.0, bn_eps=norm.eps)
    return Converted(form.name, other.name, trained, len(content.arrays), proved)


def _make_room(source: Path, target: Path, final: Path) -> None:
    if target.is_dir() and final is target:
        raise UserError(str(target), "is a folder", "give a file to write")
    if final.exists() and final.samefile(source):
        raise UserError(str(target), "is the file to convert", "give another name")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(str(final.parent), f"cannot be made: {error.strerror}", "give another target") from None


def _write(trained: Trained, content: Content, target: Path, form: Form) -> tuple[Arch, ...]:
    """Write beside the target, read back, compare, then rename."""
    unproved = target.with_name(target.name + ".unproved")
    try:
        save(trained, unproved, form=form, kept=_kept(content))
        proved = _prove(trained, open_weights(unproved))
        os.replace(unproved, target)
    except OSError as error:
        raise UserError(str(target), f"cannot be written: {error.strerror or error}") from None
    finally:
        unproved.unlink(missing_ok=True)
    return proved


def _kept(content: Content) -> dict[str, tuple[str, int, bool]]:
    """What NNablaNAS's file said of its arrays, whichever forms they have passed through since."""
    if content.kept:
        return content.kept
    out = {}
    for name, (dtype, index, trained) in content.about.get("kept", {}).items():
        if np.dtype(dtype).kind not in "fiu":
            raise UserError(name, f"{dtype!r} is no type of numbers")
        out[name] = (str(dtype), int(index), bool(trained))
    return out


@torch.no_grad()
def _prove(a: Trained, b: Trained) -> tuple[Arch, ...]:
    """The sub-networks whose logits on random pictures agree to the bit; raises UserError for one that does not."""
    rng, space = random.Random(0), a.space
    drawn = [space.sample(rng) for _ in range(3)] if a.arch is None else []
    archs = (*drawn, space.smallest, space.largest) if a.arch is None else (a.arch,)
    for arch in archs:
        images = torch.randn(2, 3, min(space.resolutions), min(space.resolutions),
                             generator=torch.Generator().manual_seed(0))
        one, two = (net(images, arch) if isinstance(net, Supernet) else net(images) for net in (a.net, b.net))
        if not torch.equal(one, two):
            raise UserError(str(arch), f"answers otherwise after conversion, by {(one - two).abs().max():.3g}")
    return archs
