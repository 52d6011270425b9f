"""The authors' encoding of a sub-network: `{"ks": [...], "e": [...], "d": [...], "image_size": 224}`, of ResNet50D with
`w` instead of `ks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onceforall.errors import UserError
from onceforall.space.arch import Arch, Block, Value
from onceforall.space.catalog import RESNET_MULTIPLIERS, named_settings, resnet_widths, search_space
from onceforall.space.search_space import SearchSpace

_MB, _RESNET = {"kernel": "ks", "expand": "e"}, {"expand": "e"}


def _keys_or_none(space: SearchSpace) -> dict[str, str] | None:
    keys = {("kernel", "expand"): _MB, ("expand",): _RESNET}.get(space.dimensions)
    alike = not any(stage.blocks for stage in space.stages)
    return keys if alike and bool(space.widths) == (keys is _RESNET) else None


def _keys(space: SearchSpace) -> dict[str, str]:
    """The dimensions of a block with their keys; raises UserError for a family that the authors' code does not have."""
    keys = _keys_or_none(space)
    if keys is None:
        raise UserError("arch", f"{space.name} has no arch dict: it is none of the authors' families",
                        f"write it as {space.smallest}")
    return keys


def decode(space: SearchSpace, values: Mapping[str, Any]) -> Arch:
    """The sub-network of an arch dict; a single value stands for a list of it; `r` may stand for `image_size`. In `w` a
    whole number is an index of the multipliers, as the authors have it, 0.65 the multiplier, as NNablaNAS has it."""
    keys = _keys(space)
    known = [*keys.values(), "d", *(["w"] if space.widths else []), "image_size", "r"]
    unknown = sorted(set(values) - {*known, "wid"})
    if unknown:
        raise UserError(f"arch.{unknown[0]}", "is not a key of an arch dict", f"known: {', '.join(known)}")
    if values.get("wid") is not None:
        raise UserError("arch.wid", f"{values['wid']!r}: {space.name} has no elastic width of that kind")
    depths = iter(_listed(values, "d", len(_given(space)), known))
    genes = {name: _listed(values, key, elastic_slots(space), known) for name, key in keys.items()}
    stages: list[tuple[Block, ...]] = []
    start = 0
    for s, stage in enumerate(space.stages):
        depth = _depth(space, s, next(depths)) if s in _given(space) else stage.depth[0]
        slots = range(start, start + max(stage.depth)) if stage.elastic else range(depth)
        stages.append(tuple(Block(tuple((n, _allowed(genes[n][i], allowed, f"arch.{keys[n]}[{i}]", n))
                                        for n, allowed in stage.elastic)) for i in slots[:depth]))
        start = slots.stop if stage.elastic else start
    if {"image_size", "r"} <= set(values):
        raise UserError("arch.r", "stands beside image_size, which means the same", "give one of them")
    size = values.get("image_size", values.get("r", max(space.resolutions)))
    size = size[0] if isinstance(size, list) and len(size) == 1 else size
    widths = tuple(_width(space, w, value) for w, value in enumerate(_listed(values, "w", len(space.widths), known)
                                                                     if space.widths else ()))
    return space.free.check(Arch(int(_allowed(size, space.resolutions, "arch resolution", "")), tuple(stages),
                                 widths))


def encode(space: SearchSpace, arch: Arch) -> dict[str, Any]:
    """The arch dict of `arch`; slots of blocks that do not exist hold the smallest choice."""
    keys = _keys(space)
    out: dict[str, Any] = {key: [] for key in keys.values()}
    depths = []
    full = search_space(space.name).stages
    for s, (stage, blocks) in enumerate(zip(space.stages, space.free.check(arch).stages, strict=True)):
        if s in _given(space):
            depths.append(len(blocks) if not space.widths else _EXTRA * len(blocks) if 0 in full[s].depth
                          else len(blocks) - full[s].depth[0])
        for b in range(max(stage.depth)) if stage.elastic else ():
            for name, key in keys.items():
                out[key].append(blocks[b][name] if b < len(blocks) else stage.choices[name][0])
    out |= {"d": depths, "image_size": arch.resolution}
    if space.widths:
        out["w"] = [_multiples(space, w).index(width) for w, width in enumerate(arch.widths)]
    return out


def restrict_resnet(space: SearchSpace, depth_list: Sequence[float] | None = None,
                    expand_ratio_list: Sequence[float] | None = None, width_mult_list: Sequence[float] | None = None, *,
                    place: str = "network") -> SearchSpace:
    """The part of ResNet50D with these depths, expand ratios and width multipliers, as the authors list them. With more
    than one depth the stem's convolution may be left out."""
    if _keys_or_none(space) is not _RESNET:
        raise UserError(place, f"is for resnet50d, and the space is {space.name}", "leave it out")
    lists: tuple[tuple[Sequence[float] | None, Sequence[float]], ...] = (
        (depth_list, range(_EXTRA + 1)), (expand_ratio_list, space.stages[-1].choices["expand"]),
        (width_mult_list, RESNET_MULTIPLIERS))
    for given, known in lists:
        wrong = next((v for i, v in enumerate(given or ()) if v not in known or v in (given or ())[:i]), None)
        if wrong is not None:
            fault = "is listed twice" if wrong in known else f"is not one of {', '.join(map(str, known))}"
            raise UserError(place, f"{wrong} {fault}")
    if depth_list:
        space = space.each("depth", [
            stage.depth[-min(len(depth_list), len(stage.depth)):] if stage.depth[0] < 2 else
            [stage.depth[0] + int(d) for d in depth_list] for stage in space.stages])
    if expand_ratio_list:
        space = space.restrict(expand=expand_ratio_list)
    if width_mult_list:
        picked = [RESNET_MULTIPLIERS.index(multiplier) for multiplier in width_mult_list]
        multiples = [_multiples(space, w) for w in range(len(space.widths))]
        space = space.each("width", [sorted({channels[i] for i in picked}) for channels in multiples])
    return space


_EXTRA = 2  # in d of ResNet50D: the most blocks beside those that a stage always has; the stem's convolution is there


def _given(space: SearchSpace) -> list[int]:
    """The stages whose depth `d` holds. It lacks that of ResNet50D's second stem convolution."""
    return [s for s, stage in enumerate(search_space(space.name).stages) if stage.elastic or len(stage.depth) > 1]


def elastic_slots(space: SearchSpace) -> int:
    """How many places of a block the elastic stages have."""
    return sum(max(stage.depth) for stage in space.stages if stage.elastic)


def _depth(space: SearchSpace, stage: int, given: Any) -> int:
    """The number of blocks that an entry of `d` stands for."""
    allowed = space.stages[stage].depth
    known = {d: d for d in allowed}
    if space.widths:
        full = search_space(space.name).stages[stage].depth
        known = {d: int(d == _EXTRA) if 0 in full else d + full[0] for d in range(_EXTRA + 1)}
        known = {d: blocks for d, blocks in known.items() if blocks in allowed}
    elif len(allowed) == 1 and isinstance(given, int):
        given = min(given, allowed[0])
    if not isinstance(given, int) or isinstance(given, bool) or given not in known:
        place = f"arch.d[{_given(space).index(stage)}]"
        raise UserError(place, f"{given!r} is not one of {', '.join(map(str, known))}")
    return known[given]


def _multiples(space: SearchSpace, place: int) -> list[int]:
    """Channels of an elastic width at each of the authors' multipliers."""
    scale = named_settings(space.name)[1].get("width_mult", 1.0)
    return [resnet_widths(multiplier, scale)[place] for multiplier in RESNET_MULTIPLIERS]


def _width(space: SearchSpace, place: int, given: Any) -> int:
    known = RESNET_MULTIPLIERS if isinstance(given, float) else range(len(RESNET_MULTIPLIERS))
    if isinstance(given, bool) or given not in known:
        raise UserError(f"arch.w[{place}]", f"{given!r} is not one of {', '.join(map(str, RESNET_MULTIPLIERS))}, nor "
                        "an index of them")
    return _multiples(space, place)[list(known).index(given)]


def _allowed(value: Any, allowed: Sequence[Value], place: str, name: str) -> Value:
    """The allowed value that is equal to a given one. JSON may give 3 as 3.0."""
    for known in allowed:
        if value == known and not isinstance(value, bool):
            return known
    raise UserError(place, f"{name} {value!r}".lstrip() + f" is not one of {', '.join(f'{v:g}' for v in allowed)}")


def _listed(values: Mapping[str, Any], key: str, length: int, known: Sequence[str]) -> list[Any]:
    if key not in values:
        raise UserError(f"arch.{key}", "is missing", f"an arch dict has {', '.join(known[:-1])}")
    value = values[key]
    listed = value if isinstance(value, list) else [value] * length
    if len(listed) != length:
        raise UserError(f"arch.{key}", f"has {len(listed)} entries instead of {length}")
    return listed
