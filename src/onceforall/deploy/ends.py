"""What an exported file takes and gives: normalised images or an app's own pixels, logits or probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from onceforall.data.spec import Colour

Images: TypeAlias = NDArray[np.float32]
Fed: TypeAlias = NDArray[np.float32] | NDArray[np.uint8]
LOGITS, PROBABILITIES = "logits", "probabilities"


@dataclass(frozen=True)
class Ends:
    """What a file takes and gives.

    Args:
        mean: what is subtracted from each channel, of values in [0, 1].
        std: what each channel is divided by then.
        pixels: whether the file takes RGB bytes (B, H, W, 3), which it normalises itself, and not normalised images
            (B, 3, H, W).
        softmax: whether it gives probabilities, and not logits.
    """

    mean: Colour = (0.0, 0.0, 0.0)
    std: Colour = (1.0, 1.0, 1.0)
    pixels: bool = False
    softmax: bool = False

    @property
    def kind(self) -> Literal["float32", "uint8"]:
        """The type of the numbers that the file takes."""
        return "uint8" if self.pixels else "float32"

    @property
    def layout(self) -> Literal["NCHW", "NHWC"]:
        """The order of the axes of what it takes."""
        return "NHWC" if self.pixels else "NCHW"

    @property
    def output(self) -> str:
        """The name of what it gives."""
        return PROBABILITIES if self.softmax else LOGITS

    @property
    def affine(self) -> tuple[Images, Images] | None:
        """By what bytes are multiplied, and what is added then, for each channel; None where it takes no bytes."""
        if not self.pixels:
            return None
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def fed(self, images: Images) -> Fed:
        """What the file is given, of normalised images (B, 3, H, W)."""
        if not self.pixels:
            return images
        shares = images.transpose(0, 2, 3, 1) * np.array(self.std, np.float32) + np.array(self.mean, np.float32)
        return np.ascontiguousarray(np.rint(255 * shares).clip(0, 255).astype(np.uint8))

    def seen(self, images: Images) -> Images:
        """What the net itself sees of normalised images (B, 3, H, W): for bytes they are rounded."""
        if self.affine is None:
            return images
        scale, shift = self.affine
        found: Images = np.ascontiguousarray((self.fed(images) * scale + shift).transpose(0, 3, 1, 2))
        return found

    def given(self, logits: Images) -> Images:
        """What the file is to give for the net's logits (B, classes)."""
        if not self.softmax:
            return logits
        powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
        return np.asarray(powers / powers.sum(1, keepdims=True), np.float32)


PLAIN = Ends()
