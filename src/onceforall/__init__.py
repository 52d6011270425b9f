"""Once-for-All: one supernet, trained by progressive shrinking, that contains a sub-network for every device.

    import onceforall as ofa
    space = ofa.search_space("mobilenet_v3_large", width_mult=1.0)
    net = ofa.Supernet(space, num_classes=1000)
    plain = ofa.extract(net, space.largest)

    run = ofa.fit("pictures", output="runs/mine")
    front = run.search(max_macs=5e6)
    run.extract(front.best(macs=3e6).arch).save("subnet")

Names are loaded when first used: importing the package does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onceforall.api import fit, train
    from onceforall.cost import macs, params
    from onceforall.data import Augment, DataSpec, Framing, Pictures
    from onceforall.deploy.elastic import Elastic
    from onceforall.deploy.folder import load_subnet
    from onceforall.errors import UserError
    from onceforall.nn import Subnet, Supernet, extract, recalibrate, sort_channels
    from onceforall.pretrained.reading import from_pretrained
    from onceforall.run import Run
    from onceforall.space import Arch, Block, SearchSpace, search_space
    from onceforall.training.network import Network, Teacher
    from onceforall.training.recipe import Recipe
    from onceforall.training.settings import Loss, Mixing, Optimizer, Schedule
    from onceforall.training.stage import Batches, Safety, Stage
    from onceforall.weights.nets import load

__version__ = "0.1.0"

_HOMES = {
    "onceforall.errors": ("UserError",),
    "onceforall.space": ("Arch", "Block", "SearchSpace", "search_space"),
    "onceforall.api": ("fit", "train"),
    "onceforall.cost": ("macs", "params"),
    "onceforall.data": ("Augment", "DataSpec", "Framing", "Pictures"),
    "onceforall.deploy.elastic": ("Elastic",),
    "onceforall.deploy.folder": ("load_subnet",),
    "onceforall.weights.nets": ("load",),
    "onceforall.pretrained.reading": ("from_pretrained",),
    "onceforall.run": ("Run",),
    "onceforall.training.settings": ("Loss", "Mixing", "Optimizer", "Schedule"),
    "onceforall.training.network": ("Network", "Teacher"),
    "onceforall.training.recipe": ("Recipe",),
    "onceforall.training.stage": ("Batches", "Safety", "Stage"),
    "onceforall.nn": ("Subnet", "Supernet", "extract", "recalibrate", "sort_channels"),
}

__all__ = ["Arch", "Augment", "Batches", "Block", "DataSpec", "Elastic", "Framing", "Loss", "Mixing", "Network",
           "Optimizer", "Pictures", "Recipe", "Run", "Safety", "Schedule", "SearchSpace", "Stage", "Subnet", "Supernet",
           "Teacher", "UserError", "extract", "fit", "from_pretrained", "load", "load_subnet", "macs", "params",
           "recalibrate", "search_space", "sort_channels", "train"]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'onceforall' has no attribute {name!r}")
