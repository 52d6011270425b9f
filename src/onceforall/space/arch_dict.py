"""The authors' encoding of a sub-network: `{"ks": [...], "e": [...], "d": [...], "image_size": 224}`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onceforall.space.arch import Arch, Block, Value
from onceforall.space.errors import UserError
from onceforall.space.search_space import SearchSpace

_KEYS = {"kernel": "ks", "expand": "e"}


def decode(space: SearchSpace, values: Mapping[str, Any]) -> Arch:
    """The sub-network of an arch dict; a single value stands for a list of it; `r` may stand for `image_size`."""
    unknown = sorted(set(values) - {"ks", "e", "d", "image_size", "r", "wid"})
    if unknown:
        raise UserError(f"arch.{unknown[0]}", "is not a key of an arch dict", "known: ks, e, d, image_size, r")
    if values.get("wid") is not None:
        raise UserError("arch.wid", f"{values['wid']!r}: {space.name} has no elastic width")
    depths = _listed(values, "d", len(space.stages))
    genes = {name: _listed(values, key, space.slots) for name, key in _KEYS.items()}
    stages: list[tuple[Block, ...]] = []
    start = 0
    for stage, given in zip(space.stages, depths, strict=True):
        slots = range(start, start + max(stage.depth))
        depth = min(given, stage.depth[0]) if len(stage.depth) == 1 and isinstance(given, int) else given
        if not isinstance(depth, int) or depth not in stage.depth:
            raise UserError(f"arch.d[{len(stages)}]", f"{depth!r} is not one of {', '.join(map(str, stage.depth))}")
        stages.append(tuple(Block(tuple((n, _allowed(genes[n][i], allowed, f"arch.{_KEYS[n]}[{i}]", n))
                                        for n, allowed in stage.elastic)) for i in slots[:depth]))
        start = slots.stop
    if {"image_size", "r"} <= set(values):
        raise UserError("arch.r", "stands beside image_size, which means the same", "give one of them")
    size = values.get("image_size", values.get("r", max(space.resolutions)))
    size = size[0] if isinstance(size, list) and len(size) == 1 else size
    return space.check(Arch(int(_allowed(size, space.resolutions, "arch resolution", "")), tuple(stages)))


def encode(space: SearchSpace, arch: Arch) -> dict[str, Any]:
    """The arch dict of `arch`; slots of blocks that do not exist hold the smallest choice."""
    out: dict[str, Any] = {key: [] for key in _KEYS.values()}
    for stage, blocks in zip(space.stages, space.check(arch).stages, strict=True):
        for b in range(max(stage.depth)):
            for name, key in _KEYS.items():
                out[key].append(blocks[b][name] if b < len(blocks) else stage.choices[name][0])
    return {**out, "d": list(arch.depths), "image_size": arch.resolution}


def _allowed(value: Any, allowed: Sequence[Value], place: str, name: str) -> Value:
    """The allowed value that this one is; what JSON gives as 3.0 is 3."""
    for known in allowed:
        if value == known and not isinstance(value, bool):
            return known
    raise UserError(place, f"{name} {value!r}".lstrip() + f" is not one of {', '.join(f'{v:g}' for v in allowed)}")


def _listed(values: Mapping[str, Any], key: str, length: int) -> list[Any]:
    if key not in values:
        raise UserError(f"arch.{key}", "is missing", "an arch dict has ks, e, d and image_size")
    value = values[key]
    listed = value if isinstance(value, list) else [value] * length
    if len(listed) != length:
        raise UserError(f"arch.{key}", f"has {len(listed)} entries instead of {length}")
    return listed
