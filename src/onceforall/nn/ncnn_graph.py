"""ncnn graphs of a sub-network, written from its plan: the text of the .param file and the bytes of the .bin file.

Both forms, and the numbers of layers' parameters, are those of ncnn's developer guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from onceforall.space import BlockPlan, Layer
from onceforall.space.parts import Part, Pool, input_shape
from onceforall.space.plan import CLASSIFIER, EXCITE, REDUCE

Values = Callable[[Layer, str], NDArray[np.float32]]
_MAGIC = 7767517
_FLOAT32, _FLOAT16 = np.uint32(0), np.uint32(0x01306B47)  # what stands before weights, but not before biases
_SLOPE = f"{1 / 6:.9g}"
_FUSED = {"relu": "9=1", "relu6": "9=3 -23310=2,0.0,6.0", "sigmoid": "9=4", "mish": "9=5",
          "hswish": f"9=6 -23310=2,{_SLOPE},0.5"}
_ACTS = {"relu": "ReLU", "relu6": "Clip 0=0.0 1=6.0", "hswish": f"HardSwish 0={_SLOPE} 1=0.5", "swish": "Swish",
         "sigmoid": "Sigmoid", "hsigmoid": f"HardSigmoid 0={_SLOPE} 1=0.5", "gelu": "GELU", "mish": "Mish"}
_ADD, _MUL = "BinaryOp 0=0", "BinaryOp 0=2"


def graph(parts: Sequence[Part], values: Values, *, half: bool = False,
          names: tuple[str, str] = ("images", "out"), softmax: bool = False) -> tuple[str, bytes]:
    """The parts one after another, from one input (channels, side, side), normalisation folded into convolutions.

    Args:
        parts: of a plan.
        values: gives the numbers of a layer, "weight" as torch has them, or "bias".
        half: whether weights are stored as float16.
        names: of the input and the output.
        softmax: whether the output is probabilities.

    Returns:
        The text of the .param file, and the bytes of the .bin file.
    """
    writer = _Writer(values, half=half)
    channels, height, width = input_shape(parts[0])
    x = writer.node(f"Input 0={width} 1={height} 2={channels}", names[0], name=names[0])
    for part in parts:
        x = writer.part(x, part)
    if softmax:
        x = writer.node("Softmax 0=0", "output", x)
    return writer.text(x, names[1]), b"".join(writer.numbers)


class _Writer:
    """The layers so far. Most methods add some, and give the name of the map that they end in.

    A map has one reader in ncnn. What two layers read is split first.
    """

    def __init__(self, values: Values, *, half: bool) -> None:
        self._values, self._half, self._count = values, half, count()
        self._layers: list[tuple[str, str, Sequence[str], Sequence[str]]] = []
        self.numbers: list[bytes] = []

    def text(self, last: str, name: str) -> str:
        """The .param file, in which the map `last` is called `name`."""
        maps = sum(len(outputs) for *_, outputs in self._layers)
        lines = [str(_MAGIC), f"{len(self._layers)} {maps}"]
        for kind, place, inputs, outputs in self._layers:
            word, _, numbers = kind.partition(" ")
            ends = [name if end == last else end for end in (*inputs, *outputs)]
            lines.append(" ".join([word, place, str(len(inputs)), str(len(outputs)), *ends, numbers]).rstrip())
        return "\n".join([*lines, ""])

    def part(self, x: str, part: Part) -> str:
        if isinstance(part, Pool):
            return self.mean(x, "pool")
        if isinstance(part, BlockPlan):
            return self.block(x, part)
        return self.linear(x, part) if part.role == CLASSIFIER or part.size == 1 else self.conv(x, part)

    def block(self, x: str, plan: BlockPlan) -> str:
        """A block, as `nn.subnet.PlainBlock` computes it."""
        out, shortcut = self.split(x) if plan.residual else (x, x)
        for layer in plan.path:
            if layer.role == REDUCE:
                out, gate = self.split(out)
                gate = self.linear(self.mean(gate, layer.name), layer)
            elif layer.role == EXCITE:
                gate = self.node(f"Reshape 0=1 1=1 2={layer.outputs}", layer.name, self.linear(gate, layer))
                out = self.node(_MUL, plan.name, out, gate)
            else:
                out = self.conv(out, layer)
        if plan.residual:
            shortcut = shortcut if plan.shortcut is None else self.conv(shortcut, plan.shortcut)
            out = self.node(_ADD, plan.name, shortcut, out)
        return out if plan.act is None else self.node(_ACTS[plan.act], plan.name, out)

    def conv(self, x: str, layer: Layer) -> str:
        size = layer.size
        if layer.pool == "mean":  # windows that the border cuts, and their mean without what lies outside
            x, size = self.node(f"Pooling 0=1 1={layer.stride} 2={layer.stride} 5=0", layer.name, x), layer.conv_size
        start, end = layer.pads(size)
        weights = layer.outputs * (layer.inputs // layer.groups) * layer.kernel ** 2
        kind = "Convolution" if layer.groups == 1 else f"ConvolutionDepthWise 7={layer.groups}"
        out = self.weighted(f"{kind} 0={layer.outputs} 1={layer.kernel} 3={layer.conv_stride} 4={start} 14={start} "
                            f"15={end} 16={end} 5=1 6={weights}", x, layer)
        return self.node("Pooling 0=0 1=3 2=2 3=1 5=1", layer.name, out) if layer.pool == "max" else out

    def linear(self, x: str, layer: Layer) -> str:
        """A layer on a vector: the classifier, a gate's, or one after the mean."""
        return self.weighted(f"InnerProduct 0={layer.outputs} 1=1 2={layer.outputs * layer.inputs}", x, layer)

    def weighted(self, kind: str, x: str, layer: Layer) -> str:
        """A layer with numbers of its own, and its activation, which ncnn computes with it where it can."""
        if layer.act_first and layer.act is not None:
            x = self.node(_ACTS[layer.act], layer.name, x)
        act = None if layer.act_first else layer.act
        there = layer.bias or layer.norm
        self.weight(self._values(layer, "weight"))
        self.numbers.append((self._values(layer, "bias") if there else np.zeros(layer.outputs, np.float32)).tobytes())
        out = self.node(f"{kind} {_FUSED.get(act or '', '')}", layer.name, x)
        return out if act is None or act in _FUSED else self.node(_ACTS[act], layer.name, out)

    def weight(self, values: NDArray[np.float32]) -> None:
        content = values.astype(np.float16 if self._half else np.float32).tobytes()
        self.numbers += [(_FLOAT16 if self._half else _FLOAT32).tobytes(), content, b"\0" * (-len(content) % 4)]

    def mean(self, x: str, place: str) -> str:
        """The mean of each channel: a vector."""
        return self.node("Pooling 0=1 4=1", place, x)

    def split(self, x: str) -> tuple[str, str]:
        number = next(self._count)
        ends = f"split_{number}_a", f"split_{number}_b"
        self._layers.append(("Split", f"split_{number}", [x], ends))
        return ends

    def node(self, kind: str, place: str, *inputs: str, name: str = "") -> str:
        """A layer in the place of that name. `kind`: its type and parameters, as the file has them; `name`: of its
        output."""
        out = name or f"{kind.partition(' ')[0]}_{next(self._count)}"
        self._layers.append((kind, f"{place}/{out}", inputs, [out]))
        return out
