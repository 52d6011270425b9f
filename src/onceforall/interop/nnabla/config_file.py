"""Config: one training configuration as a value, read from and written to NNablaNAS's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from onceforall.errors import UserError
from onceforall.files import check_plain, read_object, write_text
from onceforall.interop.nnabla.config_data import Data, Dataloader
from onceforall.interop.nnabla.config_hparams import Hparams
from onceforall.interop.nnabla.config_sections import FIXED_KERNELS, Network, NetworkChoice, Optimizer, Section
from onceforall.problems import as_user_error
from onceforall.space import lower, search_space
from onceforall.space.rows import listed

Algorithm = Literal["OFASearcher", "OFATrainer"]
Row = tuple[str, bool, str]  # a key's place, whether it is given in vain, and why
_OF_SUPERNETS = ("task", "train_image_size_list", "valid_image_size_list", "valid_genotypes")


class Config(Section):
    """What one run trains, on which data, and how."""

    dataloader: Dataloader = Field(description="the data set: one key, its name")
    network_choice: NetworkChoice = Field(alias="network", description="the supernet: one key, ofa or ofa_mbv3")
    optimizer: Optimizer = Field(description="how parameters are updated")
    hparams: Hparams = Field(description="schedule, batches, resolutions, validation, distillation")
    regularizer: dict[str, Any] | None = Field(None, description="NNablaNAS's latency or memory term")

    @property
    def data(self) -> Data:
        """The chosen data set's settings; `data.name` is its name."""
        return self.dataloader.section

    @property
    def network(self) -> Network:
        """The network's settings, whichever of its two names the file uses."""
        return self.network_choice.section

    @property
    def teacher(self) -> Network | None:
        """The teacher's settings, None where nothing is distilled."""
        choice = self.hparams.teacher_network
        return choice.section if choice is not None and self.hparams.lambda_kd > 0 else None

    @property
    def data_place(self) -> str:
        """Where the data set's settings stand, such as `dataloader.imagenet`."""
        return f"dataloader.{self.dataloader.name}"

    @property
    def network_place(self) -> str:
        """Where the network's settings stand, such as `network.ofa`."""
        return f"network.{self.network_choice.name}"

    @property
    def teacher_place(self) -> str:
        """Where the teacher's settings stand, such as `hparams.teacher_network.ofa`."""
        choice = self.hparams.teacher_network
        return "hparams.teacher_network" + (f".{choice.name}" if choice is not None else "")

    @staticmethod
    def read(path: str | Path) -> Config:
        """The configuration in a JSON file; raises UserError for a missing file and for what is wrong in it."""
        return Config.from_dict(read_object(path, remedy="see ofa train --print-schema"))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Config:
        """The configuration of a JSON-like mapping; raises UserError for the first problem, which also names the places
        of the others."""
        if not isinstance(values, Mapping):
            raise UserError("configuration", f"a value of type {type(values).__name__} is not a mapping")
        check_plain(values)
        try:
            return Config.model_validate(values)
        except ValidationError as error:
            raise as_user_error(error, Config) from None

    def to_dict(self) -> dict[str, Any]:
        """All keys that have a value, defaults included, in NNablaNAS's shape; `from_dict` gives an equal Config."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def write(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, all of it or nothing; makes the folder; raises UserError where it cannot."""
        write_text(Path(path), json_text(self.to_dict()) + "\n")

    def ignored(self, for_algorithm: str | None = None) -> list[str]:
        """Keys that are given and have no effect, a line each: dotted path and why."""
        return [f"{place} has no effect: {why}" for place, why in _without_effect(self, for_algorithm)]

    def unsupported(self) -> list[str]:
        """What the file asks for and this version cannot do, a line each: dotted path and why."""
        return [str(fault) for fault in self.faults()]

    def faults(self) -> Iterator[UserError]:
        """The same as errors."""
        networks = [(self.network_place, self.network)]
        if self.teacher is not None:
            networks.append((self.teacher_place, self.teacher))
        for place, network in networks:
            yield from (UserError(f"{place}.{key}", *why) for key, *why in _unsupported(network))


def json_text(value: Any, indent: str = "") -> str:
    """JSON with a key a line, and lists on one line unless there are lists or objects in them."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {json_text(entry, inner)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
        return "[\n" + ",\n".join(inner + json_text(entry, inner) for entry in value) + f"\n{indent}]"
    return json.dumps(value)


def _unsupported(network: Network) -> Iterator[tuple[str, str, str]]:
    """What a network asks for that is not possible: the key, the problem and the remedy."""
    space = search_space(network.space)
    if network.compound:
        try:
            space.compound()
        except UserError as error:
            yield "compound", f"is true, and {error.place} {error.problem}", "leave it out"
    if network.fixed_kernel:
        kernels = [stage.choices.get("kernel", ()) for stage in network.part(space).stages]
        if len(kernels) != len(FIXED_KERNELS) or space.dimensions != ("kernel", "expand"):
            yield "fixed_kernel", f"is for spaces of {len(FIXED_KERNELS)} stages; {space.name} has {len(kernels)}", ""
        for kernel, own in zip(FIXED_KERNELS, kernels, strict=False):
            if kernel not in own:
                yield ("fixed_kernel", f"{kernel} is not one of {listed(own)}", "list its operators in op_candidates")
    if network.weight_init != "he_fout":
        yield "weight_init", f"{network.weight_init!r} comes later", 'take "he_fout", the default'
    widths = _table_widths(network.space)
    if network.base_stage_width is not None and list(network.base_stage_width) != widths:
        yield "base_stage_width", f"the widths of {network.space} are {widths}", "leave it out, or set width_mult"


def _without_effect(config: Config, algorithm: str | None) -> Iterator[tuple[str, str]]:
    """The place of each key that is given and has no effect, and why."""
    rows = [*_of_nnablanas(config), *_of_the_schedule(config), *_of_the_rest(config, algorithm),
            *_superseded(config, algorithm), *_of_the_strategy(config), *_of_the_teacher(config),
            *_of_the_other_algorithm(config, algorithm)]
    return ((place, why) for place, in_vain, why in rows if in_vain)


def _of_nnablanas(config: Config) -> list[Row]:
    """What NNablaNAS needs and this program does not."""
    hparams, network = config.hparams, config.network
    term = "training a supernet has no latency or memory term"
    widths = _table_widths(network.space)
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


def _table_widths(space: str) -> list[int]:
    """Widths of a space's table from the first convolution to the head, at width 1."""
    table = search_space(space)
    plan = lower(table, table.largest)
    blocks = (*plan.first, *(blocks[-1] for blocks in plan.stages))
    widths = [plan.stem.outputs, *(block.path[-1].outputs for block in blocks),
              *(layer.outputs for layer in (*plan.features, *plan.head[:-1]))]
    return list(dict.fromkeys(widths)) if table.stages[0].kind == "separable" else widths  # Xception's last entry width


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return Config.model_json_schema(by_alias=True)
