"""LiteRT (TensorFlow Lite) graphs of a sub-network, written from its plan as a FlatBuffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from onceforall.space import BlockPlan, Layer
from onceforall.space.parts import Part, Pool, input_shape
from onceforall.space.plan import CLASSIFIER, EXCITE, REDUCE

SIGNATURE, FORMAT = "serving_default", b"TFL3"
ENDS = "input", "output"  # what the tensors before and behind the parts are named after
Values = Callable[[Layer, str], NDArray[np.float32]]
Numbers = NDArray[Any]
_OP, _ACT = schema.BuiltinOperator, schema.ActivationFunctionType
_FUSED = {None: _ACT.NONE, "relu": _ACT.RELU, "relu6": _ACT.RELU6}
_TYPES = {"float32": schema.TensorType.FLOAT32, "float16": schema.TensorType.FLOAT16, "int32": schema.TensorType.INT32,
          "uint8": schema.TensorType.UINT8}
_ACTS = {"relu": (_OP.RELU, None), "relu6": (_OP.RELU6, None), "hswish": (_OP.HARD_SWISH, schema.HardSwishOptionsT),
         "sigmoid": (_OP.LOGISTIC, None), "gelu": (_OP.GELU, schema.GeluOptionsT)}  # GELU's own is the exact one
_VALID, _SAME = schema.Padding.VALID, schema.Padding.SAME


def graph(parts: Sequence[Part], values: Values, *, batch: int = 1, half: bool = False,
          names: tuple[str, str] = ("images", "out"), metadata: tuple[str, str] | None = None,
          pixels: tuple[Numbers, Numbers] | None = None, softmax: bool = False) -> bytes:
    """The parts one after another, from input (batch, side, side, channels), normalisation folded into convolutions.

    Args:
        parts: of a plan.
        values: gives the numbers of a layer, "weight" as torch has them, or "bias".
        batch: pictures of one inference; 0: any number.
        half: whether weights are stored as float16. They are widened before they are used.
        names: of the input and the output.
        metadata: a name and a text that the file holds beside the graph.
        pixels: by what bytes are multiplied, and what is added to them then, for each channel; None where the input is
            floats.
        softmax: whether the output is probabilities.

    Returns:
        The file's bytes.
    """
    writer = _Writer(values, open_batch=not batch, half=half)
    channels, side, _ = input_shape(parts[0])
    shape = (batch or 1, side, side, channels)
    x = source = writer.tensor(names[0], shape, "float32" if pixels is None else "uint8")
    if pixels is not None:
        scale, shift = (writer.constant(f"{ENDS[0]}.{name}", value)
                        for name, value in zip(("scale", "shift"), pixels, strict=True))
        floats = writer.node(_OP.CAST, f"{ENDS[0]}.floats", [x], shape, schema.CastOptionsT(
            inDataType=schema.TensorType.UINT8, outDataType=schema.TensorType.FLOAT32))
        x = writer.add(f"{ENDS[0]}.shifted", writer.mul(f"{ENDS[0]}.scaled", floats, scale), shift)
    for part in parts:
        x = writer.part(x, part)
    if softmax:
        x = writer.node(_OP.SOFTMAX, f"{ENDS[1]}.softmax", [x], writer.shape(x), schema.SoftmaxOptionsT(beta=1.0))
    writer.tensors[x].name = names[1]
    buffers, model = writer.buffers, schema.ModelT()
    model.version, model.description, model.buffers = 3, "onceforall", buffers
    model.operatorCodes = [schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=1)
                           for code in writer.codes]
    model.subgraphs = [schema.SubGraphT(name="main", tensors=writer.tensors, inputs=[source], outputs=[x],
                                        operators=writer.operators)]
    ends = [[schema.TensorMapT(name=name, tensorIndex=index)] for name, index in zip(names, (source, x), strict=True)]
    model.signatureDefs = [schema.SignatureDefT(inputs=ends[0], outputs=ends[1], signatureKey=SIGNATURE)]
    if metadata is not None:
        buffers.append(schema.BufferT(data=np.frombuffer(metadata[1].encode(), np.uint8)))
        model.metadata = [schema.MetadataT(name=metadata[0], buffer=len(buffers) - 1)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), FORMAT)
    return bytes(builder.Output())


class _Writer:
    """The tensors and operators so far. Most methods add some, and give the number of the tensor that they end in."""

    def __init__(self, values: Values, *, open_batch: bool, half: bool) -> None:
        self._values, self._open, self._half = values, open_batch, half
        self.tensors: list[Any] = []
        self.buffers: list[Any] = [schema.BufferT()]  # number 0 is the empty one
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}

    def part(self, x: int, part: Part) -> int:
        if isinstance(part, Pool):
            return self.mean(x, "pool")
        if isinstance(part, BlockPlan):
            return self.block(x, part)
        return self.linear(x, part) if part.role == CLASSIFIER else self.conv(x, part)

    def linear(self, x: int, layer: Layer) -> int:
        shape = self.constant(f"{layer.name}.shape", np.array([-1, layer.inputs], np.int32))
        flat = self.node(_OP.RESHAPE, f"{layer.name}.flat", [x, shape], (self.shape(x)[0], layer.inputs),
                         schema.ReshapeOptionsT(newShape=[-1, layer.inputs]))
        weight = self.weight(layer, self._values(layer, "weight").reshape(layer.outputs, layer.inputs))
        return self.node(_OP.FULLY_CONNECTED, layer.name, [flat, weight, self.bias(layer)],
                         (self.shape(x)[0], layer.outputs), schema.FullyConnectedOptionsT())

    def block(self, x: int, plan: BlockPlan) -> int:
        """A block, as `nn.subnet.PlainBlock` computes it."""
        out = x
        for layer in plan.path:
            if layer.role == REDUCE:
                gate = self.conv(self.mean(out, layer.name), layer)
            elif layer.role == EXCITE:
                out = self.mul(f"{plan.name}.gated", out, self.conv(gate, layer))
            else:
                out = self.conv(out, layer)
        if plan.residual:
            shortcut = x if plan.shortcut is None else self.conv(x, plan.shortcut)
            out = self.add(f"{plan.name}.sum", shortcut, out)
        return self.act(plan.name, out, plan.act)

    def conv(self, x: int, layer: Layer) -> int:
        if layer.act_first:
            x = self.act(f"{layer.name}.first", x, layer.act)
        if layer.pool == "mean":  # a border window has the pixels that there are
            x = self.pool(x, layer, _OP.AVERAGE_POOL_2D, layer.stride)
        x, padding, side = self.padded(x, layer)
        own = self._values(layer, "weight").reshape(layer.outputs, layer.inputs // layer.groups, *[layer.kernel] * 2)
        act = None if layer.act_first else layer.act
        fused = act if act in _FUSED else None
        common = {"padding": padding, "strideW": layer.conv_stride, "strideH": layer.conv_stride,
                  "fusedActivationFunction": _FUSED[fused]}
        if layer.depthwise:
            code, weight = _OP.DEPTHWISE_CONV_2D, self.weight(layer, own.transpose(1, 2, 3, 0))
            options = schema.DepthwiseConv2DOptionsT(depthMultiplier=layer.outputs // layer.inputs, **common)
        else:  # grouped where the weight has fewer inputs than the map
            code, weight = _OP.CONV_2D, self.weight(layer, own.transpose(0, 2, 3, 1))
            options = schema.Conv2DOptionsT(**common)
        out = self.node(code, layer.name, [x, weight, self.bias(layer)],
                        (self.shape(x)[0], side, side, layer.outputs), options)
        if fused is None:
            out = self.act(layer.name, out, act)
        return self.pool(out, layer, _OP.MAX_POOL_2D, 2, window=3, edge=1) if layer.pool == "max" else out

    def padded(self, x: int, layer: Layer) -> tuple[int, int, int]:
        """The map that the convolution is given, LiteRT's rule of padding, and the side of the convolution's output.

        Zeros are put around the map if that rule has others.
        """
        batch, size, _, channels = self.shape(x)
        start, end = layer.pads(size)
        side = (size + start + end - layer.kernel) // layer.conv_stride + 1
        covered = max((side - 1) * layer.conv_stride + layer.kernel - size, 0)
        if (covered // 2, covered - covered // 2) == (start, end):
            return x, _SAME, side
        out = self.node(_OP.PAD, f"{layer.name}.padded", [x, self.edges(f"{layer.name}.zeros", start, end)],
                        (batch, size + start + end, size + start + end, channels), schema.PadOptionsT())
        return out, _VALID, side

    def pool(self, x: int, layer: Layer, code: int, stride: int, *, window: int | None = None, edge: int = 0) -> int:
        """The mean or largest value of windows, which are as large as the stride where no size is given.

        `edge`: how far the first and the last window reach over the map, where there is nothing to take.
        """
        window = window or stride
        batch, size, _, channels = self.shape(x)
        side, padding = -(-size // stride), _SAME
        if edge and (side - 1) * stride + window - size != 2 * edge:  # the rule "same" would begin elsewhere
            lowest = self.constant(f"{layer.name}.lowest", np.array(np.finfo(np.float32).min, np.float32))
            x = self.node(_OP.PADV2, f"{layer.name}.edge", [x, self.edges(f"{layer.name}.edges", edge, edge), lowest],
                          (batch, size + 2 * edge, size + 2 * edge, channels), schema.PadV2OptionsT())
            side, padding = (size + 2 * edge - window) // stride + 1, _VALID
        return self.node(code, f"{layer.name}.pool", [x], (batch, side, side, channels), schema.Pool2DOptionsT(
            padding=padding, strideW=stride, strideH=stride, filterWidth=window, filterHeight=window))

    def act(self, place: str, x: int, kind: str | None) -> int:
        if kind is None:
            return x
        name, shape = f"{place}.{kind}", self.shape(x)
        if kind in _ACTS:
            code, options = _ACTS[kind]
            return self.node(code, name, [x], shape, options() if options else None)
        if kind == "hsigmoid":  # relu6(x + 3) / 6
            shifted = self.add(f"{name}.shifted", x, self.number(f"{name}.3", 3), "relu6")
            return self.mul(name, shifted, self.number(f"{name}.6", 1 / 6))
        if kind == "swish":
            return self.mul(name, x, self.node(_OP.LOGISTIC, f"{name}.sigmoid", [x], shape))
        power = self.node(_OP.EXP, f"{name}.exp", [x], shape, schema.ExpOptionsT())  # mish: x tanh(log(1 + exp(x)))
        grown = self.node(_OP.LOG, f"{name}.log", [self.add(f"{name}.plus", power, self.number(f"{name}.1", 1))], shape)
        return self.mul(name, x, self.node(_OP.TANH, f"{name}.tanh", [grown], shape))

    def mean(self, x: int, name: str) -> int:
        batch, _, _, channels = self.shape(x)
        axes = self.constant(f"{name}.axes", np.array([1, 2], np.int32))
        return self.node(_OP.MEAN, f"{name}.mean", [x, axes], (batch, 1, 1, channels),
                         schema.ReducerOptionsT(keepDims=True))

    def mul(self, name: str, x: int, y: int) -> int:
        return self.node(_OP.MUL, name, [x, y], self.shape(x), schema.MulOptionsT())

    def add(self, name: str, x: int, y: int, act: str | None = None) -> int:
        return self.node(_OP.ADD, name, [x, y], self.shape(x), schema.AddOptionsT(fusedActivationFunction=_FUSED[act]))

    def number(self, name: str, value: float) -> int:
        return self.constant(name, np.array([value], np.float32))

    def edges(self, name: str, start: int, end: int) -> int:
        return self.constant(name, np.array([[0, 0], [start, end], [start, end], [0, 0]], np.int32))

    def bias(self, layer: Layer) -> int:
        there = layer.bias or layer.norm
        return self.constant(f"{layer.name}.bias",
                             self._values(layer, "bias") if there else np.zeros(layer.outputs, np.float32))

    def weight(self, layer: Layer, values: Numbers) -> int:
        name, values = f"{layer.name}.weight", np.ascontiguousarray(values)
        if not self._half:
            return self.constant(name, values)
        stored = self.constant(f"{name}.half", values.astype(np.float16))
        return self.node(_OP.DEQUANTIZE, name, [stored], values.shape, batched=False)

    def constant(self, name: str, values: Numbers) -> int:
        self.buffers.append(schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        return self.tensor(name, values.shape, values.dtype.name, buffer=len(self.buffers) - 1, batched=False)

    def node(self, code: int, name: str, inputs: Sequence[int], shape: Sequence[int], options: Any = None, *,
             batched: bool = True) -> int:
        """An operator, and the tensor that it gives, which is called `name`."""
        out = self.tensor(name, shape, batched=batched)
        kind = getattr(schema.BuiltinOptions, type(options).__name__[:-1]) if options else schema.BuiltinOptions.NONE
        self.operators.append(schema.OperatorT(
            opcodeIndex=self.codes.setdefault(code, len(self.codes)), inputs=list(inputs), outputs=[out],
            builtinOptions=options, builtinOptionsType=kind))
        return out

    def tensor(self, name: str, shape: Sequence[int], kind: str = "float32", *, buffer: int = 0,
               batched: bool = True) -> int:
        self.tensors.append(schema.TensorT(name=name, shape=list(shape), type=_TYPES[kind], buffer=buffer))
        if batched and self._open:
            self.tensors[-1].shapeSignature = [-1, *shape[1:]]
        return len(self.tensors) - 1

    def shape(self, x: int) -> tuple[int, ...]:
        return tuple(self.tensors[x].shape)
