"""Sharing: several sub-networks on the same images, with what they have in common run once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onceforall.nn.supernet import Supernet
from onceforall.space import Arch
from onceforall.space.plan import DEPTHWISE


class Shared:
    """What sub-networks of `net` have in common on `images` (B, 3, H, W): `shared(arch)` gives the logits of one.

    Common are the stem and the first blocks, unless the stem's width is elastic, and of the first elastic block its
    `common` parts, once for each kernel (see `ElasticBlock.hidden`). Gradients of the logits stop at the common part,
    where they add up; `backward` takes them through it. Logits are those of `net(images, arch)`, as are gradients and
    statistics, up to the rounding of sums; statistics are updated kernel by kernel.
    """

    def __init__(self, net: Supernet, images: Tensor, archs: Sequence[Arch]) -> None:
        self._net, self._images = net, images
        self._common: list[Tensor] = []
        if isinstance(net.space.stem.width, tuple):
            return
        plans = [net.plan(arch) for arch in archs]
        start, hidden = net.start(images, plans[0], plans), {}
        block = net.stages[0][0]  # type: ignore[index]
        if block.common and all(plan.stages[0] for plan in plans):
            hidden = block.hidden(start, [plan.stages[0][0] for plan in plans])
        self._common = [start, *hidden.values()]
        self._leaves = [x.detach().requires_grad_(x.requires_grad) for x in self._common]
        self._hidden = dict(zip(hidden, self._leaves[1:], strict=True))

    def __call__(self, arch: Arch) -> Tensor:
        """Logits (B, num_classes)."""
        if not self._common:
            logits: Tensor = self._net(self._images, arch)
            return logits
        plan = self._net.plan(arch)
        if not self._hidden:
            return self._net.rest(self._leaves[0], plan)
        first = plan.stages[0][0][DEPTHWISE]
        return self._net.rest(self._leaves[0], plan, hidden=self._hidden[first.kernel][:, :first.outputs])

    def backward(self) -> None:
        """Compute the gradients of all that is in common, from those that have reached its end."""
        if not self._common:
            return
        reached = [(x, leaf.grad) for x, leaf in zip(self._common, self._leaves, strict=True) if leaf.grad is not None]
        torch.autograd.backward([x for x, _ in reached], [grad for _, grad in reached])
