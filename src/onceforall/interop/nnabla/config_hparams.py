"""The configuration's hparams: schedule, batches, resolutions, validation, distillation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from onceforall.errors import UserError
from onceforall.interop.nnabla.config_sections import Count, Genotype, Listed, NetworkChoice, Pixels, Section, Text


def _patterns(value: Any) -> Any:
    """A list of regular expressions, or the older text with `#` between substrings."""
    if isinstance(value, str):
        if not all(value.split("#")):
            raise UserError("", f"{value!r} has an empty part between '#'", 'the older form is "bn#_b"')
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(part, str) for part in value):
        raise UserError("", "is not a list of regular expressions", 'NNablaNAS has ["_b$", "/bn/_[^/]*$"]')
    for i, part in enumerate(value):
        try:
            re.compile(part)
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"[{i}]", f"{part!r} is not a regular expression ({error})") from None
        if not _QUICK.fullmatch(part):
            raise UserError(f"[{i}]", f"{part!r} may take for ever on a name",
                            "at most three of * + {, and none after a group")
        if not part:
            raise UserError(f"[{i}]", "is empty and would match every parameter")
    return tuple(value)


_QUICK = re.compile(r"(?:\\.|[^*+{\\])*(?:(?<!\))[*+{](?:\\.|[^*+{\\])*){0,3}", re.DOTALL)
NoDecay = Annotated[Listed[str] | str, BeforeValidator(_patterns)]


class Hparams(Section):
    """How the supernet, or one sub-network of it, is trained and validated."""

    task: Literal["fullnet", "kernel", "depth", "expand", "width"] | None = Field(
        None, description="stage of progressive shrinking; expand sorts channels first")
    epoch: Count = Field(50, description="epochs, the warm-up counted")
    cosine_warmup_epoch: int = Field(0, ge=0, le=1_000_000, description="epochs of warm-up among them")
    warmup_lr: float = Field(0.0, ge=0, le=1000, description="learning rate that the warm-up starts from")
    batch_size_train: Count = Field(64, description="pictures a step, of one process")
    mini_batch_train: Count = Field(None, validate_default=True, description="pictures a forward pass in training; "
                                    "default: batch_size_train")
    batch_size_valid: Count = Field(64, description="a multiple of mini_batch_valid")
    mini_batch_valid: Count = Field(None, validate_default=True, description="pictures a forward pass in "
                                    "validation; default: batch_size_valid")
    subnets_per_step: int = Field(1, ge=1, le=1000, description="sub-networks whose gradients a step sums")
    strategy: Text = Field("shrinking", description="what a step trains: shrinking, subnets_per_step random ones; "
                           "sandwich, the largest, the smallest and random ones, which learn from the largest")
    sampling: Literal["seed", "authors", "best_up", "worst_up"] = Field(
        "seed", description="which sub-networks a step draws: from the seed; those that the authors' code draws in "
        "that step; or of several of the same MACs the one that predictor gives the highest accuracy, or the lowest")
    predictor: Text | None = Field(None, description="accuracy predictor for best_up and worst_up")
    candidates: int = Field(50, ge=2, le=10_000, description="of how many best_up and worst_up take one")
    delay: float = Field(0.0, ge=0, lt=1, description="share of the steps at first in which the largest sub-network is "
                         "trained alone; DepS has 0.5")
    rise: float = Field(0.0, ge=0, le=1, description="share of the steps after it in which the others' losses rise "
                        "from 0 to their weight")
    channel_sorting: Literal["bands", "authors", "always"] = Field(
        "bands", description="before an expand stage, within the bands that are trained already; authors: the same, "
        "but SE's squeeze channels in full; always: in full before every stage that loads weights, as NNablaNAS does")
    update_unused: bool = Field(False, description="whether weight decay and momentum also move parameters that no "
                                "sub-network of the step used, as in the authors' runs under Horovod")
    seed: int = Field(0, ge=0, lt=2**32, description="what all random draws derive from")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="probability spread over all classes in training")
    no_decay_keys: NoDecay = Field(("_b$", "/bn/_[^/]*$"), description="NNablaNAS names of parameters without weight "
                                   'decay: regular expressions, or the older "bn#_b"')

    train_image_size_list: Listed[Pixels] | None = Field(
        None, min_length=1, description="training resolutions, pixels; default: all of the space")
    image_size_continuous: bool = Field(True, description="train at every multiple of image_size_seg from the "
                                        "smallest to the largest of train_image_size_list, not at the list alone")
    image_size_seg: Count = Field(4, description="step of those resolutions, pixels")
    img_size: Pixels | None = Field(None, description="resolution of the one sub-network; default: the largest")
    valid_image_size_list: Listed[Pixels] | None = Field(None, min_length=1, description="validation resolutions")
    valid_genotypes: Listed[Genotype] | None = Field(
        None, min_length=1, description="sub-networks to validate; default: smallest, middle, largest")
    valid_ce_loss: bool = Field(True, description="validate with plain cross entropy instead of training's loss")
    validation_frequency: Count = Field(1, description="epochs from one validation to the next")
    print_frequency: Count = Field(20, description="steps from one line of the log to the next")
    calibration_images: Count = Field(2000, description="training pictures that recalibrate batch norm")
    checkpoint_every: float | None = Field(10.0, gt=0, le=1e6, description="minutes from one checkpoint to the next, "
                                           "beside one after each epoch; null: none")
    checkpoint_every_steps: int | None = Field(None, ge=1, description="steps of an epoch from one to the next")
    setbacks: int = Field(3, ge=0, le=100, description="times in a row that training goes back to the last validated "
                          "epoch, where a loss is not finite or the largest sub-network falls to chance; 0: it ends")
    setback_rate: float = Field(0.5, gt=0, le=1, description="factor of the learning rate from each setback on")
    setback_clip: float | None = Field(None, gt=0, description="largest norm of all gradients from the first on")

    lambda_kd: float = Field(0.0, ge=0, le=1000, description="weight of the distillation loss; 0: no teacher")
    kd_loss: Literal["cross_entropy", "alpha"] = Field("cross_entropy", description="distillation loss; alpha: "
                                                       "AlphaNet's clipped alpha-divergence")
    teacher_network: NetworkChoice | None = Field(None, description="the teacher, usually the full net")
    teacher_mode: Literal["train", "eval"] = Field("train", description="whether the teacher normalises by the "
                                                   "batch's statistics, as NNablaNAS's does, or by its own")

    input_shapes: Listed[Listed[Count]] | None = Field(None, description="NNablaNAS's input shapes")
    target_shapes: Listed[Listed[Count]] | None = Field(None, description="NNablaNAS's label shapes")
    loss_weights: Listed[float] | None = Field(None, description="NNablaNAS's weights of several losses")
    warmup: int | None = Field(None, ge=0, description="NNablaNAS's warm-up of an architecture search")
    step_decay_rate: float | None = Field(None, gt=0, le=1, description="of StepScheduler: factor of the learning rate")
    epoch_steps: int | None = Field(None, ge=1, description="of StepScheduler: every so many epochs")
    regularizer: dict[str, Any] | None = Field(None, description="NNablaNAS's latency or memory term")

    @field_validator("mini_batch_train", "mini_batch_valid", mode="before")
    @classmethod
    def _whole_batch(cls, value: Any, info: ValidationInfo) -> Any:
        return info.data.get(str(info.field_name).replace("mini_batch", "batch_size"), 1) if value is None else value

    @model_validator(mode="after")
    def _fit_together(self) -> Hparams:
        for part in ("train", "valid"):
            batch, mini = getattr(self, f"batch_size_{part}"), getattr(self, f"mini_batch_{part}")
            if batch % mini:
                raise UserError(f"batch_size_{part}", f"{batch} is not a multiple of mini_batch_{part}, {mini}",
                                f"{max(1, batch // mini) * mini} is")
        if self.cosine_warmup_epoch > self.epoch:
            raise UserError("cosine_warmup_epoch", f"{self.cosine_warmup_epoch} is above epoch, {self.epoch}",
                            "epoch counts the warm-up")
        return self


def decay_exemptions(keys: tuple[str, ...] | str) -> list[re.Pattern[str]]:
    """What to search for in NNablaNAS's parameter names, from either form of `no_decay_keys`.

    In the older form a part is a substring and `bias` another name of `_b`. A part that begins with `_` stands at
    the start of an array's name: plain substrings would find `_b` in `inverted_bottleneck`.
    """
    if not isinstance(keys, str):
        return [re.compile(key) for key in keys]
    parts = ["_b" if part == "bias" else part for part in keys.split("#")]
    return [re.compile(("(?:^|/)" if part.startswith("_") else "") + re.escape(part)) for part in parts]
