"""Once-for-All: one supernet, trained by progressive shrinking, that contains a sub-network for every device.

    import onceforall as ofa
    space = ofa.search_space("mobilenet_v3_large", width_mult=1.0)
    net = ofa.Supernet(space, num_classes=1000)
    plain = ofa.extract(net, space.largest)

Names are loaded when first used: importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onceforall.cost import macs, params
    from onceforall.deploy.elastic import Elastic
    from onceforall.deploy.folder import load_subnet
    from onceforall.errors import UserError
    from onceforall.nn import Subnet, Supernet, extract, recalibrate, sort_channels
    from onceforall.space import Arch, Block, SearchSpace, search_space
    from onceforall.weights.nets import load

__version__ = "0.1.0"

_HOMES = {
    "onceforall.errors": ("UserError",),
    "onceforall.space": ("Arch", "Block", "SearchSpace", "search_space"),
    "onceforall.cost": ("macs", "params"),
    "onceforall.deploy.elastic": ("Elastic",),
    "onceforall.deploy.folder": ("load_subnet",),
    "onceforall.weights.nets": ("load",),
    "onceforall.nn": ("Subnet", "Supernet", "extract", "recalibrate", "sort_channels"),
}

__all__ = ["Arch", "Block", "Elastic", "SearchSpace", "Subnet", "Supernet", "UserError", "extract", "load",
           "load_subnet", "macs", "params", "recalibrate", "search_space", "sort_channels"]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'onceforall' has no attribute {name!r}")
