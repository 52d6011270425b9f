"""Published networks as rows: each a space of one sub-network."""

from __future__ import annotations

from collections.abc import Sequence

from onceforall.space import BlockRow, Gate, Head, SearchSpace, StageSpace, Stem

PLAIN = Gate(of="inputs", divisor=1, gate="sigmoid")  # of RegNet; EfficientNet's has swish inside
EFFICIENT = Gate(of="inputs", divisor=1, act="swish", gate="sigmoid")


def row(width: int, depth: int, stride: int, act: str, *, se: bool | Gate = False, kind: str = "mbconv",
        blocks: Sequence[dict[str, float]] = (), **fixed: float) -> StageSpace:
    """A stage of so many blocks, with what is fixed in all of them, or in one after the other."""
    return StageSpace(width, (depth,), stride, act, se, (), kind, tuple(fixed.items()),
                      blocks=tuple(BlockRow(fixed=tuple(values.items())) for values in blocks))


def space(name: str, stem: Stem, rows: Sequence[StageSpace], head: Head, *, eps: float = 1e-5, size: int = 224,
          padding: str = "centre") -> SearchSpace:
    return SearchSpace(name, (size,), stem, tuple(rows), head, bn_eps=eps, padding=padding)


def mobilenet_v2() -> SearchSpace:
    rows = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    return space("mobilenet_v2", Stem(32, 2, "relu6"), [
        row(width, depth, stride, "relu6", kernel=3, expand=expand) for expand, width, depth, stride in rows],
        Head(1280, 0, "relu6"))


def mobilenet_v3_large() -> SearchSpace:
    return space("mobilenet_v3_large", Stem(16, 2, "hswish"), (
        row(16, 1, 1, "relu", kernel=3, hidden=16),
        row(24, 2, 2, "relu", kernel=3, blocks=[{"hidden": 64}, {"hidden": 72}]),
        row(40, 3, 2, "relu", se=True, kernel=5, blocks=[{"hidden": 72}, {"hidden": 120}, {"hidden": 120}]),
        row(80, 4, 2, "hswish", kernel=3, blocks=[{"hidden": 240}, {"hidden": 200}, {"hidden": 184}, {"hidden": 184}]),
        row(112, 2, 1, "hswish", se=True, kernel=3, blocks=[{"hidden": 480}, {"hidden": 672}]),
        row(160, 3, 2, "hswish", se=True, kernel=5, blocks=[{"hidden": 672}, {"hidden": 960}, {"hidden": 960}])),
        Head(960, 1280, "hswish", mix_bias=True), eps=1e-3)


def mobilenet_v3_small() -> SearchSpace:
    return space("mobilenet_v3_small", Stem(16, 2, "hswish"), (
        row(16, 1, 2, "relu", se=True, kernel=3, hidden=16),
        row(24, 2, 2, "relu", kernel=3, blocks=[{"hidden": 72}, {"hidden": 88}]),
        row(40, 3, 2, "hswish", se=True, kernel=5, expand=6, blocks=[{"hidden": 96}, {}, {}]),
        row(48, 2, 1, "hswish", se=True, kernel=5, expand=3),
        row(96, 3, 2, "hswish", se=True, kernel=5, expand=6)),
        Head(576, 1024, "hswish", mix_bias=True), eps=1e-3)


def efficientnet_b0(name: str = "efficientnet_b0", *, act: str = "swish", se: bool | Gate = EFFICIENT,
                    eps: float = 1e-5, padding: str = "centre") -> SearchSpace:
    rows = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3),
            (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))
    return space(name, Stem(32, 2, act), [
        row(width, depth, stride, act, se=se, kernel=kernel, expand=expand)
        for expand, kernel, stride, width, depth in rows], Head(1280, 0, act), eps=eps, padding=padding)


def efficientnet_v2_s() -> SearchSpace:
    fused = ((1, 1, 24, 2), (4, 2, 48, 4), (4, 2, 64, 4))
    rows = ((4, 2, 128, 6), (6, 1, 160, 9), (6, 2, 256, 15))
    return space("efficientnet_v2_s", Stem(24, 2, "swish"), (
        *(row(width, depth, stride, "swish", kind="fused_mbconv", expand=expand)
          for expand, stride, width, depth in fused),
        *(row(width, depth, stride, "swish", se=EFFICIENT, kernel=3, expand=expand)
          for expand, stride, width, depth in rows)), Head(1280, 0, "swish"), eps=1e-3)


def mnasnet1_0() -> SearchSpace:
    rows = ((3, 3, 2, 24, 3), (5, 3, 2, 40, 3), (5, 6, 2, 80, 3), (3, 6, 1, 96, 2), (5, 6, 2, 192, 4),
            (3, 6, 1, 320, 1))
    return space("mnasnet1_0", Stem(32, 2, "relu"), (
        row(16, 1, 1, "relu", kernel=3), *(row(width, depth, stride, "relu", kernel=kernel, expand=expand)
                                           for kernel, expand, stride, width, depth in rows)), Head(1280, 0, "relu"))


def resnet50(name: str = "resnet50", *, se: bool | Gate = False, groups: int = 1, expand: float = 0.25) -> SearchSpace:
    rows = ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))
    return space(name, Stem(64, 2, "relu", kernel=7, pool=True), [
        row(width, depth, stride, "relu", se=se, kind="bottleneck", expand=expand, strided=1,
            group_width=width * expand / groups) for width, depth, stride in rows], Head(0, 0, "relu"))


def resnext50_32x4d() -> SearchSpace:
    return resnet50("resnext50_32x4d", groups=32, expand=0.5)


def seresnet50() -> SearchSpace:
    return resnet50("seresnet50", se=Gate(ratio=1 / 16, gate="sigmoid", place="end"))


def regnet(name: str, rows: Sequence[tuple[int, int]], group_width: int, *, se: bool | Gate = False) -> SearchSpace:
    return space(name, Stem(32, 2, "relu"), [
        row(width, depth, 2, "relu", se=se, kind="bottleneck", group_width=group_width, strided=1)
        for width, depth in rows], Head(0, 0, "relu"))


def regnet_x_400mf() -> SearchSpace:
    return regnet("regnet_x_400mf", ((32, 1), (64, 2), (160, 7), (400, 12)), 16)


def regnet_y_400mf() -> SearchSpace:
    return regnet("regnet_y_400mf", ((48, 1), (104, 3), (208, 6), (440, 6)), 8, se=PLAIN)


def mobilenetv4_conv_small() -> SearchSpace:
    def conv(width: int, stride: int, kernel: int) -> StageSpace:
        return row(width, 1, stride, "relu", kind="conv", kernel=kernel, noskip=1)

    return space("mobilenetv4_conv_small", Stem(32, 2, "relu"), (
        conv(32, 2, 3), conv(32, 1, 1), conv(96, 2, 3), conv(64, 1, 1),
        row(96, 6, 2, "relu", blocks=[
            {"start": 5, "kernel": 5, "expand": 3}, *[{"kernel": 3, "expand": 2}] * 4, {"start": 3, "expand": 4}]),
        row(128, 6, 2, "relu", blocks=[
            {"start": 3, "kernel": 3, "expand": 6}, {"start": 5, "kernel": 5, "expand": 4},
            {"kernel": 5, "expand": 4}, {"kernel": 5, "expand": 3}, *[{"kernel": 3, "expand": 4}] * 2])),
        Head(960, 1280, "relu", mix_norm=True))


def mobilenetv4_conv_medium() -> SearchSpace:
    """A block's kernel before the expansion, after it, and its ratio."""
    def uib(width: int, *blocks: tuple[int, int, int]) -> StageSpace:
        return row(width, len(blocks), 2, "relu", blocks=[
            dict(zip(("start", "kernel", "expand"), values, strict=True)) for values in blocks])

    return space("mobilenetv4_conv_medium", Stem(32, 2, "relu"), (
        row(48, 1, 2, "relu", kind="fused_mbconv", expand=4),
        uib(80, (3, 5, 4), (3, 3, 2)),
        uib(160, (3, 5, 6), (3, 3, 4), (3, 3, 4), (3, 5, 4), (3, 3, 4), (3, 0, 4), (0, 0, 2), (3, 0, 4)),
        uib(256, (5, 5, 6), (5, 5, 4), (3, 5, 4), (3, 5, 4), (0, 0, 4), (3, 0, 4), (3, 5, 2), (5, 5, 4), (0, 0, 4),
            (0, 0, 4), (5, 0, 2))), Head(960, 1280, "relu", mix_norm=True))


def resnet50d() -> SearchSpace:
    """Three convolutions in the stem, mean pooling on the shortcuts."""
    conv = row(32, 1, 1, "relu", kind="conv", noskip=1)
    pooled = row(64, 1, 1, "relu", kind="conv", noskip=1, pool=1)
    stages = ((256, 3, 1), (512, 4, 2), (1024, 6, 2), (2048, 3, 2))
    return space("resnet50d", Stem(32, 2, "relu"), (conv, pooled, *(
        row(width, depth, stride, "relu", kind="bottleneck", expand=0.25) for width, depth, stride in stages)),
        Head(0, 0, "relu"))


def tf_efficientnet_b0() -> SearchSpace:
    return efficientnet_b0("tf_efficientnet_b0", eps=1e-3, padding="same")


def tf_efficientnet_lite0() -> SearchSpace:
    return efficientnet_b0("tf_efficientnet_lite0", act="relu6", se=False, eps=1e-3, padding="same")


TORCHVISION = {make().name: make() for make in (
    mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small, efficientnet_b0, efficientnet_v2_s, mnasnet1_0, resnet50,
    resnext50_32x4d, regnet_x_400mf, regnet_y_400mf)}
TIMM = {make().name: make() for make in (
    mobilenetv4_conv_small, mobilenetv4_conv_medium, tf_efficientnet_b0, tf_efficientnet_lite0, resnet50d,
    seresnet50)}
