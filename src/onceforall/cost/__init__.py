"""What a sub-network costs, without its weights."""

from onceforall.cost.counts import layer_macs, layer_params, macs, params

__all__ = ["layer_macs", "layer_params", "macs", "params"]
