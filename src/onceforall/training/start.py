"""Start: the net that a run begins with, a supernet or one sub-network, from its configuration and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onceforall.errors import UserError, within
from onceforall.nn import Subnet, Supernet, extract
from onceforall.space import Arch, SearchSpace, lower
from onceforall.training.evaluate import Evaluator
from onceforall.training.network import Network
from onceforall.training.recipe import START
from onceforall.training.stage import Training
from onceforall.weights.nets import Trained, load_supernet, load_weights, open_subnet_file, save, space_of

_CLASSIFIER = "head.classifier."


def supernet_of(training: Training) -> Supernet:
    """The supernet, with its weights where the network names some, else random from the seed.

    Its space has the resolutions that are trained or validated. Raises UserError for weights that do not fit.
    """
    sizes = {*training.part.resolutions, *(arch.resolution for arch in training.validated)}
    return _supernet(training, training.network.space.restrict(resolutions=sorted(sizes)))


def _supernet(training: Training, space: SearchSpace) -> Supernet:
    weights = training.network.weights
    net = filled(training.network, space, place="network", seed=training.stage.seed)
    before = space_of(Path(weights)) if weights else None
    if before is not None and not space.free.covers(before.at(space.resolutions)):
        raise UserError("network.weights", f"{weights} was trained in a space that this one does not contain",
                        "progressive shrinking only ever adds choices")
    return net


def subnet_of(training: Training, evaluator: Evaluator) -> Subnet:
    """The sub-network that is trained: as its own weights file holds it, BN statistics too, else cut out of the
    supernet, with its BN recalibrated where there are weights. Raises UserError for weights that do not fit."""
    network, arch = training.network, training.network.subnet
    assert arch is not None  # the caller asked before
    space = network.space.restrict(resolutions=[arch.resolution])
    found = _extracted(network, arch) if network.weights else None
    if found is not None:
        random = filled(network.model_copy(update={"weights": None}), space, place="network", seed=training.stage.seed)
        subnet = extract(random, arch)
        subnet.load_state_dict({**subnet.state_dict(), **_kept(network, found)})
        evaluator.compute.place(subnet)
        return subnet
    if network.new_classifier:
        raise UserError("network.new_classifier", "is true without the weights of an extracted sub-network",
                        "leave it out, or name them under weights")
    subnet = extract(_supernet(training, space), arch)
    evaluator.compute.place(subnet)
    return evaluator.recalibrated(subnet, arch.resolution) if network.weights else subnet


def keep_start(net: Supernet, run: Path, pictures: Mapping[str, Any] | None = None) -> None:
    """Write the supernet that a run starts from into its folder.

    Args:
        net: the supernet.
        run: the folder.
        pictures: what the weights file says of the pictures that it was trained on, as `Trained` has it.

    Raises:
        UserError: the folder holds the start of another run.
    """
    start = run / START
    if not start.exists():
        save(Trained(net, net.space, None, pictures or {}), start)
    elif not _same(net, load_supernet(start)):
        raise UserError(str(start), "holds the weights of another supernet than the one given",
                        "take another output folder")


def _same(a: Supernet, b: Supernet) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value.cpu(), theirs[name]) for name, value in ours.items())


def filled(network: Network, space: SearchSpace, *, place: str, seed: int = 0) -> Supernet:
    """The network's supernet over `space`, its weights loaded."""
    net = Supernet(space, network.num_classes, dropout=network.dropout, bn_momentum=network.bn_momentum,
                   bn_eps=network.eps, generator=torch.Generator().manual_seed(seed))
    if network.weights:
        with within(f"{place}.weights"):
            load_weights(net, Path(network.weights))
    return net


def _extracted(network: Network, arch: Arch) -> Trained | None:
    """The sub-network `arch` in the weights file; None for a file that a supernet can be made of.

    Raises UserError for another sub-network.
    """
    place, path, space = "network.weights", Path(network.weights or ""), network.space
    with within(place):
        found = open_subnet_file(path, space=space.name.partition("?")[0])
    if found is None or found.arch is None:
        return None
    said = space_of(path)
    there = found.arch if said else found.arch.at(arch.resolution)  # a foreign file says nothing of the resolution
    if there != arch:
        narrower = said is None or space.covers(said.at(space.resolutions))
        if narrower and there.at(max(space.resolutions)) == space.largest:
            return None
        raise UserError(place, f"{path} is of the sub-network {there}, not of {arch}",
                        "give that one, or a supernet's weights")
    if found.net.plan != lower(space, found.arch, found.num_classes):
        raise UserError(place, f"{path} is of {found.space.name}, not of {space.name}", "give its space")
    return found


def _kept(network: Network, found: Trained) -> dict[str, Tensor]:
    """What the run takes over of an extracted sub-network: all of it, or all but its classifier."""
    state = found.net.state_dict()
    if network.new_classifier:
        return {name: tensor for name, tensor in state.items() if not name.startswith(_CLASSIFIER)}
    if found.num_classes != network.num_classes:
        raise UserError("network.num_classes", f"{network.num_classes} is not {found.num_classes}, as "
                        f"{network.weights} tells apart", f"give {found.num_classes}, or new_classifier true")
    return state
