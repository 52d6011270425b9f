"""Units: what the forward pass of a network of others is taken apart into."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, eq=False)
class Unit:
    """A convolution or linear layer, with the normalisation and the activation after it.

    `name`: its path in the module; `pool`: "mean" before it or "max" after it; `padded`: zeros are added before it.
    """

    name: str
    layer: nn.Conv2d | nn.Linear
    norm: nn.BatchNorm2d | nn.BatchNorm1d | None = None
    act: str | None = None
    pool: str | None = None
    padded: bool = False

    @property
    def kernel(self) -> int:
        return self.layer.kernel_size[0] if isinstance(self.layer, nn.Conv2d) else 1

    @property
    def stride(self) -> int:
        return self.layer.stride[0] if isinstance(self.layer, nn.Conv2d) else 1

    @property
    def groups(self) -> int:
        return self.layer.groups if isinstance(self.layer, nn.Conv2d) else 1

    @property
    def inputs(self) -> int:
        return self.layer.in_channels if isinstance(self.layer, nn.Conv2d) else self.layer.in_features

    @property
    def outputs(self) -> int:
        return self.layer.out_channels if isinstance(self.layer, nn.Conv2d) else self.layer.out_features

    @property
    def depthwise(self) -> bool:
        return self.groups == self.inputs == self.outputs > 1


@dataclass(frozen=True, eq=False)
class Squeeze:
    """A squeeze-and-excitation gate."""

    reduce: Unit
    excite: Unit


@dataclass(frozen=True, eq=False)
class Residual:
    """A path whose input is added to what it gives, through the `shortcut` where there is one; the activation after."""

    path: tuple[Step, ...]
    shortcut: Unit | None
    act: str | None = None


class GlobalMean:
    """The mean over the map."""


Step = Unit | Squeeze | Residual | GlobalMean
