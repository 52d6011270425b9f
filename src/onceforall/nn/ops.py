"""Elastic operators: torch's layers, run with the part of their weights that a plan's layer asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceforall.nn import slicing
from onceforall.nn.convolution import conv2d
from onceforall.space import Layer


def activation(name: str | None, *, first: bool = False) -> nn.Module:
    """The module of an activation's name; identity for None. `first`: it leaves its input as it is; others may work in
    place."""
    kinds: dict[str | None, Callable[[], nn.Module]] = {
        None: nn.Identity, "relu": partial(nn.ReLU, inplace=not first), "relu6": partial(nn.ReLU6, inplace=not first),
        "hswish": nn.Hardswish, "swish": nn.SiLU, "sigmoid": nn.Sigmoid,
        "hsigmoid": nn.Hardsigmoid, "gelu": nn.GELU, "mish": nn.Mish}  # those need their input for the gradient
    return kinds[name]()


def pool(layer: Layer) -> nn.Module:
    """The module of a layer's pooling."""
    if layer.pool == "mean":
        return nn.AvgPool2d(layer.stride, ceil_mode=True)
    return nn.MaxPool2d(3, 2, 1)


def own_padding(layer: Layer) -> int:
    """Zeros that the convolution adds by itself at each end; none where a `Pad` before it does."""
    return 0 if layer.uneven else layer.pads(layer.size)[0]


def padded(images: Tensor, layer: Layer) -> Tensor:
    """A map (B, C, H, W) of any size with the zeros around it that a layer may have unevenly."""
    return F.pad(images, [*layer.pads(images.shape[3]), *layer.pads(images.shape[2])])


class Pad(nn.Module):
    """`padded` as a module."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, images: Tensor) -> Tensor:
        return padded(images, self.layer)


class ElasticConv2d(nn.Conv2d):
    """A convolution whose channels and kernel are elastic.

    `kernels`: the sizes it can run at, ascending; there is one learned matrix for each step down
    (parameters `kernel_7to5`, `kernel_5to3`), identity at the start.
    """

    def __init__(self, layer: Layer, kernels: Sequence[int]) -> None:
        super().__init__(layer.inputs, layer.outputs, layer.kernel, layer.conv_stride, own_padding(layer),
                         groups=layer.groups, bias=layer.bias)
        self.steps = [(larger, smaller) for smaller, larger in reversed(list(pairwise(kernels)))]
        for larger, smaller in self.steps:
            self.register_parameter(f"kernel_{larger}to{smaller}", nn.Parameter(torch.eye(smaller * smaller)))

    def reset_parameters(self) -> None:
        """Nothing: the supernet initialises all its layers with one generator."""

    def tensors(self, layer: Layer) -> dict[str, Tensor]:
        """The layer's `weight` and `bias`, differentiable with respect to the supernet's."""
        transforms = {(a, b): self.get_parameter(f"kernel_{a}to{b}") for a, b in self.steps}
        weight = slicing.convolution(self.weight, layer.outputs, layer.inputs // layer.groups)
        out = {"weight": slicing.smaller_kernel(weight, layer.kernel, transforms)}
        if self.bias is not None:
            out["bias"] = slicing.channels(self.bias, layer.outputs)
        return out

    def forward(self, images: Tensor, layer: Layer) -> Tensor:  # type: ignore[override]
        part = self.tensors(layer)
        if layer.uneven:
            images = padded(images, layer)
        return conv2d(images, part["weight"], part.get("bias"), stride=layer.conv_stride, groups=layer.groups,
                      padding=own_padding(layer))


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of the first channels; in training it updates their running statistics in place."""

    def tensors(self, layer: Layer) -> dict[str, Tensor]:
        """The layer's scale, shift and statistics, as views."""
        state = {name: slicing.channels(tensor, layer.outputs) for name, tensor in (
            ("weight", self.weight), ("bias", self.bias), ("running_mean", self.running_mean),
            ("running_var", self.running_var)) if tensor is not None}
        return {**state, "num_batches_tracked": self.num_batches_tracked} if self.num_batches_tracked is not None \
            else state

    def forward(self, images: Tensor, layer: Layer,  # type: ignore[override]
                users: Sequence[Layer] = ()) -> Tensor:
        """`users`: the sub-networks' layers, none wider than `layer`, that share this pass; each updates its own
        channels' statistics. Without any, `layer` alone does."""
        part = self.tensors(layer)
        mean, var, momentum = part["running_mean"], part["running_var"], self.momentum or 0.0
        if not self.training or not users:
            if self.training:
                part["num_batches_tracked"].add_(1)
            return F.batch_norm(images, mean, var, part["weight"], part["bias"], self.training, momentum, self.eps)
        batch_mean, batch_var = torch.zeros_like(mean), torch.zeros_like(var)
        images = F.batch_norm(images, batch_mean, batch_var, part["weight"], part["bias"], True, 1.0, self.eps)
        for user in users:
            own = self.tensors(user)
            own["running_mean"].lerp_(batch_mean[:user.outputs], momentum)
            own["running_var"].lerp_(batch_var[:user.outputs], momentum)
            own["num_batches_tracked"].add_(1)
        return images


class ElasticConvNormAct(nn.Module):
    """Convolution, with normalisation, activation and pooling where the layer has them."""

    def __init__(self, layer: Layer, kernels: Sequence[int] = ()) -> None:
        super().__init__()
        self.conv = ElasticConv2d(layer, kernels)
        self.norm = ElasticBatchNorm2d(layer.outputs) if layer.norm else None
        self.act = activation(layer.act, first=layer.act_first)
        self.pool = pool(layer) if layer.pool else None

    def tensors(self, layer: Layer) -> dict[str, Tensor]:
        """Parameters and statistics of the layer under their names in the extracted net."""
        out = {f"conv.{name}": tensor for name, tensor in self.conv.tensors(layer).items()}
        if self.norm is not None:
            out |= {f"norm.{name}": tensor for name, tensor in self.norm.tensors(layer).items()}
        return out

    def forward(self, images: Tensor, layer: Layer, users: Sequence[Layer] = ()) -> Tensor:
        """`users` as in `ElasticBatchNorm2d`."""
        if layer.act_first:
            images = self.act(images)
        if self.pool is not None and layer.pool == "mean":
            images = self.pool(images)
        images = self.conv(images, layer)
        if self.norm is not None:
            images = self.norm(images, layer, users)
        if not layer.act_first:
            images = self.act(images)
        return self.pool(images) if self.pool is not None and layer.pool == "max" else images


class ElasticLinear(nn.Linear):
    """A linear layer on the first inputs."""

    def reset_parameters(self) -> None:
        """Nothing: the supernet initialises all its layers with one generator."""

    def tensors(self, layer: Layer) -> dict[str, Tensor]:
        """The layer's `weight` (outputs, inputs) and `bias`."""
        weight = slicing.convolution(self.weight, layer.outputs, layer.inputs)
        return {"weight": weight, "bias": slicing.channels(self.bias, layer.outputs)}

    def forward(self, features: Tensor, layer: Layer) -> Tensor:  # type: ignore[override]
        part = self.tensors(layer)
        return F.linear(features, part["weight"], part["bias"])
