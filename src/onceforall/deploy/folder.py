"""The folder of an extracted sub-network: model.safetensors, model.json that is enough to rebuild it, and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onceforall.cost import macs, params
from onceforall.data import DataSet
from onceforall.data.spec import BY_DEFAULT, DEFAULT_ROOT, PATHS
from onceforall.deploy.card import write_card
from onceforall.deploy.description import (
    ABOUT,
    WEIGHTS,
    Accuracy,
    Answers,
    Channels,
    Description,
    read_description,
    sha256,
    versions,
)
from onceforall.errors import UserError
from onceforall.files import make_folder
from onceforall.nn import Subnet
from onceforall.space import Arch, SearchSpace, read_space
from onceforall.training.evaluate import Evaluator, Score
from onceforall.weights.nets import Trained, open_weights, save

_MOST_CLASSES = 200  # whose confusion is written: model.json should stay small

@dataclass(frozen=True, eq=False)
class Extracted:
    """A sub-network of plain torch layers, how it is fed, what its outputs mean, and what is known of its accuracy;
    `data`: the data set that it was scored on, as `DataSpec` takes it."""

    net: Subnet
    space: SearchSpace
    arch: Arch
    channels: Channels
    classes: tuple[str, ...]
    accuracy: Accuracy | None = None
    data: dict[str, Any] | None = None
    confusion: Sequence[Answers] = ()


@dataclass(frozen=True, eq=False)
class Scored:
    """A sub-network of plain torch layers, and how it answers on the test pictures of `data`.

    `confusion`: counts (K, K), as `Evaluator.confusion` gives them; they are written for up to 200 classes.
    """

    net: Subnet
    space: SearchSpace
    arch: Arch
    data: DataSet
    score: Score
    confusion: Tensor

    @classmethod
    def of(cls, evaluator: Evaluator, net: Subnet, space: SearchSpace, arch: Arch) -> Scored:
        """Score a sub-network, as it is, on the test pictures of the evaluator."""
        data = evaluator.data
        return cls(net, space, arch, data, evaluator.score_net(net, arch.resolution, data.test),
                   evaluator.confusion(net, arch.resolution, data.test))

    @property
    def extracted(self) -> Extracted:
        """The sub-network with what its folder says of it."""
        accuracy = Accuracy(top1=self.score.top1, images=self.score.images)
        return Extracted(self.net, self.space, self.arch, Channels.of(self.data), self.data.classes, accuracy,
                         _loaded_by(self.data), _rows_of(self.confusion))


def save_subnet(found: Extracted, folder: Path, *, source: Path,
                finetuned: Mapping[str, Any] | None = None) -> Description:
    """Write the net's weights, its description and its card; `source`: the weights file that it comes from, and
    `finetuned` how it was trained since (JSON values)."""
    make_folder(folder)
    space, arch, net = found.space.free, found.arch, found.net
    num_classes, preprocessing = net.plan.head[-1].outputs, found.channels.at(arch.resolution)
    # the old description must not stand beside the new weights
    (folder / ABOUT).unlink(missing_ok=True)
    facts = {"mean": preprocessing.mean, "std": preprocessing.std, "classes": found.classes,
             "depth": asdict(preprocessing.depth), "framing": asdict(preprocessing.framing)}
    save(Trained(net, space, arch, facts), folder / WEIGHTS)
    about = Description(
        arch=str(arch), foreign=arch.foreign(space), resolution=arch.resolution, space=space.to_dict(),
        num_classes=num_classes, bn_eps=next(m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)),
        macs=macs(space, arch, num_classes=num_classes), params=params(space, arch, num_classes=num_classes),
        classes=list(found.classes), preprocessing=preprocessing, accuracy=found.accuracy, data=found.data,
        provenance={"source": str(source), "sha256": sha256(source),
                    "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                    **({} if finetuned is None else {"finetuned": dict(finetuned)})},
        versions=versions("torch"), sha256={WEIGHTS: sha256(folder / WEIGHTS)}, plan=_rows(net),
        confusion=list(found.confusion))
    about.write(folder)
    write_card(about, folder)
    return about


def load_subnet(folder: str | Path) -> Subnet:
    """Load the sub-network that `ofa extract` or `Run.extract(..).save` wrote into a folder.

    Args:
        folder: the folder.

    Returns:
        A module of plain torch layers in evaluation mode, its weights channels last: normalised images (B, 3, R, R) to
        logits (B, K).

    Raises:
        UserError: the folder holds none, or a damaged one.
    """
    return open_subnet(Path(folder))[0]


def open_subnet(folder: Path) -> tuple[Subnet, Description]:
    """The sub-network in a folder, and what is said of it there."""
    about, path = read_description(folder), folder / WEIGHTS
    trained = open_weights(path)
    arch = trained.arch
    said = about.arch, about.resolution, about.preprocessing.crop, about.num_classes
    if about.sha256.get(WEIGHTS) != sha256(path) or not isinstance(trained.net, Subnet) or arch is None \
            or not _says(about, trained.space) \
            or said != (str(arch), arch.resolution, arch.resolution, trained.num_classes):
        raise UserError(str(path), f"is not the sub-network that {ABOUT} describes", "extract it again")
    try:
        arch.check_foreign(trained.space, about.foreign)
    except UserError as error:
        raise UserError(f"{folder / ABOUT}: {error.place}", error.problem, "extract it again") from None
    return trained.net.to(memory_format=torch.channels_last), about


def _says(about: Description, space: SearchSpace) -> bool:
    """Whether a description is of that space, in the present form or in an older one."""
    try:
        return read_space(about.space) == space
    except UserError:
        return False


def _loaded_by(data: DataSet) -> dict[str, Any] | None:
    """The data set's name, place and split, as `DataSpec` takes them; paths are absolute, for readers elsewhere."""
    if data.spec is None:
        return None
    spec = asdict(data.spec)
    if spec["root"] is None and data.spec.name in BY_DEFAULT and Path(DEFAULT_ROOT).is_dir() \
            and not Path(DEFAULT_ROOT, "train").is_dir():  # which would stand for a folder of pictures
        spec["root"] = DEFAULT_ROOT
    paths = {name: str(Path(spec[name]).absolute()) for name in PATHS if spec[name] is not None}
    unsaid = {"augment", "workers", "cache", "download", "mean", "std", "framing", "unlabelled"}
    unsaid |= set() if data.spec.score_only else {"score_only"}
    return {name: value for name, value in (spec | paths).items() if name not in unsaid and value is not None}


def _rows_of(confusion: Tensor) -> list[Answers]:
    """The counts of a confusion matrix that are not zero."""
    if len(confusion) > _MOST_CLASSES:
        return []
    return [Answers(label=label, answer=answer, images=int(confusion[label, answer]))
            for label, answer in confusion.nonzero().tolist()]


def _rows(net: Subnet) -> list[dict[str, Any]]:
    """The layers in the order of the forward pass. `residual`: the block's input is added after the layer."""
    blocks = (*net.plan.first, *(block for stage in net.plan.stages for block in stage))
    last = {block.path[-1].name for block in blocks if block.residual}
    return [{**asdict(layer), "residual": layer.name in last} for layer in net.plan.layers()]
