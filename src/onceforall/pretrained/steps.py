"""Steps: the forward pass of a module, traced and taken apart into convolutions, gates and shortcuts."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from onceforall.errors import UserError
from onceforall.nn.ops import Pad
from onceforall.pretrained.units import GlobalMean, Residual, Squeeze, Step, Unit

_ACTS: dict[Any, str] = {
    nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "hswish", nn.SiLU: "swish", nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hsigmoid", nn.GELU: "gelu", nn.Mish: "mish",
    F.relu: "relu", F.relu6: "relu6", F.hardswish: "hswish", F.silu: "swish", F.sigmoid: "sigmoid",
    F.hardsigmoid: "hsigmoid", F.gelu: "gelu", F.mish: "mish", torch.relu: "relu", torch.sigmoid: "sigmoid",
    "relu": "relu", "relu_": "relu", "sigmoid": "sigmoid", "sigmoid_": "sigmoid"}
_NAMES = {"HardSwish": "hswish", "Swish": "swish", "HardSigmoid": "hsigmoid", "Sigmoid": "sigmoid",
          "GELU": "gelu", "Mish": "mish"}  # timm's own classes, by their names
_ADDS = {operator.add, operator.iadd, torch.add, "add", "add_"}
_MULS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}
NO_BLOCK = "no block here computes that"
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)
_MAX_POOLS = ((3, 2, 1), ((3, 3), (2, 2), (1, 1)))  # kernel, stride, padding
_NO_WORK = {torch.flatten, F.dropout, "flatten", "contiguous", "view", "reshape", "expand_as"}
_LEAVES = (Pad, nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d, nn.MaxPool2d, nn.AvgPool2d,
           nn.AdaptiveAvgPool2d, nn.ZeroPad2d)


def steps_of(module: nn.Module) -> list[Step]:
    """The forward pass of a classifying module in eval mode.

    Raises:
        UserError: it cannot be traced, or computes what no step is; the place names the layer.
    """
    try:
        graph = _Tracer().trace(module)
    except (TypeError, ValueError, RuntimeError, AttributeError, NameError) as error:
        raise UserError(type(module).__name__, f"cannot be traced ({' '.join(str(error).split())[:200]})",
                        "its forward pass must not depend on its pictures' values") from None
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(output, fx.Node):
        raise UserError(type(module).__name__, "does not answer with one tensor", "give a classifier")
    return _Parser(module).back(output, None)


class _Tracer(fx.Tracer):
    """Traces into every module but torch's layers, activations, and what does nothing in eval mode."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (*_LEAVES, *_NOTHING)) or _act_of(m) is not None or _is_drop_path(m)


def _is_drop_path(module: nn.Module) -> bool:
    return type(module).__name__ in ("DropPath", "StochasticDepth", "DropBlock2d")


def _act_of(module: nn.Module) -> str | None:
    return _ACTS.get(type(module)) or _NAMES.get(type(module).__name__)


class _Parser:
    """Walks a graph backwards from a node. `pending` has the normalisation, activation and pooling that were met before
    their convolution."""

    def __init__(self, module: nn.Module) -> None:
        self.modules = dict(module.named_modules())
        self._spines: dict[fx.Node, tuple[fx.Node, ...]] = {}

    def back(self, node: fx.Node, stop: fx.Node | None) -> list[Step]:
        """The steps from `stop` (the input for None) to `node`."""
        steps: list[Step] = []  # in reverse
        pending: dict[str, Any] = {}
        while node is not stop and node.op != "placeholder":
            node = self._step(node, steps, pending)
        _check_none(node, pending)
        return steps[::-1]

    def _step(self, node: fx.Node, steps: list[Step], pending: dict[str, Any]) -> fx.Node:
        """Read one node; returns the one before it."""
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        target = type(module) if module is not None else node.target
        act = _act_of(module) if module is not None else _ACTS.get(target)
        if isinstance(module, nn.Conv2d | nn.Linear):
            self._layer(node, module, steps, pending)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            self._norm(node, module, pending)
        elif act is not None:
            if act == "gelu" and "tanh" in (getattr(module, "approximate", ""), node.kwargs.get("approximate")):
                raise _unknown(node, "GELU by tanh")
            self._pend(node, pending, "act", act)
        elif _joins(node):
            return self._residual(node, steps, pending) if target in _ADDS else self._gate(node, steps, pending)
        elif self._is_mean(node, module):
            _check_none(node, pending)
            steps.append(GlobalMean())
        elif isinstance(module, nn.MaxPool2d):
            if (module.kernel_size, module.stride, module.padding) not in _MAX_POOLS or module.ceil_mode:
                raise _unknown(node, "max pooling other than 3x3 with stride 2, padding 1, rounded down")
            self._pend(node, pending, "pool", "max")
        elif isinstance(module, nn.AvgPool2d):
            self._mean_before(node, module, steps)
        elif target in (F.pad, Pad, nn.ZeroPad2d):
            if not steps or not isinstance(steps[-1], Unit) or pending:
                raise _unknown(node, "padding that stands before no convolution")
            steps[-1] = replace(steps[-1], padded=True)
        elif not (isinstance(module, _NOTHING) or (module is not None and _is_drop_path(module))
                  or target in _NO_WORK):
            raise _unknown(node, self._what(node, module))
        if not node.all_input_nodes:
            raise _unknown(node, self._what(node, module))
        return node.all_input_nodes[0]

    @staticmethod
    def _layer(node: fx.Node, layer: nn.Conv2d | nn.Linear, steps: list[Step], pending: dict[str, Any]) -> None:
        if isinstance(layer, nn.Conv2d):
            square = len(set(layer.kernel_size)) == len(set(layer.stride)) == 1 and set(layer.dilation) == {1}
            if not square or layer.kernel_size[0] % 2 == 0:
                raise _unknown(node, f"a convolution with kernel {layer.kernel_size}, stride {layer.stride}, dilation "
                                     f"{layer.dilation}")
        steps.append(Unit(str(node.target), layer, **pending))
        pending.clear()

    def _norm(self, node: fx.Node, norm: nn.Module, pending: dict[str, Any]) -> None:
        act = getattr(norm, "act", None)  # of timm's BatchNormAct2d
        if act is not None and not isinstance(act, nn.Identity):
            if _act_of(act) is None:
                raise _unknown(node, type(act).__name__)
            self._pend(node, pending, "act", _act_of(act))
        self._pend(node, pending, "norm", norm)

    @staticmethod
    def _pend(node: fx.Node, pending: dict[str, Any], what: str, value: Any) -> None:
        order = ("norm", "act", "pool")  # after the convolution
        if what in pending or any(name in pending for name in order[:order.index(what)]):
            raise _unknown(node, f"{what} before {', '.join(pending)}")
        pending[what] = value

    @staticmethod
    def _mean_before(node: fx.Node, module: nn.AvgPool2d, steps: list[Step]) -> None:
        sizes = {*_pair(module.kernel_size), *_pair(module.stride or module.kernel_size)}
        after = steps[-1] if steps else None
        if not isinstance(after, Unit) or after.stride != 1 or after.kernel != 1:
            raise _unknown(node, "mean pooling that stands before no pointwise convolution")
        if sizes == {1}:
            return
        if sizes != {2} or not module.ceil_mode or module.count_include_pad:
            raise _unknown(node, "mean pooling other than 2x2 with ceil_mode, count_include_pad false")
        steps[-1] = replace(after, pool="mean")

    def _residual(self, node: fx.Node, steps: list[Step], pending: dict[str, Any]) -> fx.Node:
        """Two branches that are added. Both begin at the node `meet`."""
        act = pending.pop("act", None)
        _check_none(node, pending)
        one, other, meet = self._branches(node)
        branches = sorted((self.back(one, meet), self.back(other, meet)), key=len)
        short, path = branches
        if len(short) > 1 or (short and not isinstance(short[0], Unit)):
            raise _unknown(node, "an addition of two long branches")
        shortcut = short[0] if short else None
        assert shortcut is None or isinstance(shortcut, Unit)
        steps.append(Residual(tuple(path), shortcut, act))
        return meet

    def _gate(self, node: fx.Node, steps: list[Step], pending: dict[str, Any]) -> fx.Node:
        _check_none(node, pending)
        one, other, meet = self._branches(node)
        branch = self.back(other if one is meet else one, meet) if meet in (one, other) else []
        kinds = [type(step) for step in branch]
        if kinds != [GlobalMean, Unit, Unit]:
            raise _unknown(node, "a product that is no squeeze-and-excitation")
        _, reduce, excite = branch
        assert isinstance(reduce, Unit)
        assert isinstance(excite, Unit)
        plain = not (reduce.norm or excite.norm) and reduce.kernel == excite.kernel == 1
        if not plain or reduce.act is None or excite.act is None:
            raise _unknown(node, "squeeze-and-excitation with other layers than two 1x1 with activations")
        steps.append(Squeeze(reduce, excite))
        return meet

    def _branches(self, node: fx.Node) -> tuple[fx.Node, fx.Node, fx.Node]:
        """The ends of both branches, and where they begin."""
        one, other = node.all_input_nodes
        meet = self._meet(one, other)
        if meet is None:
            raise _unknown(node, "an addition or a product with something that the pictures do not reach")
        return one, other, meet

    def _meet(self, one: fx.Node, other: fx.Node) -> fx.Node | None:
        theirs = set(self._spine(other))
        return next((node for node in self._spine(one) if node in theirs), None)

    def _spine(self, node: fx.Node) -> tuple[fx.Node, ...]:
        """The node and all that every way to it passes, backwards."""
        path = []
        at: fx.Node | None = node
        while at is not None and at not in self._spines:
            path.append(at)
            before = at.all_input_nodes
            at = self._meet(*before) if _joins(at) else before[0] if before else None
        rest = () if at is None else self._spines[at]
        for i in range(len(path) - 1, -1, -1):
            rest = (path[i], *rest)
            self._spines[path[i]] = rest
        return self._spines[node]

    @staticmethod
    def _is_mean(node: fx.Node, module: nn.Module | None) -> bool:
        if isinstance(module, nn.AdaptiveAvgPool2d):
            return module.output_size in (1, (1, 1))
        if node.target is F.adaptive_avg_pool2d:
            return node.args[1] in (1, (1, 1), [1, 1])
        axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        return node.target in ("mean", torch.mean) and axes in ((2, 3), [2, 3], (-2, -1), [-2, -1], (-1, -2))

    @staticmethod
    def _what(node: fx.Node, module: nn.Module | None) -> str:
        if module is not None:
            return type(module).__name__
        return str(getattr(node.target, "__name__", node.target))


def _joins(node: fx.Node) -> bool:
    """Whether it adds or multiplies two maps."""
    return (node.target in _ADDS or node.target in _MULS) and len(node.all_input_nodes) == 2


def _check_none(node: fx.Node, pending: dict[str, Any]) -> None:
    """Raise UserError for a normalisation, an activation or pooling that follows no convolution."""
    if pending:
        raise _unknown(node, f"{next(iter(pending))} that follows no convolution")


def _pair(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _unknown(node: fx.Node, what: str) -> UserError:
    """An error that names the innermost module in which a node stands."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    where, kind = list(stack.values())[-1] if stack else ("", None)
    kind = getattr(kind, "__name__", kind)
    return UserError(where or str(node.target), f"has {what}" + (f" (in {kind})" if kind else ""), NO_BLOCK)
