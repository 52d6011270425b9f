"""What net a foreign weights file holds, read off the shapes of its arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from onceforall.errors import UserError
from onceforall.interop.mit import net_config
from onceforall.interop.nnabla.names import HEADS
from onceforall.space import Arch, Block, SearchSpace, lower, search_space
from onceforall.space.plan import make_divisible
from onceforall.weights.about import About


class Foreign:
    """A foreign file's arrays by NNablaNAS's names, with the questions that their shapes answer.

    `key`: the file's name of an array, by NNablaNAS's. Only convolutions and biases are asked for, whose layout is the
    same in every form.
    """

    def __init__(self, path: Path, arrays: Mapping[str, Tensor], *, key: Callable[[str], str]) -> None:
        self.path, self._arrays, self._key = path, arrays, key

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of the array that NNablaNAS calls `name`; None where there is none."""
        array = self._arrays.get(self._key(name))
        return None if array is None else tuple(array.shape)

    def has(self, name: str) -> bool:
        """Whether there is such an array."""
        return self.shape(name) is not None

    def about(self, name: str | None) -> About:
        """What net it holds, as far as shapes tell.

        Args:
            name: its search space; None: its family's table for ImageNet.
        """
        classes = self.classes
        space = space_of_arrays(self, name)
        about = About(kind="supernet", space=space.to_dict(), num_classes=classes, bn=(0.1, space.bn_eps))
        if self.elastic:
            return about
        config = net_config.read(self.path.parent) if self.path.name == "init" else None
        arch = arch_of_arrays(self, space, config.image_size if config else None)
        about = about.model_copy(update={"kind": "subnet", "arch": str(arch)})
        if config is None:
            return about
        config.check(lower(space, arch, classes))
        return about.model_copy(update={"bn": config.bn, "dropout": config.dropout})

    @property
    def elastic(self) -> bool:
        """Whether it is a supernet: its elastic layers wrap torch's."""
        return any(map(self.has, ("blocks/1/conv/inverted_bottleneck/conv/conv/_W", "input_stem/0/conv/conv/_W",
                                  "middleblocks/0/_depth_conv1/dwconv/conv/_W")))

    @property
    def classes(self) -> int:
        """Classes it tells apart."""
        names = ("classifier/0/linear/linear/_b", "classifier/0/linear/_b")
        return self.first(next(filter(self.has, names), "classifier/linear/_b"))

    @property
    def family(self) -> str:
        """The catalogue's table for ImageNet that it is of."""
        if self.has("input_stem/0/bn/_mean") or self.has("input_stem/0/bn/bn/_mean"):
            return "resnet50d"
        if self.has("second_conv/conv/_W"):
            sixteen = self.has("middleblocks/15/_depth_conv1/dwconv/conv/_W") or self.has(
                "middleblocks/15/rep/sepconv1/dwconv/_W")
            return "xception65" if sixteen else "xception41"
        return "mobilenet_v3_large" if self.has("final_expand_layer/conv/_W") else "proxyless_nas"

    def first(self, name: str) -> int:
        """The first entry of the shape of an array; raises UserError where there is no such array."""
        shape = self.shape(name)
        if not shape:
            raise UserError(str(self.path), f"has no array {self._key(name)}",
                            "it is of another network")
        return shape[0]

    def layer(self, name: str) -> tuple[int, ...] | None:
        """Shape of a convolution's weight, elastic or not."""
        return self.shape(f"{name}/conv/conv/_W") or self.shape(f"{name}/conv/_W")


def space_of_arrays(file: Foreign, name: str | None) -> SearchSpace:
    """The space the net is of: `name` (by default its family's table for ImageNet), at the width its arrays have."""
    base = name or file.family
    space = search_space(base)
    if _kind(space) != _kind(search_space(file.family)):
        raise UserError(str(file.path), f"its arrays are not of {base}", f"they look like those of {file.family}")
    found = _widths(file, space)
    if found != _table_widths(space, found):
        space = _scaled(file, base, found)
    kernels = space.stages[0].choices.get("kernel", ())
    if not file.elastic or not kernels:
        return space
    places = ("blocks/1/conv/depth_conv/conv", "middleblocks/0/_depth_conv1/dwconv")
    smaller = [b for b, a in pairwise(kernels) if any(file.has(f"{place}/{a}to{b}_matrix") for place in places)]
    return space.restrict(kernel=[*smaller, kernels[-1]])


def _kind(space: SearchSpace) -> tuple[str, bool]:
    """What tells families apart whose arrays have other names."""
    return space.stages[-1].kind, bool(space.widths)


def arch_of_arrays(file: Foreign, space: SearchSpace, resolution: int | None = None) -> Arch:
    """The sub-network that an extracted net's arrays are of, stage by stage, at the space's largest resolution."""
    if file.family == "resnet50d":
        return _resnet_arch(file, space, resolution)
    if file.family.startswith("xception"):
        return _xception_arch(file, space, resolution)
    stages: list[list[Block]] = [[] for _ in space.stages]
    width = lower(space, space.largest).first[-1]["project"].outputs
    number, stage = len(space.stem.stages), 0
    while (project := file.layer(f"blocks/{number}/conv/point_linear")) is not None:
        depthwise, place = file.layer(f"blocks/{number}/conv/depth_conv"), f"{file.path} block {number}"
        if project[0] != space.stages[stage].width or len(stages[stage]) == max(space.stages[stage].depth):
            stage += 1
        if stage == len(space.stages) or project[0] != space.stages[stage].width or depthwise is None:
            raise UserError(place, f"its {project[0]} output channels do not fit {space.name}",
                            "name the file's search space with --space")
        known = {"kernel": depthwise[-1], "expand": _expand(space, stage, width, depthwise[0], place)}
        stages[stage].append(space.stages[stage].block(known))
        number, width = number + 1, project[0]
    return space.check(Arch(resolution or max(space.resolutions), tuple(tuple(blocks) for blocks in stages)))


def _resnet_arch(file: Foreign, space: SearchSpace, resolution: int | None) -> Arch:
    optional = file.layer("input_stem/1/conv")
    widths = [file.first("input_stem/0/conv/_W"), file.first(f"input_stem/{1 if optional is None else 2}/conv/_W")]
    stages: list[list[Block]] = []
    number = 0
    while (last := file.layer(f"blocks/{number}/conv3")) is not None:
        if file.layer(f"blocks/{number}/downsample") is not None:
            stages.append([])
            widths.append(last[0])
        place = f"{file.path} block {number}"
        if not stages or len(stages) > len(space.stages) - 2:
            raise UserError(place, f"begins no stage of {space.name}", "it is of another network")
        stage = len(stages) + 1
        stages[-1].append(space.stages[stage].block({"expand": _expand(space, stage, widths[-1], last[1], place)}))
        number += 1
    fixed = [space.stages[0].end(-1) if optional is not None else (), space.stages[1].end(-1)]
    return space.check(Arch(resolution or max(space.resolutions), (*fixed, *map(tuple, stages)), tuple(widths)))


def _xception_arch(file: Foreign, space: SearchSpace, resolution: int | None) -> Arch:
    middle: list[Block] = []
    while (first := file.shape(f"middleblocks/{len(middle)}/rep/sepconv1/dwconv/_W")) is not None:
        prefix, place = f"middleblocks/{len(middle)}/rep/sepconv", f"{file.path} middle block {len(middle)}"
        layers = next((n for n in (3, 2, 1) if file.has(f"{prefix}{n}/dwconv/_W")), 1)
        hidden = file.first(f"{prefix}1/pointwise/_W")
        expand = 1 if layers == 1 else _expand(space, 0, first[0], hidden, place)
        middle.append(space.stages[0].block({"kernel": first[-1], "layers": layers, "expand": expand}))
    fixed = [stage.end(-1) for stage in space.stages[1:]]
    return space.check(Arch(resolution or max(space.resolutions), (tuple(middle), *fixed)))


def _expand(space: SearchSpace, stage: int, width: int, hidden: int, place: str) -> float:
    for ratio in space.stages[stage].choices["expand"]:
        if make_divisible(round(width * ratio)) == hidden:
            return ratio
    raise UserError(place, f"{hidden} hidden channels on {width} are no expand ratio of {space.name}")


def _widths(file: Foreign, space: SearchSpace) -> list[int]:
    """The output channels by which one can tell at which width a family's table is."""
    if space.stages[-1].kind == "bottleneck":  # the widths of a sub-network do not tell its table's
        names = ("input_stem/0", *(f"blocks/{n}/conv3" for n in (0, 4, 8, 14)))
        return [found[0] for name in names if (found := file.layer(name))] if file.elastic else []
    if space.stages[-1].kind == "sepconv":
        return [file.first("first_conv/conv/_W"), file.first("expand_block2/pointwise/_W")]
    stages: list[int] = []
    number = 1
    while (project := file.layer(f"blocks/{number}/conv/point_linear")) is not None:
        if not stages or stages[-1] != project[0]:
            stages.append(project[0])
        number += 1
    head = [name for name in HEADS[1] if file.has(f"{name}/conv/_W")] or HEADS[0]
    return [file.first("first_conv/conv/_W"), *stages, *(file.first(f"{name}/conv/_W") for name in head)]


def _table_widths(space: SearchSpace, found: Sequence[int]) -> list[int]:
    """The same channels of a space's table."""
    plan = lower(space, space.largest)
    outputs = [blocks[-1].path[-1].outputs for blocks in plan.stages]
    if space.stages[-1].kind == "bottleneck":
        return [plan.stem.outputs, *outputs[2:]] if found else []
    if space.stages[-1].kind == "sepconv":
        return [plan.stem.outputs, outputs[-1]]
    return [plan.stem.outputs, *(w for i, w in enumerate(outputs) if i == 0 or w != outputs[i - 1]),
            *(layer.outputs for layer in (*plan.features, *plan.head[:-1]))]


def _scaled(file: Foreign, base: str, found: list[int]) -> SearchSpace:
    """The space at the roundest width multiplier that gives the widths found."""
    if "?" not in base:
        ratio = found[-1] / _table_widths(search_space(base), found)[-1]
        for digits in (1, 2, 3, 4):
            steps = 10 ** digits
            for k in sorted(range(-4, 5), key=abs):
                width_mult = round(ratio * steps + k) / steps
                space = search_space(base, width_mult=width_mult) if 0.1 <= width_mult <= 8 else None
                if space is not None and _table_widths(space, found) == found:
                    return space
    raise UserError(str(file.path), f"its widths {found} are not those of {base}",
                    "name the file's search space with --space")
