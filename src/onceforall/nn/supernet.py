"""The supernet: one set of weights that holds every sub-network of a search space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onceforall.errors import UserError
from onceforall.nn.blocks import ElasticBlock
from onceforall.nn.ops import ElasticConvNormAct, ElasticLinear
from onceforall.space import Arch, BlockPlan, Plan, SearchSpace, lower, variants
from onceforall.space.plan import CLASSIFIER, EXPAND


class Supernet(nn.Module):
    """The weight-shared network of a search space (Cai et al. 2020): `net(images, arch)` runs one sub-network.

    Nothing remembers a chosen sub-network. The `state_dict` is the largest sub-network's and, beside it, the matrices
    that make smaller kernels.

    Args:
        space: the search space.
        num_classes: outputs of the classifier.
        dropout: share of the classifier's inputs that training sets to 0.
        bn_momentum: as torch has it; 0.1 is a decay of 0.9.
        bn_eps: what BN adds to variances; None: the space's own.
        generator: makes the random start reproducible.

    Raises:
        UserError: the space's blocks have an expansion at some of their choices only.
    """

    def __init__(self, space: SearchSpace, num_classes: int = 1000, *, dropout: float = 0.1,
                 bn_momentum: float = 0.1, bn_eps: float | None = None,
                 generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.space, self.num_classes, self.dropout = space, num_classes, dropout
        largest = self.plan(space.free.largest)
        widths = ([values[min(i, len(values) - 1)] for values in space.widths]
                  for i in range(max(map(len, space.widths), default=1)))
        ways = [self.plan(arch).stages for picked in widths for arch in variants(space, picked)]
        self.stem = ElasticConvNormAct(largest.stem)
        self.first = nn.ModuleList(ElasticBlock(plan, [plan]) for plan in largest.first)
        self.stages = nn.ModuleList(nn.ModuleList(_block(plan, [stages[s][b] for stages in ways])
                                                  for b, plan in enumerate(plans))
                                    for s, plans in enumerate(largest.stages))
        *mixed, classifier = largest.head
        self.head = nn.ModuleDict({layer.role: ElasticConvNormAct(layer) for layer in (*largest.features, *mixed)})
        self.head[CLASSIFIER] = ElasticLinear(classifier.inputs, classifier.outputs)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum, module.eps = bn_momentum, space.bn_eps if bn_eps is None else bn_eps
        if not self.head["classifier"].weight.is_meta:  # torch takes milliseconds for each tensor there
            _initialise(self, generator)

    def plan(self, arch: Arch) -> Plan:
        """The layers of one of its sub-networks; raises UserError for an arch outside its space."""
        return lower(self.space, arch, self.num_classes)

    def forward(self, images: Tensor, arch: Arch) -> Tensor:
        """Run one sub-network.

        Args:
            images: normalised, (B, 3, H, W), of any size, not only `arch.resolution`.
            arch: which one.

        Returns:
            Logits (B, num_classes).

        Raises:
            UserError: the space does not have the sub-network.
        """
        plan = self.plan(arch)
        return self.rest(self.start(images, plan), plan)

    def start(self, images: Tensor, plan: Plan, users: Sequence[Plan] = ()) -> Tensor:
        """The map that reaches the first stage, (B, C, H, W), the same for all sub-networks; `users` as in `ops`."""
        x: Tensor = self.stem(images, plan.stem, [user.stem for user in users])
        for number, (block, spec) in enumerate(zip(self.first, plan.first, strict=True)):
            x = block(x, spec, [user.first[number] for user in users])
        return x

    def rest(self, x: Tensor, plan: Plan, *, hidden: Tensor | None = None) -> Tensor:
        """Logits from the map that reaches the first stage; `hidden`: what its first block has already computed."""
        for blocks, specs in zip(self.stages, plan.stages, strict=True):
            for block, spec in zip(blocks, specs, strict=False):  # type: ignore[call-overload]  # blocks past depth rest
                x = block(x, spec) if hidden is None else block.rest(hidden, x, spec)
                hidden = None
        for layer in plan.features:
            x = self.head[layer.role](x, layer)
        x = x.mean((2, 3), keepdim=True)
        *mixed, classifier = plan.head
        for layer in mixed:
            x = self.head[layer.role](x, layer)
        x = F.dropout(x.flatten(1), self.dropout, self.training)
        logits: Tensor = self.head[CLASSIFIER](x, classifier)
        return logits


def _block(largest: BlockPlan, ways: Sequence[BlockPlan]) -> nn.Module:
    if len({EXPAND in plan.parts() for plan in (largest, *ways)}) > 1:
        raise UserError(f"{largest.name}.{EXPAND}", "is there at some choices only: at ratio 1 there is no expansion",
                        "begin with a ratio above 1, or fix expansion at 1, which keeps the layer")
    return ElasticBlock(largest, ways)


@torch.no_grad()
def _initialise(net: nn.Module, generator: torch.Generator | None) -> None:
    """Convolutions N(0, sqrt(2 / (k^2 outputs))), linear uniform in +-1/sqrt(inputs), biases 0, norms 1 and 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            module.weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            module.weight.uniform_(-bound, bound, generator=generator)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()
