"""The blocks of a sub-network by name, and which of its layers `--keep` leaves in float."""

from __future__ import annotations

from collections.abc import Sequence

from onceforall.errors import UserError
from onceforall.space import Plan


def block_names(plan: Plan) -> list[str]:
    """The names of the plan's blocks in the order of the forward pass. A layer outside of blocks counts as one."""
    return [plan.stem.name, *(block.name for block in plan.blocks()), *(layer.name for layer in plan.features),
            *(layer.name for layer in plan.head)]


def within(place: str, names: Sequence[str]) -> bool:
    """Whether the layer or block `place` is one of `names`, or lies in one of them."""
    return any(place == name or place.startswith(f"{name}.") for name in names)


def check_names(plan: Plan, names: Sequence[str]) -> None:
    """Raise UserError for a name that is no layer, block or stage of the plan."""
    layers = [layer.name for layer in plan.layers()]
    for name in names:
        if not any(within(layer, [name]) for layer in layers):
            raise UserError("--keep", f"{name!r} is no layer, block or stage of this sub-network",
                            f"its blocks are {', '.join(block_names(plan))}")
