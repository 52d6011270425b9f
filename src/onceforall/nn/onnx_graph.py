"""ONNX graphs of one part, or of a whole sub-network, written from its plan: what is timed without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from onceforall.space import BlockPlan, Layer
from onceforall.space.parts import Part, Pool, input_shape
from onceforall.space.plan import CLASSIFIER, EXCITE, REDUCE

NAMES = "images", "out"
ENDS = "input", "output"  # what the nodes before and behind the parts are named after
OPSET, IR_VERSION = 17, 8  # the newest that onnxruntime 1.13 of 2022 reads, for boards
Tensors = Callable[[Layer, str, tuple[int, ...]], TensorProto]
Affine = tuple[NDArray[np.float32], NDArray[np.float32]]
_ACTS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}), "hswish": ("HardSwish", {}), "hsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "sigmoid": ("Sigmoid", {})}


def graph(parts: Sequence[Part], tensors: Tensors, *, batch: int = 1, half: bool = False,
          names: tuple[str, str] = NAMES, pixels: Affine | None = None, softmax: bool = False) -> ModelProto:
    """The parts one after another, from input (batch, channels, side, side), normalisation folded into convolutions.

    A node's name is that of its layer or block, a slash, and its output.

    Args:
        parts: of a plan.
        tensors: `tensors(layer, kind, shape)` gives an initialiser, `kind` being "weight" or "bias". Its name is
            overwritten.
        batch: pictures of one inference; 0: any number.
        half: whether the initialisers are float16, and everything between input and output is.
        names: of the input and the output.
        pixels: by what bytes (batch, side, side, channels) are multiplied, and what is added to them then, for each
            channel; None where the input is floats.
        softmax: whether the output is probabilities.
    """
    writer = _Writer(tensors, half=half)
    x, kind, shape = names[0], TensorProto.FLOAT, input_shape(parts[0])
    if pixels is not None:
        x, kind = writer.node(ENDS[0], "Transpose", x, perm=[0, 3, 1, 2]), TensorProto.UINT8
        shape = *shape[1:], shape[0]
    if half or pixels is not None:
        x = writer.node(ENDS[0], "Cast", x, to=TensorProto.FLOAT16 if half else TensorProto.FLOAT)
    for operator, values in zip(("Mul", "Add"), pixels or (), strict=False):
        x = writer.node(ENDS[0], operator, x, writer.constant(ENDS[0], values.reshape(1, -1, 1, 1)))
    for part in parts:
        x = writer.part(x, part)
    if half:
        x = writer.node(ENDS[1], "Cast", x, to=TensorProto.FLOAT)
    if softmax:
        writer.node(ENDS[1], "Softmax", x, axis=1)
    writer.nodes[-1].output[0] = names[1]
    infos = [helper.make_tensor_value_info(name, of, [batch or "batch", *sides])
             for name, of, sides in zip(names, (kind, TensorProto.FLOAT), (shape, _result(parts[-1])), strict=True)]
    return helper.make_model(
        helper.make_graph(writer.nodes, "onceforall", infos[:1], infos[1:], writer.initialisers),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="onceforall")


def _result(part: Part) -> tuple[int, ...]:
    """Channels and sides of a part's output; of the classifier the classes alone."""
    if isinstance(part, Pool):
        return part.channels, 1, 1
    layer = part.last if isinstance(part, BlockPlan) else part
    return (layer.outputs,) if layer.role == CLASSIFIER else (layer.outputs, layer.out_size, layer.out_size)


class _Writer:
    """The nodes and initialisers so far; every method adds some and gives the name of the last one's output."""

    def __init__(self, tensors: Tensors, *, half: bool) -> None:
        self._type = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.nodes: list[NodeProto] = []
        self.initialisers: list[TensorProto] = []
        self._tensors, self._count = tensors, count()

    def part(self, x: str, part: Part) -> str:
        if isinstance(part, Pool):
            return self.node("pool", "GlobalAveragePool", x)
        if isinstance(part, BlockPlan):
            return self.block(x, part)
        if part.role == CLASSIFIER:
            flat = self.node(part.name, "Flatten", x)
            return self.node(part.name, "Gemm", flat, *self.weights(part, (part.outputs, part.inputs)), transB=1)
        return self.conv(x, part)

    def block(self, x: str, plan: BlockPlan) -> str:
        """A block, as `nn.subnet.PlainBlock` computes it."""
        out = x
        for layer in plan.path:
            if layer.role == REDUCE:
                gate = self.conv(self.node(plan.name, "GlobalAveragePool", out), layer)
            elif layer.role == EXCITE:
                out = self.node(plan.name, "Mul", out, self.conv(gate, layer))
            else:
                out = self.conv(out, layer)
        if plan.residual:
            shortcut = x if plan.shortcut is None else self.conv(x, plan.shortcut)
            out = self.node(plan.name, "Add", shortcut, out)
        return out if plan.act is None else self.act(plan.name, out, plan.act)

    def conv(self, x: str, layer: Layer) -> str:
        shape = (layer.outputs, layer.inputs // layer.groups, layer.kernel, layer.kernel)
        if layer.act is not None and layer.act_first:
            x = self.act(layer.name, x, layer.act)
        if layer.pool == "mean":  # a border window has the pixels that there are, which padding leaves out of the mean
            end = -layer.size % layer.stride
            x = self.node(layer.name, "AveragePool", x, kernel_shape=[layer.stride] * 2, strides=[layer.stride] * 2,
                          pads=[0, 0, end, end], count_include_pad=0)
        start, end = layer.pads(layer.size if layer.pool != "mean" else layer.conv_size)
        out = self.node(layer.name, "Conv", x, *self.weights(layer, shape), kernel_shape=[layer.kernel] * 2,
                        strides=[layer.conv_stride] * 2, pads=[start, start, end, end], group=layer.groups)
        if layer.act is not None and not layer.act_first:
            out = self.act(layer.name, out, layer.act)
        if layer.pool == "max":
            out = self.node(layer.name, "MaxPool", out, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
        return out

    def act(self, place: str, x: str, kind: str) -> str:
        if kind == "relu6":
            return self.node(place, "Clip", x, self.constant(place, 0.0), self.constant(place, 6.0))
        if kind == "swish":
            return self.node(place, "Mul", x, self.node(place, "Sigmoid", x))
        if kind == "mish":
            return self.node(place, "Mul", x, self.node(place, "Tanh", self.node(place, "Softplus", x)))
        if kind == "gelu":  # x / 2 (1 + erf(x / sqrt 2))
            share = self.node(place, "Erf", self.node(place, "Mul", x, self.constant(place, 0.5 ** 0.5)))
            twice = self.node(place, "Add", share, self.constant(place, 1.0))
            return self.node(place, "Mul", self.node(place, "Mul", x, twice), self.constant(place, 0.5))
        name, attributes = _ACTS[kind]
        return self.node(place, name, x, **attributes)

    def constant(self, place: str, value: float | NDArray[np.float32]) -> str:
        values = np.asarray(value)
        return self.node(place, "Constant", value=helper.make_tensor("", self._type, values.shape, values.flatten()))

    def weights(self, layer: Layer, shape: tuple[int, ...]) -> list[str]:
        found = []
        kinds = {"weight": shape, "bias": shape[:1]} if layer.bias or layer.norm else {"weight": shape}
        for kind, dims in kinds.items():
            tensor = self._tensors(layer, kind, dims)
            tensor.name = f"{layer.name}.{kind}"
            self.initialisers.append(tensor)
            found.append(tensor.name)
        return found

    def node(self, place: str, kind: str, *inputs: str, **attributes: Any) -> str:
        """`place`: the name of the layer or block that it belongs to."""
        out = f"{kind}_{next(self._count)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"{place}/{out}", **attributes))
        return out
