"""Blocks: the steps of a network as the blocks that `space.kinds` knows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onceforall.errors import UserError
from onceforall.pretrained.units import GlobalMean, Residual, Squeeze, Step, Unit
from onceforall.space.plan import DEPTHWISE, EXCITE, EXPAND, PROJECT, REDUCE, SE, SHORTCUT
from onceforall.space.rows import Gate


@dataclass(frozen=True, eq=False)
class Block:
    """One block of a network.

    `units`: its layers by the end of their name in a plan; `numbers`: what `space.kinds` reads of a row, such as
    `kernel`; `act`: of the block; `gate`: its squeeze-and-excitation.
    """

    kind: str
    units: Mapping[str, Unit]
    numbers: Mapping[str, int]
    act: str
    gate: Gate | None
    inputs: int
    outputs: int
    stride: int
    same: bool  # whether its input is added to its output as it is

    @property
    def acts(self) -> tuple[tuple[str, str | None], ...]:
        """The activations that are not the kind's, by the roles of their layers."""
        usual = {role: self.act if role in _ACTIVE[self.kind] else None for role in self.units}
        return tuple((role, unit.act) for role, unit in self.units.items()
                     if not role.startswith(SE) and unit.act != usual[role])

    @property
    def narrows(self) -> bool:
        """Whether it can have fewer hidden channels than its own."""
        return "hidden" in self.numbers and (self.kind != "mbconv" or "expansion" in self.numbers)


_ACTIVE = {"mbconv": (EXPAND, DEPTHWISE), "fused_mbconv": (EXPAND,), "conv": ("conv",), "basic": ("conv1",),
           "bottleneck": ("conv1", "conv2")}  # the layers of each kind that have the block's activation
# Letters of the steps: P 1x1, D depthwise, K k x k, G grouped, small without an activation; S a gate.
_INNER = {
    "mbconv": re.compile("(?P<start>d(?=P))?(?P<expand>P(?=D)|(?<=d)P(?=[Sp])|P(?=p))?(?P<depthwise>D)?(?P<se>S)?"
                         "(?P<project>[Pp])(?P<end>S)?"),
    "fused_mbconv": re.compile("(?P<expand>K)(?P<se>S)?(?P<project>p)(?P<end>S)?"),
    "conv": re.compile("(?P<conv>[KkPp])"),
}
_RESIDUAL = {
    "bottleneck": re.compile("(?P<conv1>P)(?P<conv2>[KGD])(?P<se>S)?(?P<conv3>p)(?P<end>S)?"),
    "basic": re.compile("(?P<conv1>K)(?P<se>S)?(?P<conv2>k)(?P<end>S)?"),
}


@dataclass(frozen=True, eq=False)
class Network:
    """A classifier: its stem, its blocks, the 1x1 convolution before the global mean, the hidden layer and the
    classifier after it."""

    stem: Unit
    blocks: tuple[Block, ...]
    expand: Unit | None
    mix: Unit | None
    classifier: Unit


def network_of(steps: Sequence[Step]) -> Network:
    """The network of its steps; raises UserError for what is none, or for a block of no kind."""
    means = [i for i, step in enumerate(steps) if isinstance(step, GlobalMean)]
    stem, head = steps[0] if steps else None, steps[means[0] + 1:] if means else []
    if len(means) != 1 or not isinstance(stem, Unit):
        raise UserError("module", "is not a classifier that begins with a convolution and has one global mean")
    units = [step for step in head if isinstance(step, Unit)]
    plain = all(unit.kernel == unit.groups == 1 for unit in units)
    if not plain or len(units) != len(head) or len(units) not in (1, 2) or units[-1].norm or units[-1].act:
        raise UserError(units[0].name if units else "module", "the head is no classifier with one hidden layer at most")
    blocks = list(_blocks(steps[1:means[0]]))
    expand = blocks[-1].units.get("conv") if blocks and _is_features(blocks[-1]) else None
    return Network(stem, tuple(blocks if expand is None else blocks[:-1]), expand,
                   units[0] if len(units) > 1 else None, units[-1])


def _is_features(block: Block) -> bool:
    conv = block.units.get("conv")
    return conv is not None and conv.kernel == conv.stride == 1 and not block.same and conv.norm is not None


def _blocks(steps: Sequence[Step]) -> Iterator[Block]:
    """The blocks. A residual is one; what stands between residuals is cut into the longest blocks of a known kind."""
    flat: list[Unit | Squeeze] = []
    for step in [*steps, None]:
        if isinstance(step, Unit | Squeeze):
            flat.append(step)
            continue
        while flat:
            kind, found = _match(flat, _INNER, whole=False)
            yield _block(kind, found, same=False)
            flat = flat[len(found):]
        if isinstance(step, Residual):
            yield _residual(step)


def _residual(step: Residual) -> Block:
    inner = [each for each in step.path if isinstance(each, Unit | Squeeze)]
    kinds = _RESIDUAL if step.act is not None or step.shortcut is not None else _INNER
    if len(inner) < len(step.path) or not inner:
        raise UserError(_place(step), "has an addition within an addition", "no block here computes that")
    kind, found = _match(inner, kinds, whole=True)
    if kind in _RESIDUAL and step.act is None:
        raise UserError(_place(step), f"is a {kind} without an activation at its end", "no block here computes that")
    return _block(kind, found, same=step.shortcut is None, act=step.act, shortcut=step.shortcut)


def _match(steps: Sequence[Unit | Squeeze], kinds: Mapping[str, re.Pattern[str]], *,
           whole: bool) -> tuple[str, dict[str, Unit | Squeeze]]:
    """The kind that fits the most of the steps, and each step's part in it."""
    letters = "".join(map(_letter, steps))
    matches = {kind: match for kind, pattern in kinds.items()
               if (match := pattern.fullmatch(letters) if whole else pattern.match(letters))}
    if not matches:
        raise UserError(_place(steps[0]), f"is a block of no kind here ({_shown(steps)})",
                        f"known: {', '.join((*_INNER, *_RESIDUAL))}")
    kind = max(matches, key=lambda kind: (matches[kind].end(), kind == "conv"))
    spans = {role: matches[kind].span(role) for role, text in matches[kind].groupdict().items() if text}
    return kind, {role: steps[start] for role, (start, _) in sorted(spans.items(), key=lambda item: item[1])}


def _letter(step: Unit | Squeeze) -> str:
    if isinstance(step, Squeeze):
        return "S"
    kind = "D" if step.depthwise else "G" if step.groups > 1 else "P" if step.kernel == 1 else "K"
    return kind if step.act is not None else kind.lower()


def _block(kind: str, found: Mapping[str, Unit | Squeeze], *, same: bool, act: str | None = None,
           shortcut: Unit | None = None) -> Block:
    """The block of its parts, in the order of a plan: the shortcut last."""
    units: dict[str, Unit] = {}
    gate = None
    for role, step in found.items():
        if isinstance(step, Squeeze):
            units |= {f"{SE}.{REDUCE}": step.reduce, f"{SE}.{EXCITE}": step.excite}
            gate = Gate(act=step.reduce.act or "", gate=step.excite.act or "",
                        place="end" if role == "end" else "middle")
        else:
            units[role] = step
    path = [unit for name, unit in units.items() if not name.startswith(SE)]
    if shortcut is not None:
        units[SHORTCUT] = shortcut
    stride, inputs, outputs = _stride(path), path[0].inputs, path[-1].outputs
    numbers = _NUMBERS[kind](units)
    if gate is not None:
        numbers["squeezed"] = units[f"{SE}.{REDUCE}"].outputs
    if not same and stride == 1 and inputs == outputs:
        numbers["noskip"] = 1
    if same and (stride > 1 or inputs != outputs):
        raise UserError(path[0].name, "adds maps of different sizes", "no block here computes that")
    own = act or next((unit.act for unit in path if unit.act), None) or "relu"
    return Block(kind, units, {key: value for key, value in numbers.items() if value}, own, gate, inputs, outputs,
                 stride, same)


def _stride(path: Sequence[Unit]) -> int:
    strides = [unit.stride for unit in path if unit.stride > 1]
    if len(strides) > 1:
        raise UserError(path[0].name, "a block with two strides", "no block here computes that")
    return strides[0] if strides else 1


def _mbconv(units: Mapping[str, Unit]) -> dict[str, int]:
    start, depthwise, expand = (units.get(role) for role in ("start", DEPTHWISE, EXPAND))
    early = start is not None and depthwise is not None and start.stride > 1
    return {"hidden": units[PROJECT].inputs, "kernel": depthwise.kernel if depthwise else 0,
            "start": start.kernel if start else 0, "early_stride": int(early), "expansion": int(expand is not None)}


def _fused(units: Mapping[str, Unit]) -> dict[str, int]:
    return {"hidden": units[PROJECT].inputs, "kernel": units[EXPAND].kernel, "expansion": 1}


def _conv(units: Mapping[str, Unit]) -> dict[str, int]:
    return {"kernel": units["conv"].kernel, "pool": int(units["conv"].pool == "max")}


def _bottleneck(units: Mapping[str, Unit]) -> dict[str, int]:
    middle = units["conv2"]
    return {"hidden": middle.inputs, "kernel": middle.kernel, **_shortcut(units),
            "group_width": middle.inputs // middle.groups if middle.groups > 1 else 0}


def _basic(units: Mapping[str, Unit]) -> dict[str, int]:
    one, two = units["conv1"], units["conv2"]
    if one.kernel != two.kernel:
        raise UserError(one.name, f"kernels {one.kernel} and {two.kernel} in one block", "no block here computes that")
    return {"hidden": one.outputs, "kernel": one.kernel, **_shortcut(units)}


def _shortcut(units: Mapping[str, Unit]) -> dict[str, int]:
    shortcut = units.get(SHORTCUT)
    if shortcut is not None and (shortcut.kernel > 1 or shortcut.act):
        raise UserError(shortcut.name, "a shortcut that is no 1x1 convolution alone", "no block here computes that")
    return {"strided": int(shortcut is not None and shortcut.pool is None)}


_NUMBERS = {"mbconv": _mbconv, "fused_mbconv": _fused, "conv": _conv, "bottleneck": _bottleneck, "basic": _basic}


def _place(step: Step) -> str:
    while isinstance(step, Residual):
        step = step.path[0]
    return step.name if isinstance(step, Unit) else step.reduce.name if isinstance(step, Squeeze) else "module"


def _shown(steps: Sequence[Unit | Squeeze]) -> str:
    """The steps in words, such as `conv 3x3 in 32 groups`."""
    words = []
    for step in steps[:6]:
        if isinstance(step, Squeeze):
            words.append("squeeze-and-excitation")
        else:
            kind = "depthwise" if step.depthwise else "conv"
            groups = f" in {step.groups} groups" if step.groups > 1 and not step.depthwise else ""
            words.append(f"{kind} {step.kernel}x{step.kernel}{groups}{'' if step.act else ' without activation'}")
    return ", ".join(words) + (", .." if len(steps) > 6 else "")
