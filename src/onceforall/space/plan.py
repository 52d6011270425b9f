"""Plan: the concrete layers of one sub-network, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from onceforall.errors import UserError
from onceforall.space.rows import Padding

# roles of layers that others look for: the last part of their names
EXPAND, DEPTHWISE, PROJECT, SHORTCUT, CLASSIFIER = "expand", "depthwise", "project", "shortcut", "classifier"
REDUCE, EXCITE = GATE = "reduce", "excite"
ACTIVATIONS = (None, "relu", "relu6", "hswish", "swish", "sigmoid", "hsigmoid", "gelu", "mish")
SE = "se"  # the part of a block that a gate's two layers make


def make_divisible(value: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `value`, not under it by more than a tenth (Howard et al. 2019)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer with what directly belongs to it.

    `name`: its dotted path in supernet and extracted net alike; `size`: side of its square input map in
    pixels; `norm`: batch normalisation follows; `act`: one of ACTIVATIONS, after that, or before the
    convolution where `act_first`; `pool`: "mean" means windows of stride x stride
    before the convolution, which then has no stride; "max" of 3 x 3 at stride 2 at the end; `padding`: the rule for
    zeros around the map, as in `SearchSpace`.
    """

    name: str
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    size: int = 1
    bias: bool = False
    norm: bool = True
    act: str | None = None
    act_first: bool = False
    pool: str | None = None
    padding: Padding = "centre"

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise UserError(f"space {self.name}", f"kernel {self.kernel} is even", "take an odd one")
        if self.act not in ACTIVATIONS:
            known = ", ".join(str(name) for name in ACTIVATIONS[1:])
            raise UserError(f"space {self.name}", f"{self.act!r} is no activation", f"known: {known}")

    @property
    def conv_size(self) -> int:
        """Side of the convolution's output map, by either rule of padding; windows that a border cuts count."""
        return (self.size - 1) // self.stride + 1

    @property
    def out_size(self) -> int:
        """Side of the output map."""
        return (self.conv_size - 1) // 2 + 1 if self.pool == "max" else self.conv_size

    @property
    def conv_stride(self) -> int:
        """The convolution's own stride."""
        return 1 if self.pool == "mean" else self.stride

    def pads(self, size: int) -> tuple[int, int]:
        """Zeros before and after a side of `size` pixels of the map that the convolution is given."""
        if self.padding == "centre":
            return self.kernel // 2, self.kernel // 2
        covered = (-(-size // self.conv_stride) - 1) * self.conv_stride + self.kernel
        total = max(covered - size, 0)
        return total // 2, total - total // 2

    @property
    def uneven(self) -> bool:
        """Whether there may be more zeros at the end than at the start, which depends on the map's size."""
        return self.padding == "same" and self.conv_stride > 1 and self.kernel > 1

    @property
    def depthwise(self) -> bool:
        """Whether each channel has its own filter."""
        return self.groups == self.inputs > 1

    @property
    def role(self) -> str:
        """The last part of the name, such as `depthwise`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class BlockPlan:
    """One block: its layers in the order they run, whether its input is added to its output (`shortcut`: through which
    layer), and the activation after that.

    Layers whose names go on with `se` are a gate (reduce, excite) on what the layer before them gives.
    """

    name: str
    path: tuple[Layer, ...]
    residual: bool
    shortcut: Layer | None = None
    act: str | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All its layers, the shortcut's last."""
        return self.path if self.shortcut is None else (*self.path, self.shortcut)

    @property
    def last(self) -> Layer:
        """The layer whose map leaves the path: the last one that is no gate's."""
        return next(layer for layer in reversed(self.path) if layer.role not in GATE)

    def each(self, change: Callable[[Layer], Layer]) -> BlockPlan:
        """The block with every layer changed."""
        return replace(self, path=tuple(map(change, self.path)),
                       shortcut=None if self.shortcut is None else change(self.shortcut))

    def parts(self) -> dict[str, tuple[Layer, ...]]:
        """The path's layers by the next word of their name: each alone, a gate's two together."""
        out: dict[str, tuple[Layer, ...]] = {}
        for layer in self.path:
            word = layer.name.removeprefix(f"{self.name}.").partition(".")[0]
            out[word] = (*out.get(word, ()), layer)
        return out

    def layer(self, role: str) -> Layer | None:
        """The layer of that role, such as "depthwise"; None if absent."""
        return next((layer for layer in self.layers if layer.role == role), None)

    def __getitem__(self, role: str) -> Layer:
        return next(layer for layer in self.layers if layer.role == role)


@dataclass(frozen=True)
class Plan:
    """All layers of one sub-network, in the order of the forward pass; the global mean stands between `features` and
    `head`, whose last layer is the classifier."""

    resolution: int
    stem: Layer
    first: tuple[BlockPlan, ...]
    stages: tuple[tuple[BlockPlan, ...], ...]
    features: tuple[Layer, ...]
    head: tuple[Layer, ...]

    def blocks(self) -> Iterator[BlockPlan]:
        """Stem blocks, then the elastic stages' blocks."""
        yield from self.first
        for blocks in self.stages:
            yield from blocks

    def layers(self) -> Iterator[Layer]:
        """Every layer, in order."""
        yield self.stem
        for block in self.blocks():
            yield from block.layers
        yield from self.features
        yield from self.head
