"""Table: the blocks of a network as the rows of a search space, elastic as far as is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from onceforall.errors import UserError
from onceforall.pretrained.blocks import Block, Network
from onceforall.pretrained.units import Unit
from onceforall.space import BlockRow, Head, SearchSpace, StageSpace, Stem
from onceforall.space.arch import Value
from onceforall.space.kinds import part_of
from onceforall.space.plan import CLASSIFIER
from onceforall.space.rows import Padding


@dataclass(frozen=True)
class Choices:
    """Which choices a network gets beside its own.

    Args:
        kernels: the least kernel; each odd one up to the block's own is a choice.
        ratios: shares of a block's own hidden channels, rounded to multiples of 8; 1 is always one.
        depth: the least number of blocks of a stage; None: 1, and 2 where it has more than 4.
    """

    kernels: int = 3
    ratios: tuple[float, ...] = (0.5, 0.667, 1.0)
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.kernels < 1 or self.kernels % 2 == 0:
            raise UserError("--kernels", f"{self.kernels} is not an odd number", "give 1, 3, 5 or 7")
        for ratio in self.ratios:
            if not 0 < ratio <= 1:
                raise UserError("--ratios", f"{ratio:g} is not a share above 0, at most 1")
        if self.depth is not None and self.depth < 1:
            raise UserError("--depth", f"{self.depth} is below 1")


DEFAULT = Choices()


def space_of(network: Network, name: str, sizes: Sequence[int],
             choices: Choices) -> tuple[SearchSpace, dict[str, Unit]]:
    """The search space of a network, and which of its layers each layer of the largest sub-network is.

    Raises:
        UserError: a row cannot say what the network has.
    """
    stages = list(_stages(network.blocks))
    rows = tuple(_row(blocks, choices) for blocks in stages)
    stem, mix = network.stem, network.mix
    units = {"stem": stem, f"head.{CLASSIFIER}": network.classifier}
    units |= {f"stages.{s}.{b}.{role}": unit for s, blocks in enumerate(stages) for b, block in enumerate(blocks)
              for role, unit in block.units.items()}
    units |= {f"head.{role}": unit for role, unit in (("expand", network.expand), ("mix", mix)) if unit is not None}
    if stem.act is None:
        raise UserError(stem.name, "has no activation", "a stem has one")
    space = SearchSpace(
        name, tuple(sizes), Stem(stem.outputs, stem.stride, stem.act, (), stem.kernel, stem.pool == "max"), rows,
        Head(0 if network.expand is None else network.expand.outputs, 0 if mix is None else mix.outputs,
             _head_act(network), mix_bias=mix is not None and mix.norm is None and mix.layer.bias is not None,
             mix_norm=mix is not None and mix.norm is not None),
        in_channels=stem.inputs, bn_eps=_eps(units), padding=_padding(units.values()))
    return space, units


def _head_act(network: Network) -> str:
    acts = {unit.act for unit in (network.expand, network.mix) if unit is not None} or {network.stem.act}
    if len(acts) > 1 or None in acts:
        raise UserError((network.expand or network.classifier).name, "the layers of the head differ in activation",
                        "no head here does")
    return str(acts.pop())


def _eps(units: Mapping[str, Unit]) -> float:
    """The least of its normalisations': the variances of others make up for the difference."""
    return min((unit.norm.eps for unit in units.values() if unit.norm is not None), default=1e-5)


def _padding(units: Iterable[Unit]) -> Padding:
    strided = [unit for unit in units if unit.kernel > 1 and unit.stride > 1]
    same = {unit.padded or type(unit.layer).__name__ == "Conv2dSame" for unit in strided}
    if len(same) > 1:
        raise UserError(strided[0].name, "the layers with a stride differ in padding", "no table here does")
    return "same" if same == {True} else "centre"


def _stages(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Blocks that follow each other in one row: of one kind and width, the first alone with a stride."""
    stage: list[Block] = []
    for block in blocks:
        if stage and (_key(stage[0]) != _key(block) or block.stride > 1 or block.inputs != block.outputs):
            yield stage
            stage = []
        stage.append(block)
    if stage:
        yield stage


def _key(block: Block) -> tuple[object, ...]:
    fixed = tuple(name for name in ("expansion", "pool") if name in block.numbers)
    return block.kind, block.outputs, block.act, block.gate, fixed, block.acts


def _row(blocks: Sequence[Block], choices: Choices) -> StageSpace:
    """The row of a stage. What all its blocks have alike is said once."""
    first, count = blocks[0], len(blocks)
    lists = [_lists(block, choices) for block in blocks]
    names = sorted({name for own in lists for name, values in own.items() if len(values) > 1})
    alike = {name for name in names if all(own[name] == lists[0][name] for own in lists)}
    numbers = [{name: value for name, value in block.numbers.items() if name not in names} for block in blocks]
    common = tuple(pair for pair in numbers[0].items() if all(pair in own.items() for own in numbers))
    rows = tuple(BlockRow(tuple((name, own[name]) for name in names if name not in alike),
                          tuple(pair for pair in fixed.items() if pair not in common))
                 for own, fixed in zip(lists, numbers, strict=True))
    kept = max((b + 1 for b, block in enumerate(blocks) if not block.same), default=1)
    least = (2 if count > 4 else 1) if choices.depth is None else choices.depth
    return StageSpace(
        first.outputs, tuple(range(max(1, min(count, least), kept), count + 1)), first.stride, first.act,
        first.gate or False, tuple((name, tuple(sorted({v for own in lists for v in own[name]}))) for name in names),
        first.kind, common, blocks=() if set(rows) == {BlockRow()} else rows, acts=first.acts)


def _lists(block: Block, choices: Choices) -> dict[str, tuple[Value, ...]]:
    """The choices of a block, ascending."""
    def kernels(own: int) -> tuple[Value, ...]:
        return tuple(k for k in range(1, own + 1, 2) if k == own or k >= choices.kernels) if own else (0,)

    numbers = block.numbers
    out: dict[str, tuple[Value, ...]] = {name: kernels(numbers.get(name, 0)) for name in ("kernel", "start")}
    if block.narrows:
        widths: dict[int, float] = {}
        for ratio in sorted({*choices.ratios, 1.0}):
            widths[part_of(numbers["hidden"], ratio, numbers.get("group_width", 0))] = ratio
        out["fraction"] = tuple(1.0 if width == numbers["hidden"] else ratio for width, ratio in widths.items())
    return out
