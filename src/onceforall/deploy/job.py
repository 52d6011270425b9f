"""What every target is given: the net with its normalisation folded in, and how it is to be written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onceforall.deploy.description import Description, Precision
from onceforall.deploy.ends import PLAIN, Ends, Fed, Images
from onceforall.nn import Subnet
from onceforall.space import Layer

INPUT = "images"
NAME = "onceforall"  # of the metadata in an exported file
Infer: TypeAlias = Callable[[Fed], Images]  # what the file takes, contiguous, to what it gives (B, classes): see `Ends`


@dataclass(frozen=True, eq=False)
class Job:
    """What a target is given to write.

    Args:
        net: the net on the CPU, in evaluation mode, with its normalisation folded in.
        about: what its folder says of it.
        precision: fp32, fp16 or int8.
        batch: pictures of one inference; 0: any number.
        ends: what the file takes and gives.
        calibration: batches of training pictures for int8, as the file takes them; empty for other precisions.
        full_range: whether int8 weights have 8 bits, and not 7.
        keep: layers and blocks that int8 leaves in float.
    """

    net: Subnet
    about: Description
    precision: Precision = "fp32"
    batch: int = 0
    ends: Ends = PLAIN
    calibration: Sequence[Fed] = ()
    full_range: bool = False
    keep: tuple[str, ...] = ()

    def numbers(self, layer: Layer, kind: str) -> NDArray[np.float32]:
        """The "weight" or the "bias" of a layer, in torch's order of axes."""
        module = self.net.get_submodule(layer.name)
        found: NDArray[np.float32] = getattr(getattr(module, "conv", module), kind).detach().numpy()
        return found

    @property
    def metadata(self) -> str:
        """What the file itself says, as JSON: how to feed it, and what its outputs mean."""
        return json.dumps({"arch": self.about.arch, "input": INPUT, "output": self.ends.output,
                           "type": self.ends.kind, "precision": self.precision,
                           "preprocessing": self.about.preprocessing.model_dump(), "classes": self.about.classes})

