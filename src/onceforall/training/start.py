"""Start: the net that a run begins with, a supernet or one sub-network, from its configuration and weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from onceforall.errors import UserError
from onceforall.interop.nnabla.config import (
    Config,
    Network,
    network_space,
    stage_space,
    subnet_arch,
    supernet_space,
    valid_archs,
)
from onceforall.nn import Subnet, Supernet, extract
from onceforall.space import Arch, SearchSpace, lower
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, load_weights, open_subnet_file, space_of

_CLASSIFIER = "head.classifier."


def supernet_of(config: Config) -> Supernet:
    """The configuration's supernet, with its weights where it names some, else random from its seed.

    Its space has the resolutions that are trained or validated. Raises UserError for weights that do not fit.
    """
    sizes = {*stage_space(config).resolutions, *(arch.resolution for arch in valid_archs(config))}
    return _supernet(config, supernet_space(config.network).restrict(resolutions=sorted(sizes)))


def _supernet(config: Config, space: SearchSpace) -> Supernet:
    net = filled(config.network, space, place=config.network_place, seed=config.hparams.seed)
    before = space_of(Path(config.network.weights)) if config.network.weights else None
    if before is not None and not space.free.covers(before.at(space.resolutions)):
        raise UserError(f"{config.network_place}.weights", f"{config.network.weights} was trained in a space that this "
                        "one does not contain", "progressive shrinking only ever adds op_ and depth_candidates")
    return net


def subnet_of(config: Config, evaluator: Evaluator) -> Subnet:
    """The genotype's sub-network: as its own weights file holds it, BN statistics too, else cut out of the supernet,
    with its BN recalibrated where there are weights. Raises UserError for weights that do not fit."""
    arch, network, place = subnet_arch(config), config.network, config.network_place
    assert arch is not None  # checked before
    found = _extracted(config, arch) if network.weights else None
    if found is not None:
        space = network_space(network).restrict(resolutions=[arch.resolution])
        random = filled(network.model_copy(update={"weights": None}), space, place=place, seed=config.hparams.seed)
        subnet = extract(random, arch)
        subnet.load_state_dict({**subnet.state_dict(), **_kept(config, found)})
        evaluator.compute.place(subnet)
        return subnet
    if network.new_classifier:
        raise UserError(f"{place}.new_classifier", "is true without the weights of an extracted sub-network",
                        "leave it out, or name them under weights")
    subnet = extract(_supernet(config, network_space(network).restrict(resolutions=[arch.resolution])), arch)
    evaluator.compute.place(subnet)
    return evaluator.recalibrated(subnet, arch.resolution) if network.weights else subnet


def filled(network: Network, space: SearchSpace, *, place: str, seed: int = 0) -> Supernet:
    """The network's supernet over `space`, its weights loaded."""
    decay, eps = network.bn_param
    net = Supernet(space, network.num_classes, dropout=network.drop_rate, bn_momentum=1 - decay, bn_eps=eps,
                   generator=torch.Generator().manual_seed(seed))
    if network.weights:
        try:
            load_weights(net, Path(network.weights))
        except UserError as error:
            raise UserError(f"{place}.weights: {error.place}", error.problem, error.remedy) from None
    return net


def _extracted(config: Config, arch: Arch) -> Trained | None:
    """The sub-network `arch` in the weights file; None for a file that a supernet can be made of.

    Raises UserError for another sub-network.
    """
    network, place, path = config.network, f"{config.network_place}.weights", Path(config.network.weights or "")
    space = network_space(network)
    try:
        found = open_subnet_file(path, space=network.space)
    except UserError as error:
        raise UserError(f"{place}: {error.place}", error.problem, error.remedy) from None
    if found is None or found.arch is None:
        return None
    said = space_of(path)
    there = found.arch if said else found.arch.at(arch.resolution)  # a foreign file says nothing of the resolution
    if there != arch:
        narrower = said is None or space.covers(said.at(space.resolutions))
        if narrower and there.at(max(space.resolutions)) == space.largest:
            return None
        raise UserError(place, f"{path} is of the sub-network {there}, not of {arch}",
                        "give its genotype and img_size, or a supernet's weights")
    if found.net.plan != lower(space, found.arch, found.num_classes):
        raise UserError(place, f"{path} is of {found.space.name}, not of {space.name}", "give its space and width_mult")
    return found


def _kept(config: Config, found: Trained) -> dict[str, Tensor]:
    """What the run takes over of an extracted sub-network: all of it, or all but its classifier."""
    network, state = config.network, found.net.state_dict()
    if network.new_classifier:
        return {name: tensor for name, tensor in state.items() if not name.startswith(_CLASSIFIER)}
    if found.num_classes != network.num_classes:
        raise UserError(f"{config.network_place}.num_classes", f"{network.num_classes} is not {found.num_classes}, as "
                        f"{network.weights} tells apart", f"give {found.num_classes}, or new_classifier true")
    return state
