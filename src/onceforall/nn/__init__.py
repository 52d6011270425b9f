"""How it computes: slicing, elastic operators, blocks, the supernet, the static builder, channel sorting."""

from onceforall.nn.recalibrate import input_spread, input_statistics, rebase, recalibrate, take_norms
from onceforall.nn.sharing import Shared
from onceforall.nn.sorting import sort_channels
from onceforall.nn.subnet import Subnet, build, extract
from onceforall.nn.supernet import Supernet

__all__ = ["Shared", "Subnet", "Supernet", "build", "extract", "input_spread", "input_statistics", "rebase",
           "recalibrate", "sort_channels", "take_norms"]
