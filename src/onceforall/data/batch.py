"""A batch of pictures that carries its own resolution, and its normalisation on the device."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onceforall.data.decode import Broken, BrokenLog
from onceforall.data.spec import Colour


@dataclass(frozen=True, eq=False)
class Batch:
    """Images (B, 3, R, R) and labels (B,) int64 at `resolution` R.

    Images are float32 in [0, 1] for pictures in memory and uint8 for picture files: `normalize` takes both.
    """

    images: Tensor
    labels: Tensor
    resolution: int

    def __len__(self) -> int:
        return len(self.labels)

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory; torch's DataLoader calls this."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.resolution)

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes: images that lie in shared memory stay there, all else travels as bytes."""
        images = self.images if self.images.is_shared() else self.images.numpy()  # type: ignore[no-untyped-call]
        return _arrived, (images, self.labels.numpy(), self.resolution)


def _arrived(images: Tensor | NDArray[Any], labels: NDArray[np.int64], resolution: int) -> Batch:
    return Batch(torch.as_tensor(images), torch.as_tensor(labels), resolution)


class Loaded(NamedTuple):
    """What a worker hands over: the batch (None if no picture could be read) and the broken files it met; `piped`:
    shared memory was too full for the images.

    Values rather than exceptions and log records, which get lost or garbled between processes.
    """

    batch: Batch | None
    broken: tuple[Broken, ...]
    piped: bool = False

    def checked(self, log: BrokenLog) -> Batch | None:
        """The batch. `log` notes the broken files first."""
        for fault in self.broken:
            log.note(fault)
        return self.batch


def normalize(images: Tensor, mean: Colour, std: Colour, device: torch.device | str = "cpu") -> Tensor:
    """Images (B, 3, R, R), uint8 or float in [0, 1], as (image - mean) / std on `device`, float32, channels last."""
    scale = 255 if images.dtype == torch.uint8 else 1
    # bytes travel, floats are made on the device
    there = images.to(device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last, copy=True)
    rows = there.permute(0, 2, 3, 1).flatten(2)  # (B, R, 3 R): three constants after another would be slow
    for apply, values in ((rows.sub_, mean), (rows.div_, std)):
        apply(torch.tensor(values).mul_(scale).repeat(there.shape[3]).to(device, non_blocking=True))
    return there
