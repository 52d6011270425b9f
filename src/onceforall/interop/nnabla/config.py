"""Training configurations: NNablaNAS's JSON, typed and checked, and the search spaces and archs that it means."""

from __future__ import annotations

import re
from typing import get_args

from onceforall.errors import UserError
from onceforall.interop.nnabla.config_data import Data
from onceforall.interop.nnabla.config_file import Algorithm, Config, schema
from onceforall.interop.nnabla.config_hparams import Hparams, decay_exemptions
from onceforall.interop.nnabla.config_sections import FIXED_KERNELS, Genotype, Network, Optimizer, OptimizerGroup
from onceforall.interop.nnabla.genotype import decode
from onceforall.space import CATALOG, Arch, SearchSpace, search_space

__all__ = ["Algorithm", "Config", "Data", "Hparams", "Network", "Optimizer", "OptimizerGroup", "checked",
           "full_space", "network_space", "no_decay_patterns", "schema", "stage_space", "subnet_arch", "supernet_space",
           "valid_archs"]


def full_space(network: Network) -> SearchSpace:
    """The catalogue's space of a network, at its width."""
    return search_space(network.space, **({} if network.width_mult is None else {"width_mult": network.width_mult}))


def network_space(network: Network) -> SearchSpace:
    """The part of the full space that the network's lists of choices name, at all resolutions.

    Under fixed_kernel each stage has one kernel, as in CompOFA.
    """
    space = network.part(full_space(network))
    return space.each("kernel", [(kernel,) for kernel in FIXED_KERNELS]) if network.fixed_kernel else space


def supernet_space(network: Network) -> SearchSpace:
    """The part of the network's space that its supernet is trained for. Under compound it is tied."""
    space = network_space(network)
    return space.compound(full_space(network)) if network.compound else space


def stage_space(config: Config) -> SearchSpace:
    """What the run trains: op_candidates x depth_candidates, tied under compound, at the training resolutions.

    Those come from train_image_size_list (image_size_continuous: every multiple of image_size_seg between its
    ends), else they are img_size, else all of the space. Raises UserError for a size the space does not have.
    """
    space, hparams = supernet_space(config.network), config.hparams
    listed = hparams.train_image_size_list
    if listed is None:
        return space if hparams.img_size is None else space.restrict(resolutions=[_img_size(config, space)])
    for i, size in enumerate(listed):
        if not hparams.image_size_continuous or size in (min(listed), max(listed)):
            _allowed(size, space, f"hparams.train_image_size_list[{i}]")
    if not hparams.image_size_continuous:
        return space.restrict(resolutions=listed)
    step = hparams.image_size_seg
    sizes = [size for size in range(min(listed), max(listed) + 1) if size % step == 0]
    for size in sizes:
        _allowed(size, space, "hparams.image_size_seg")
    if not sizes:
        raise UserError("hparams.image_size_seg", f"{step} has no multiple from {min(listed)} to {max(listed)}",
                        "image_size_continuous false trains at the listed sizes")
    return space.restrict(resolutions=sizes)


def subnet_arch(config: Config) -> Arch | None:
    """The sub-network that network.genotype encodes, at img_size; None without a genotype."""
    network = config.network
    if network.genotype is None:
        return None
    return _decoded(network, network.genotype, resolution=_img_size(config, network_space(network)),
                    place=f"{config.network_place}.genotype")


def _decoded(network: Network, genotype: Genotype, *, resolution: int, place: str) -> Arch:
    """The sub-network of a genotype over the network's op_candidates."""
    arch = decode(network.part(full_space(network)), genotype, resolution=resolution, operators=network.op_candidates,
                  place=place)
    try:
        return network_space(network).check(arch)
    except UserError as error:
        raise UserError(f"{place}: {error.place}", error.problem, "fixed_kernel is true") from None


def valid_archs(config: Config) -> list[Arch]:
    """The sub-networks to validate, each once: valid_genotypes x valid_image_size_list.

    Without genotypes they are smallest, middle and largest of the stage space, and without sizes those keep
    their own resolution; genotypes without sizes are validated at the largest training resolution.
    """
    hparams, stage = config.hparams, stage_space(config)
    space = network_space(config.network)
    sizes = [_allowed(size, space, f"hparams.valid_image_size_list[{i}]")
             for i, size in enumerate(hparams.valid_image_size_list or ())]
    if hparams.valid_genotypes is None:
        archs = [stage.smallest, stage.middle, stage.largest]
    else:
        archs = [_decoded(config.network, genotype, resolution=max(stage.resolutions),
                          place=f"hparams.valid_genotypes[{i}]") for i, genotype in enumerate(hparams.valid_genotypes)]
    return list(dict.fromkeys(arch.at(size) for arch in archs for size in sizes or [arch.resolution]))


def no_decay_patterns(config: Config) -> list[re.Pattern[str]]:
    """The patterns to `search` for in NNablaNAS's parameter names. A parameter with one of them has no weight decay."""
    return decay_exemptions(config.hparams.no_decay_keys)


def checked(config: Config, for_algorithm: str, *, search: bool = False) -> Config:
    """Make every check that is possible before training, and return the configuration itself.

    It does not look whether the files exist that are named.

    Args:
        config: the configuration.
        for_algorithm: OFASearcher or OFATrainer.
        search: whether the pictures that train_portion leaves validate.

    Raises:
        UserError: a check fails.
    """
    if for_algorithm not in get_args(Algorithm):
        raise UserError("--algorithm", f"{for_algorithm!r} is not known", f"take {' or '.join(get_args(Algorithm))}")
    for fault in config.faults():
        raise fault
    sizes = _check_subnet(config) if for_algorithm == "OFATrainer" else _check_supernet(config)
    if search and config.data.train_portion == 1:
        raise UserError(f"{config.data_place}.train_portion", "1 leaves no pictures to validate on under --search",
                        "NNablaNAS's examples have 0.99")
    _check_teacher(config, sizes)
    _check_schedule(config)
    return config


def _img_size(config: Config, space: SearchSpace) -> int:
    size = config.hparams.img_size
    return max(space.resolutions) if size is None else _allowed(size, space, "hparams.img_size")


def _allowed(size: int, space: SearchSpace, place: str) -> int:
    """Check a size, and return it; raises UserError, which names the spaces that have it."""
    if size in space.resolutions:
        return size
    sizes = space.resolutions
    others = [name for name in CATALOG if size in search_space(name).resolutions]
    remedy = f"network space {' or '.join(others)} has it" if others else "choose another size"
    raise UserError(place, f"{size} is not a resolution of {space.name} ({sizes[0]}, {sizes[1]}, .., {sizes[-1]})",
                    remedy)


def _check_subnet(config: Config) -> tuple[int, ...]:
    """Check what OFATrainer trains. Returns the resolutions that it trains at."""
    arch = subnet_arch(config)
    if arch is None:
        raise UserError(f"{config.network_place}.genotype", "is missing", "OFATrainer trains one sub-network: give its "
                        "genotype, or take -a OFASearcher for the supernet")
    return (arch.resolution,)


def _check_supernet(config: Config) -> tuple[int, ...]:
    """Check what OFASearcher trains. Returns the resolutions that it trains at."""
    if config.hparams.task is None:
        raise UserError("hparams.task", "is missing", "give fullnet, kernel, depth, expand or width")
    valid_archs(config)
    _check_strategy(config)
    return stage_space(config).resolutions


def _check_strategy(config: Config) -> None:
    hparams = config.hparams
    if hparams.sampling == "authors":
        if (space := network_space(config.network)).dimensions != ("kernel", "expand") or space.widths:
            raise UserError("hparams.sampling", f"authors is known of MobileNetV3 and ProxylessNAS, not of "
                            f"{space.name}", "leave it out")
        given = {"strategy": hparams.strategy != "shrinking", "delay": hparams.delay, "rise": hparams.rise}
        other = next((f"hparams.{key}" for key, value in given.items() if value),
                     f"{config.network_place}.compound" if config.network.compound else "")
        if other:
            raise UserError(other, "stands beside hparams.sampling authors, which draws as their code does",
                            "leave one of them out")
    elif hparams.sampling != "seed" and hparams.predictor is None:
        raise UserError("hparams.predictor", f"is missing, and sampling {hparams.sampling} chooses by it",
                        "`ofa predictor fit` makes one")
    if hparams.strategy == "sandwich" and hparams.subnets_per_step < 2:
        raise UserError("hparams.subnets_per_step", f"{hparams.subnets_per_step} is below 2: strategy sandwich takes "
                        "the largest and the smallest", "BigNAS has 4")
    if hparams.strategy == "sandwich" and hparams.lambda_kd:
        raise UserError("hparams.lambda_kd", f"{hparams.lambda_kd:g} stands beside strategy sandwich, whose teacher is "
                        "the largest sub-network itself", "give 0")
    if hparams.delay + hparams.rise > 1:
        raise UserError("hparams.rise", f"{hparams.rise:g} after a delay of {hparams.delay:g} is longer than the stage",
                        f"give at most {1 - hparams.delay:g}")


def _check_schedule(config: Config) -> None:
    if config.optimizer.train.lr_scheduler == "StepScheduler":
        for key in ("step_decay_rate", "epoch_steps"):
            if getattr(config.hparams, key) is None:
                raise UserError(f"hparams.{key}", "is missing, and lr_scheduler is StepScheduler",
                                "NNablaNAS's Xception has step_decay_rate 0.94 and epoch_steps 2")


def _check_teacher(config: Config, sizes: tuple[int, ...]) -> None:
    if config.hparams.lambda_kd == 0:
        return
    teacher, place = config.teacher, config.teacher_place
    if teacher is None:
        raise UserError(place, "is missing", "lambda_kd above 0 needs a teacher; without one give lambda_kd 0")
    if teacher.weights is None:
        raise UserError(f"{place}.weights", "is missing", "a teacher comes trained: name its weights.h5")
    if teacher.num_classes != config.network.num_classes:
        raise UserError(f"{place}.num_classes", f"{teacher.num_classes} is not {config.network_place}.num_classes, "
                        f"{config.network.num_classes}", "teacher and student tell the same classes apart")
    missing = sorted(set(sizes) - set(full_space(teacher).resolutions))
    if missing:
        raise UserError(f"{place}.space", f"{teacher.space} has no resolution {missing[0]}",
                        f"the student trains at it; {config.network.space} has it")
