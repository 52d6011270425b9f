"""What net a foreign weights file holds, read off the shapes of its arrays."""

from __future__ import annotations

from pathlib import Path

from onceforall.interop.entries import HEADS, Content, Entry
from onceforall.interop.forms import Form
from onceforall.space import Arch, Block, SearchSpace, UserError, lower, search_space
from onceforall.space.plan import make_divisible


class Foreign:
    """A foreign file's arrays by NNablaNAS's names, with the questions that their shapes answer."""

    def __init__(self, path: Path, form: Form, content: Content) -> None:
        self.path, self._form, self._arrays = path, form, content.arrays

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of the array that NNablaNAS calls `name`, in our layout; None where there is none."""
        entry = Entry("", name, trained=True)
        array = self._arrays.get(self._form.key(entry))
        return None if array is None else tuple(self._form.to_ours(entry, array).shape)

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return self.shape(name) is not None

    @property
    def elastic(self) -> bool:
        """Whether it is a supernet: its elastic layers wrap torch's."""
        return self.has("blocks/1/conv/inverted_bottleneck/conv/conv/_W")

    def first(self, name: str) -> int:
        """First entry of a shape that has to be there."""
        shape = self.shape(name)
        if not shape:
            raise UserError(str(self.path), f"has no array {self._form.key(Entry('', name, trained=True))}",
                            "it is of another network")
        return shape[0]

    def conv(self, block: int, layer: str) -> tuple[int, ...] | None:
        """Shape of a convolution's weight in the block of that number, elastic or not."""
        prefix = f"blocks/{block}/conv/{layer}/conv"
        return self.shape(f"{prefix}/conv/_W") or self.shape(f"{prefix}/_W")


def space_of_arrays(file: Foreign, name: str | None) -> SearchSpace:
    """The space the net is of: `name` (by default its family's table for ImageNet), at the width its arrays have."""
    base = name or ("mobilenet_v3_large" if file.has("final_expand_layer/conv/_W") else "proxyless_nas")
    space = search_space(base)
    found = _widths(file)
    if found != _table_widths(space):
        space = _scaled(file, base, found)
    if not file.elastic:
        return space
    matrices = [(a, b) for a, b in ((7, 5), (5, 3)) if file.has(f"blocks/1/conv/depth_conv/conv/{a}to{b}_matrix")]
    return space.restrict(kernel=[7, *(b for _, b in matrices)])


def arch_of_arrays(file: Foreign, space: SearchSpace, resolution: int | None = None) -> Arch:
    """The sub-network that an extracted net's arrays are of, stage by stage, at the space's largest resolution."""
    stages: list[list[Block]] = [[] for _ in space.stages]
    width = lower(space, space.largest).first[-1]["project"].outputs
    number, stage = len(space.stem.stages), 0
    while (project := file.conv(number, "point_linear")) is not None:
        depthwise, place = file.conv(number, "depth_conv"), f"{file.path} block {number}"
        if project[0] != space.stages[stage].width or len(stages[stage]) == max(space.stages[stage].depth):
            stage += 1
        if stage == len(space.stages) or project[0] != space.stages[stage].width or depthwise is None:
            raise UserError(place, f"its {project[0]} output channels do not fit {space.name}",
                            "name the file's search space with --space")
        known = {"kernel": depthwise[-1], "expand": _expand(space, stage, width, depthwise[0], place)}
        stages[stage].append(Block(tuple((name, known[name]) for name, _ in space.stages[stage].elastic)))
        number, width = number + 1, project[0]
    return space.check(Arch(resolution or max(space.resolutions), tuple(tuple(blocks) for blocks in stages)))


def _expand(space: SearchSpace, stage: int, width: int, hidden: int, place: str) -> float:
    for ratio in space.stages[stage].choices["expand"]:
        if make_divisible(round(width * ratio)) == hidden:
            return ratio
    raise UserError(place, f"{hidden} hidden channels on {width} are no expand ratio of {space.name}")


def _widths(file: Foreign) -> list[int]:
    """Output channels of stem, each stage, and head."""
    stages: list[int] = []
    number = 1
    while (project := file.conv(number, "point_linear")) is not None:
        if not stages or stages[-1] != project[0]:
            stages.append(project[0])
        number += 1
    head = [name for name in HEADS[1] if file.has(f"{name}/conv/_W")] or HEADS[0]
    return [file.first("first_conv/conv/_W"), *stages, *(file.first(f"{name}/conv/_W") for name in head)]


def _table_widths(space: SearchSpace) -> list[int]:
    plan = lower(space, space.largest)
    stages = [stage.width for stage in space.stages]
    return [space.stem.width, *(w for i, w in enumerate(stages) if i == 0 or w != stages[i - 1]),
            *(layer.outputs for layer in (*plan.features, *plan.head[:-1]))]


def _scaled(file: Foreign, base: str, found: list[int]) -> SearchSpace:
    """The space at the roundest width multiplier that gives the widths found."""
    if "?" not in base:
        ratio = found[-1] / _table_widths(search_space(base))[-1]
        for digits in (1, 2, 3, 4):
            steps = 10 ** digits
            for k in sorted(range(-4, 5), key=abs):
                width_mult = round(ratio * steps + k) / steps
                space = search_space(base, width_mult=width_mult) if 0.1 <= width_mult <= 8 else None
                if space is not None and _table_widths(space) == found:
                    return space
    raise UserError(str(file.path), f"its widths {found} are not those of {base}",
                    "name the file's search space with --space")
