"""Write elastic.safetensors: recalibrate the sub-networks, store them, and prove that the file answers the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from onceforall.data import DataSet, eval_batches, normalize
from onceforall.deploy.description import Channels
from onceforall.deploy.elastic import Elastic, accuracies, ascending
from onceforall.deploy.elastic_file import statistics_of, stored_of
from onceforall.errors import UserError
from onceforall.files import unwritable
from onceforall.functions import Listener, tell
from onceforall.nn import Subnet, Supernet, extract
from onceforall.searching.front import Row, spread_over
from onceforall.space import Arch
from onceforall.training.evaluate import Evaluator
from onceforall.weights.content import COUNT
from onceforall.weights.forms import NATIVE
from onceforall.weights.nets import Trained, content_of

_PICTURES, _RANDOM = 8, 2


def spread_rows(rows: Sequence[Row], objectives: Sequence[str], count: int) -> list[Row]:
    """Up to `count` rows of a front that spread over its objectives, such as ("accuracy", "macs")."""
    known = accuracies(tuple(rows))
    placed = rows if known is None else [replace(row, predicted=a) for row, a in zip(rows, known, strict=True)]
    return [rows[i] for i in spread_over(placed, objectives, count)]


def write_elastic(net: Supernet, rows: Sequence[Row], evaluator: Evaluator, path: Path, *,
                  listener: Listener | None = None) -> Elastic:
    """Store sub-networks in one file with their supernet, and prove that it answers the same.

    Every stored sub-network has to answer random inputs and test pictures as the recalibrated one does, bit for bit on
    CPU.

    Args:
        net: the supernet.
        rows: the sub-networks.
        evaluator: recalibrates them.
        path: the file to write.
        listener: hears of each one.

    Returns:
        The file, loaded.

    Raises:
        UserError: one answers otherwise. The file is kept beside `path` then, as NAME.unproved.
    """
    space, data, kept = net.space, evaluator.data, ascending(tuple({row.arch: row for row in rows}.values()))
    if not kept:
        raise UserError(str(path), "no sub-networks are given to store", "search first: `ofa search RUN`")
    on_cpu = deepcopy(net).cpu().eval().to(memory_format=torch.channels_last)
    found: dict[Arch, tuple[Tensor, int]] = {}
    answers: dict[Arch, Tensor] = {}
    for done, row in enumerate(kept):
        tell(listener, "elastic", done=done, of=len(kept))
        recalibrated = evaluator.subnet(net, row.arch)
        counts = [int(value) for name, value in recalibrated.state_dict().items() if name.endswith(COUNT)]
        found[row.arch] = (statistics_of(recalibrated), counts[0])
        answers[row.arch] = _answers(_reference(recalibrated, on_cpu, row.arch), data, row.arch.resolution)
    tell(listener, "elastic", done=len(kept), of=len(kept))
    stored = stored_of(kept, found, space=space, channels=Channels.of(data))
    unproved = path.with_name(path.name + ".unproved")
    NATIVE.write(unproved, replace(content_of(Trained(on_cpu, space, None, data.facts), NATIVE), stored=stored))
    return _proved(unproved, path, answers, data)


def _proved(unproved: Path, path: Path, answers: Mapping[Arch, Tensor], data: DataSet) -> Elastic:
    """Load the file, compare it with `answers`, and give it its name where every logit is the same."""
    elastic = Elastic.load(unproved)
    for arch, expected in answers.items():
        found = _answers(elastic.use(arch), data, arch.resolution)
        if not torch.equal(expected, found):
            raise UserError(str(arch), "answers otherwise in the file than the recalibrated net, by up to "
                            f"{float((expected - found).abs().max()):.2g}", f"the file is kept as {unproved}")
    try:
        os.replace(unproved, path)
    except OSError as error:
        raise unwritable(path, error) from None
    return replace(elastic, source=path)


def _reference(recalibrated: Subnet, on_cpu: Supernet, arch: Arch) -> Subnet:
    """The recalibrated net on CPU. Its transformed kernels are made there, too, since a GPU rounds them otherwise."""
    if next(recalibrated.parameters()).device.type != "cpu":
        weights = dict(extract(on_cpu, arch).named_parameters())
        recalibrated.cpu().load_state_dict({**recalibrated.state_dict(), **weights})
    return recalibrated.to(memory_format=torch.channels_last)


@torch.inference_mode()
def _answers(net: Subnet, data: DataSet, resolution: int) -> Tensor:
    """Logits of random inputs, one by one, and of the first test pictures together."""
    generator = torch.Generator().manual_seed(resolution)
    random = torch.randn(_RANDOM, 3, resolution, resolution, generator=generator)
    logits = [net(image) for image in torch.split(random, 1)]
    first = data.test.subset(range(min(_PICTURES, len(data.test))))
    logits += [net(normalize(batch.images, data.mean, data.std))
               for batch in eval_batches(first, resolution, batch=_PICTURES, framing=data.framing)]
    return torch.cat(logits)
