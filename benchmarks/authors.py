"""The authors' code (PyPI's `ofa`) with our weights."""

from __future__ import annotations

from typing import Any

from ofa.imagenet_classification.elastic_nn.modules.dynamic_op import DynamicSeparableConv2d
from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3

from onceforall.nn import Supernet
from onceforall.space import Arch, SearchSpace
from onceforall.space.catalog import named_settings
from onceforall.weights.content import count_tensors
from onceforall.weights.forms import FORMS
from onceforall.weights.nets import Trained, content_of

DynamicSeparableConv2d.KERNEL_TRANSFORM_MODE = 1  # as their train_ofa_net.py sets it


def authors_net(net: Supernet) -> Any:
    """The authors' supernet with the weights, width and strides of ours, a MobileNetV3 of any size."""
    content = content_of(Trained(net, net.space), FORMS["mit"])
    width = named_settings(net.space.name)[1].get("width_mult", 1.0)
    theirs = OFAMobileNetV3(n_classes=net.num_classes, dropout_rate=0, width_mult=width, ks_list=[3, 5, 7],
                            expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4])
    theirs.load_state_dict({**content.arrays, **count_tensors(content.counts)})
    plan = net.plan(net.space.largest)
    theirs.first_conv.conv.stride = (plan.stem.stride,) * 2
    for block, spec in zip(theirs.blocks[1:], (b for stage in plan.stages for b in stage), strict=True):
        block.conv.depth_conv.conv.stride = spec["depthwise"].stride
    return theirs.train(net.training)


def active(theirs: Any, space: SearchSpace, arch: Arch) -> Any:
    """Their net, set to that sub-network."""
    theirs.set_active_subnet(**{k: v for k, v in arch.to_dict(space).items() if k in ("ks", "e", "d")})
    return theirs
