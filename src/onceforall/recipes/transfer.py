"""Transfer: the recipe that starts from a pretrained network: all of it tuned on the pictures, then shrunk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from onceforall.data import Augment, DataSpec
from onceforall.errors import UserError
from onceforall.pretrained.reading import outline
from onceforall.pretrained.table import DEFAULT, Choices
from onceforall.recipes.preset import check_scale
from onceforall.training.network import Network
from onceforall.training.recipe import Recipe
from onceforall.training.settings import Loss, Mixing, Optimizer, Schedule
from onceforall.training.stage import Batches, Stage

TUNED, SHRUNK = "tuned", "shrunk"  # the stages' folders
CPU_SIZES = (64, 80, 96, 112, 128)
GPU_SHARES = (4 / 7, 5 / 7, 6 / 7)  # of the source's own size: 128, 160 and 192 pixels of 224
BATCH, STEPS = 32, (1800, 5000)  # pictures a step; steps of both stages
WARM = Schedule(warmup_share=0.1)  # at the full rate from the first step on, what was pretrained is lost
MANY = 60  # epochs; pictures that are seen more often are mixed, since a network learns them by heart
AUGMENT = Augment(crop_scale=(0.5, 1.0), brightness=0.0, saturation=0.0)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A recipe of two stages: the largest sub-network is tuned, then it teaches the others.

    Args:
        source: a pretrained network, as `from_pretrained` takes it.
        sizes: pixels; None: on a GPU the source's own, and three smaller ones where it has only one; on a CPU 64 to
            128, or the source's own where none of them is larger.
        choices: what becomes elastic.
        scale: factor of all epochs.
        seed: of both stages.
        balanced: whether every class is drawn equally often.
    """

    source: str
    sizes: tuple[int, ...] | None = None
    choices: Choices = DEFAULT
    scale: float = 1.0
    seed: int = 0
    balanced: bool = False

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def recipe(self, data: DataSpec, *, pictures: int, num_classes: int, gpu: bool, processes: int = 1,
               unlabelled: int = 0) -> Recipe:
        """The recipe for some pictures.

        Args:
            data: where they are, and how they are augmented; they are normalised as the source's.
            pictures: how many of them train.
            num_classes: of the pictures.
            gpu: whether there is one.
            processes: that share a batch.
            unlabelled: how many more train under the tuned network, without labels.

        Raises:
            UserError: the source cannot be read, or the processes do not divide the batch.
        """
        if BATCH % processes:
            raise UserError("processes", f"{processes} do not divide the recipe's batch of {BATCH}")
        found = outline(self.source, sizes=self.sizes, choices=self.choices)
        space = found.space
        if self.sizes is None:
            space = space.at(_usual(space.resolutions, gpu=gpu))
        tuned, shrunk = (self._epochs(*each) for each in zip(STEPS, (pictures, pictures + unlabelled), strict=True))
        often = shrunk > MANY
        loss, mixing = Loss(kd_weight=1.0, label_weight=0.0 if often else 1.0), Mixing(mixup=1.0 if often else 0.0)
        common: dict[str, Any] = {
            "batches": Batches(size=BATCH // processes, valid=100, calibration=1000, balanced=self.balanced),
            "seed": self.seed}
        return Recipe(
            data=replace(data, mean=found.mean, std=found.std, framing=found.framing), start=self.source,
            network=Network(space=space, num_classes=num_classes, bn_eps=space.bn_eps),
            stages={
                TUNED: Stage(epochs=tuned, optimizer=_adamw(5e-4), schedule=WARM,
                             bn="kept" if found.calibrated else "batch", largest_share=1.0,
                             validate_archs=("largest",), validate_at=space.resolutions,
                             validate_every=max(1, tuned // 2), **common),
                SHRUNK: Stage(epochs=shrunk, optimizer=_adamw(1e-3), schedule=WARM, teacher=TUNED, loss=loss,
                              mixing=mixing, sort="pictures", sampling="spread", largest_share=0.1,
                              validate_at=space.resolutions[-1:], validate_start=True,
                              validate_every=max(1, shrunk // 4), **common)})

    def _epochs(self, steps: int, pictures: int) -> int:
        """The epochs that have so many steps, or nearly: 2 to 120, times the scale."""
        return max(1, round(self.scale * min(120, max(2, round(steps * BATCH / pictures)))))


def _usual(own: tuple[int, ...], *, gpu: bool) -> tuple[int, ...]:
    """The sizes to train at, in pixels, by those of the source."""
    if not gpu:
        return CPU_SIZES if max(own) > max(CPU_SIZES) else own
    if len(own) > 1:
        return own
    return tuple(sorted({*(16 * round(own[0] * share / 16) for share in GPU_SHARES), own[0]}))


def _adamw(lr: float) -> Optimizer:
    return Optimizer(name="adamw", lr=lr, weight_decay=0.05)
