"""Keys of a configuration that are given and have no effect, and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onceforall.interop.nnabla.config_sections import Section
from onceforall.space import lower, search_space

if TYPE_CHECKING:
    from onceforall.interop.nnabla.config_file import Config

Row = tuple[str, bool, str]  # a key's place, whether it is given in vain, and why
_OF_SUPERNETS = ("task", "train_image_size_list", "valid_image_size_list", "valid_genotypes")


def ignored(config: Config, algorithm: str | None) -> Iterator[tuple[str, str]]:
    """The place of each such key, and why it has no effect.

    Args:
        config: the configuration.
        algorithm: OFASearcher or OFATrainer; None: what neither of them reads.
    """
    rows = [*_of_nnablanas(config), *_of_the_schedule(config), *_of_the_rest(config, algorithm),
            *_superseded(config, algorithm), *_of_the_strategy(config), *_of_the_teacher(config),
            *_of_the_other_algorithm(config, algorithm)]
    return ((place, why) for place, in_vain, why in rows if in_vain)


def _of_nnablanas(config: Config) -> list[Row]:
    """What NNablaNAS needs and this program does not."""
    hparams, network = config.hparams, config.network
    term = "training a supernet has no latency or memory term"
    widths = table_widths(network.space)
    return [
        ("hparams.input_shapes", hparams.input_shapes is not None, "the network takes pictures of every resolution of "
         "its space"),
        ("hparams.target_shapes", hparams.target_shapes is not None, "labels are class indices"),
        ("hparams.loss_weights", hparams.loss_weights is not None, "there is one output, hence one loss"),
        ("hparams.warmup", hparams.warmup is not None, "it belongs to architecture search; the warm-up here is "
         "cosine_warmup_epoch"),
        ("hparams.regularizer", hparams.regularizer is not None, term),
        ("regularizer", config.regularizer is not None, term),
        (f"{config.network_place}.base_stage_width", list(network.base_stage_width or ()) == widths,
         f"these are the widths of {network.space} anyway")]


def _of_the_schedule(config: Config) -> list[Row]:
    """What another schedule of the learning rate has."""
    hparams, scheduler = config.hparams, config.optimizer.train.lr_scheduler
    stairs, warms_up = scheduler == "StepScheduler", scheduler == "CosineSchedulerWarmup"
    warmup = hparams.cosine_warmup_epoch
    return [
        *((f"hparams.{key}", not stairs and getattr(hparams, key) is not None, "it belongs to StepScheduler")
          for key in ("step_decay_rate", "epoch_steps")),
        ("hparams.cosine_warmup_epoch", not warms_up and warmup > 0, f"{scheduler} has no warm-up"),
        ("hparams.warmup_lr", hparams.warmup_lr > 0 and not warmup, "cosine_warmup_epoch is 0")]


def _of_the_rest(config: Config, algorithm: str | None) -> list[Row]:
    hparams, data = config.hparams, config.data
    return [
        ("hparams.teacher_network", hparams.teacher_network is not None and hparams.lambda_kd == 0, "lambda_kd is 0"),
        ("hparams.image_size_seg", hparams.image_size_seg != 4 and not hparams.image_size_continuous,
         "image_size_continuous is false"),
        ("hparams.valid_ce_loss", not hparams.valid_ce_loss, "validation always reports plain cross entropy"),
        (f"{config.data_place}.augment_valid", data.augment_valid, "validation pictures are never augmented"),
        (f"{config.data_place}.download", data.download and data.name in ("imagenet", "folder", "digits"),
         f"there is no download for {data.name}"),
        (f"{config.network_place}.new_classifier", config.network.new_classifier and algorithm == "OFASearcher",
         "OFASearcher does not read it")]


def _superseded(config: Config, algorithm: str | None) -> list[Row]:
    """What another key leaves without effect, or that there is one sub-network alone."""
    hparams, data, alone = config.hparams, config.data, algorithm == "OFATrainer"
    return [
        (f"{config.data_place}.brightness, saturation", not data.colortwist and (
            _differs(data, "brightness") or _differs(data, "saturation")), "colortwist is false"),
        (f"{config.data_place}.root", data.name == "digits" and data.root is not None,
         "the digits come with scikit-learn"),
        ("hparams.img_size", hparams.img_size is not None and bool(hparams.train_image_size_list) and (
            algorithm == "OFASearcher"), "train_image_size_list is given"),
        *((f"hparams.{key}", alone and _differs(hparams, key), "OFATrainer trains one sub-network")
          for key in ("subnets_per_step", "strategy", "sampling", "delay", "rise")),
        (f"{config.network_place}.compound", alone and config.network.compound, "OFATrainer trains one sub-network")]


def _of_the_strategy(config: Config) -> list[Row]:
    """What another way to choose sub-networks, or to teach them, has."""
    hparams = config.hparams
    predicts = hparams.sampling in ("best_up", "worst_up")
    return [
        *((f"hparams.{key}", not predicts and _differs(hparams, key), f"sampling is {hparams.sampling}")
          for key in ("predictor", "candidates")),
        ("hparams.sampling", predicts and hparams.strategy == "sandwich" and hparams.subnets_per_step == 2,
         "sandwich draws subnets_per_step - 2 sub-networks"),
        ("hparams.kd_loss", hparams.kd_loss != "cross_entropy" and hparams.lambda_kd == 0 and (
            hparams.strategy == "shrinking"), "nothing is distilled")]


def _of_the_teacher(config: Config) -> list[Row]:
    teacher, why = config.teacher, "the teacher is the largest sub-network"
    return [] if teacher is None else [
        (f"{config.teacher_place}.genotype", bool(teacher.genotype), why),
        (f"{config.teacher_place}.compound", teacher.compound, why)]


def _of_the_other_algorithm(config: Config, algorithm: str | None) -> list[Row]:
    return [
        *((f"hparams.{key}", algorithm == "OFATrainer" and getattr(config.hparams, key) is not None,
           "OFATrainer does not read it") for key in _OF_SUPERNETS),
        (f"{config.network_place}.genotype", algorithm == "OFASearcher" and config.network.genotype is not None,
         "OFASearcher does not read it")]


def _differs(section: Section, key: str) -> bool:
    """Whether a key has another value than by default."""
    return bool(getattr(section, key) != type(section).model_fields[key].default)


def table_widths(space: str) -> list[int]:
    """Widths of a space's table from the first convolution to the head, at width 1."""
    table = search_space(space)
    plan = lower(table, table.largest)
    blocks = (*plan.first, *(blocks[-1] for blocks in plan.stages))
    widths = [plan.stem.outputs, *(block.path[-1].outputs for block in blocks),
              *(layer.outputs for layer in (*plan.features, *plan.head[:-1]))]
    return list(dict.fromkeys(widths)) if table.stages[0].kind == "separable" else widths  # Xception's last entry width
