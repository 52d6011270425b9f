"""The authors' description of a specialised net, beside its weights `init`: `net.config`, and `run.config` with its
input size."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from onceforall.errors import UserError
from onceforall.files import unreadable
from onceforall.interop.nnabla.names import HEADS
from onceforall.nn import Subnet
from onceforall.space import BlockPlan, Layer, Plan
from onceforall.space.parts import as_the_authors
from onceforall.space.plan import GATE, SHORTCUT

NET, RUN = "net.config", "run.config"
_NAMES = {1: "MobileNetV3", 0: "ProxylessNASNets"}  # by the number of convolutions after the global mean
_RESNET = "ResNets"
_ACTS = {"relu": "relu", "relu6": "relu6", "hswish": "h_swish"}


def write(folder: Path, net: Subnet) -> None:
    """Write both files, in the present key style; raises UserError for a family that is none of the authors'."""
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    config = {"name": _name(net.plan), "bn": {"momentum": norm.momentum, "eps": norm.eps},
              **_layers(net.plan)}
    config["classifier"]["dropout_rate"] = next(m.p for m in net.modules() if isinstance(m, nn.Dropout))
    (folder / NET).write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    (folder / RUN).write_text(json.dumps({"image_size": net.plan.resolution}, indent=4) + "\n", encoding="utf-8")


def _name(plan: Plan) -> str:
    """The authors' class of such a net."""
    blocks = list(plan.blocks())
    outside = [plan.stem, *plan.features, *plan.head[:-1]]
    plain = not any(layer.uneven or layer.bias or layer.pool for layer in outside)
    if plain and blocks[-1].layer("conv3") is not None and not any(map(_other_than_resnet_d, plan.layers())):
        return _RESNET
    if plain and all(as_the_authors(block) and block["depthwise"].act in _ACTS for block in blocks):
        return _NAMES[len(plan.head) - 1]
    raise UserError(NET, "is for the authors' families, of which this net is none",
                    "give a file in .pth, which holds its weights under our names")


def _other_than_resnet_d(layer: Layer) -> bool:
    """Whether the authors' ResNet50D has no such layer."""
    strided = layer.role == SHORTCUT and layer.conv_stride > 1
    return strided or layer.groups > 1 or layer.uneven or layer.role in GATE


@dataclass(frozen=True)
class NetConfig:
    """What the two files say: every entry of `net.config`, and what weights alone do not tell."""

    path: Path
    values: Mapping[str, Any]
    image_size: int | None
    bn: tuple[float, float]
    dropout: float

    def check(self, plan: Plan) -> None:
        """Raise UserError where the description says something else than the plan that the weights have."""
        for place, wanted in _facts(_layers(plan)):
            found: Any = self.values
            for part in place:
                found = _part(found, part)
            found = found is not None if place[-1] == "shortcut" else found
            left_out = found is None and (wanted is False or place[-1] == "mid_channels")  # older files have fewer keys
            if found != wanted and not left_out:
                where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in place).lstrip(".")
                raise UserError(f"{self.path}:{where}", f"{found!r} is not {wanted!r}, which the weights have")


def read(folder: Path) -> NetConfig | None:
    """The description in a folder; None where there is none. Raises UserError for a damaged one."""
    path = folder / NET
    if not path.is_file():
        return None
    config = _json(path)
    names = (*_NAMES.values(), _RESNET)
    if config.get("name") not in names:
        raise UserError(f"{path}:name", f"{config.get('name')!r} is not one of {', '.join(names)}")
    size = _json(folder / RUN).get("image_size") if (folder / RUN).is_file() else None
    size = size[0] if isinstance(size, list) and len(size) == 1 else size
    if size is not None and not isinstance(size, int):
        raise UserError(f"{folder / RUN}:image_size", f"{size!r} is not a number of pixels")
    bn = config.get("bn") or {}
    eps = 1e-3 if config["name"] == _NAMES[0] else 1e-5  # as their code has it where the file does not say
    return NetConfig(path, config, size, (_number(path, bn, "momentum", 0.1), _number(path, bn, "eps", eps)),
                     _number(path, config.get("classifier"), "dropout_rate", 0.0))


def _number(path: Path, values: Any, key: str, known: float) -> float:
    value = known if (found := _part(values, key)) is None else found
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise UserError(f"{path}:{key}", f"{value!r} is not a number from 0 to 1")
    return float(value)


def _layers(plan: Plan) -> dict[str, Any]:
    *mixed, classifier = plan.head
    last = {"classifier": {"name": "LinearLayer", "in_features": classifier.inputs, "bias": True,
                           "out_features": classifier.outputs, "use_bn": False, "act_func": None, "dropout_rate": 0.0,
                           "ops_order": "weight_bn_act"}}
    if _name(plan) == _RESNET:
        optional, second, *stages = plan.stages
        stem = [_conv(plan.stem), *(_residual(_conv(block["conv"])) for block in optional), _conv(second[0]["conv"])]
        return {"input_stem": stem, "blocks": [_bottleneck(block) for blocks in stages for block in blocks], **last}
    return {"first_conv": _conv(plan.stem), "blocks": [_block(block) for block in plan.blocks()],
            **{name: _conv(layer) for name, layer in zip(HEADS[len(mixed)], (*plan.features, *mixed), strict=True)},
            **last}


def _conv(layer: Layer) -> dict[str, Any]:
    return {"name": "ConvLayer", "kernel_size": layer.kernel, "stride": layer.stride, "dilation": 1, "groups": 1,
            "bias": False, "has_shuffle": False, "use_se": False, "in_channels": layer.inputs,
            "out_channels": layer.outputs, "use_bn": layer.norm, "act_func": _ACTS[layer.act or ""], "dropout_rate": 0,
            "ops_order": "weight_bn_act"}


def _block(block: BlockPlan) -> dict[str, Any]:
    depthwise, project = block["depthwise"], block["project"]
    inputs = block.layers[0].inputs
    ratio = depthwise.inputs / inputs
    return _residual({"name": "MBConvLayer", "in_channels": inputs, "out_channels": project.outputs,
                      "kernel_size": depthwise.kernel, "stride": depthwise.stride,
                      "expand_ratio": int(ratio) if ratio.is_integer() else ratio,
                      "mid_channels": depthwise.inputs, "act_func": _ACTS[depthwise.act or ""],
                      "use_se": block.layer("reduce") is not None}, added=block.residual)


def _residual(conv: dict[str, Any], *, added: bool = True) -> dict[str, Any]:
    """A layer, and whether its input is added to it."""
    channels = conv["in_channels"]
    identity = {"name": "IdentityLayer", "in_channels": channels, "out_channels": channels, "use_bn": False,
                "act_func": None, "dropout_rate": 0, "ops_order": "weight_bn_act"}
    return {"name": "ResidualBlock", "conv": conv, "shortcut": identity if added else None}


def _bottleneck(block: BlockPlan) -> dict[str, Any]:
    middle, last = block["conv2"], block["conv3"]
    return {"name": "ResNetBottleneckBlock", "in_channels": block["conv1"].inputs, "out_channels": last.outputs,
            "kernel_size": middle.kernel, "stride": middle.stride, "expand_ratio": middle.outputs / last.outputs,
            "mid_channels": middle.outputs, "act_func": _ACTS[block.act or ""], "groups": 1,
            "downsample_mode": "avgpool_conv"}


def _facts(layers: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The entries that decide what the net computes, by their path."""
    conv = ("in_channels", "out_channels", "kernel_size", "stride", "act_func", "use_bn", "use_se")
    for name in ("first_conv", *HEADS[1]):
        for key in conv if name in layers else ():
            yield (name, key), layers[name][key]
    yield ("classifier", "out_features"), layers["classifier"]["out_features"]
    for rows, keys in (("input_stem", conv), ("blocks", ("in_channels", "mid_channels", "out_channels", "kernel_size",
                                                         "stride", "act_func", "use_se", "downsample_mode"))):
        if rows not in layers:
            continue
        yield (rows, len(layers[rows])), None
        for i, row in enumerate(layers[rows]):
            inside = ("conv",) if "conv" in row else ()
            for key in keys:
                if key in (found := row["conv"] if inside else row):
                    yield (rows, i, *inside, key), found[key]
            if inside:
                yield (rows, i, "shortcut"), row["shortcut"] is not None


def _part(values: Any, part: str | int) -> Any:
    """One step down a path; None where there is nothing. A block's layer goes by its present or its older key."""
    if isinstance(part, int):
        return values[part] if isinstance(values, list) and part < len(values) else None
    if not isinstance(values, Mapping):
        return None
    return values.get(part, values.get("mobile_inverted_conv") if part == "conv" else None)


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise UserError(str(path), f"is not readable JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(str(path), "is not a JSON object")
    return values
