"""Convert: a weights file of one form to another, proved to answer the same before it gets its name."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from onceforall.errors import UserError
from onceforall.files import replacing, unwritable
from onceforall.interop.mit import net_config
from onceforall.interop.nnabla.weights import differing
from onceforall.nn import Subnet, Supernet
from onceforall.space import Arch
from onceforall.weights.forms import FORMS, form_named, form_of, form_to_write
from onceforall.weights.nets import NNABLA_WEIGHTS, WEIGHTS, Trained, open_weights, save, trained_of, weights_file

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
    """Write weights in another form, and prove that they answer the same.

    Array values are the same to the bit, as float32. A sub-network in the authors' form becomes a folder of theirs,
    with `init`, `net.config` and `run.config`, where `target` does not end in .pth, .pt or .tar.

    Args:
        source: a file of any form, or a run's folder.
        target: the file to write.
        to: its form; None: what its suffix stands for.
        space: the search space of a file that does not say it.

    Returns:
        What was converted.

    Raises:
        UserError: the written file does not answer the same. No target is left then.
    """
    path = weights_file(source)
    form = form_of(path)
    content = form.code.read(path)
    trained = trained_of(path, form, content, space=space)
    other = form_to_write(target) if to is None else form_named(to, place="--to")
    mit = FORMS["mit"]
    folder = other is mit and trained.arch is not None and target.suffix.lower() not in mit.suffixes
    final = target / _INIT if folder else target
    _check_target(path, target, final)
    kept = differing(trained.net, content.kept) if content.kept else content.about.kept if content.about else {}
    with replacing(final) as unproved:
        save(trained, unproved, form=other, kept=kept)
        proved = _prove(trained, open_weights(unproved))
        if folder and isinstance(trained.net, Subnet):
            net_config.write(target, trained.net)
    return Converted(form.name, other.name, trained, len(content.arrays), proved)


def _check_target(source: Path, target: Path, final: Path) -> None:
    """Raise UserError where the target is a folder or the file to convert."""
    try:
        if target.is_dir() and final is target:
            raise UserError(str(target), "is a folder", "give a file to write")
        if final.exists() and final.samefile(source):
            raise UserError(str(target), "is the file to convert", "give another name")
        if final.name in (WEIGHTS, NNABLA_WEIGHTS) and final.parent.is_dir() and final.parent.samefile(source.parent):
            raise UserError(str(target), "is a weights file of the run itself", "give another name")
    except OSError as error:
        raise unwritable(target, error) from None


@torch.no_grad()
def _prove(a: Trained, b: Trained) -> tuple[Arch, ...]:
    """The sub-networks that answer random pictures the same; raises UserError where one, or an array, does not."""
    one, two = a.net.state_dict(), b.net.state_dict()
    for name in one:
        if name not in two or not _same_bits(one[name], two[name]):
            raise UserError(name, "is not the same after conversion")
    rng, space = random.Random(0), a.space
    drawn = [space.sample(rng) for _ in range(3)] if a.arch is None else []
    archs = (*drawn, space.smallest, space.largest) if a.arch is None else (a.arch,)
    size = min(space.resolutions)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    for arch in archs:
        answers = [net(images, arch) if isinstance(net, Supernet) else net(images) for net in (a.net, b.net)]
        if not _same_bits(*answers):
            raise UserError(str(arch), "answers otherwise after conversion")
    return archs


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(
        a.contiguous().view(torch.uint8) if a.ndim else a, b.contiguous().view(torch.uint8) if b.ndim else b)
