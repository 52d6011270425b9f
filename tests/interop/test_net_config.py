"""The authors' net.config is written for their families alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onceforall.errors import UserError
from onceforall.interop.mit import net_config
from onceforall.nn import Subnet
from onceforall.space import Gate, SearchSpace, lower, search_space

MOBILE, RESNET = search_space("mobilenet_v3_large_32px"), search_space("resnet50d")


def rows(space: SearchSpace, **changes: object) -> SearchSpace:
    """The space with other rows for its last stage."""
    return replace(space, stages=(*space.stages[:-1], replace(space.stages[-1], **changes)))


def write(space: SearchSpace, folder) -> str:
    net_config.write(folder, Subnet(lower(space, space.smallest)))
    return (folder / net_config.NET).read_text()


def test_their_families(tmp_path):
    assert '"MobileNetV3"' in write(MOBILE, tmp_path)
    assert '"ResNets"' in write(RESNET, tmp_path)


@pytest.mark.parametrize("space", [
    replace(MOBILE, padding="same"), replace(MOBILE, head=replace(MOBILE.head, mix_bias=True)),
    replace(MOBILE, stem=replace(MOBILE.stem, pool=True)), rows(MOBILE, se=Gate(ratio=0.5)),
    rows(MOBILE, acts=(("depthwise", None),)), rows(MOBILE, fixed=(("start", 3),)),
    rows(RESNET, fixed=(("strided", 1),)), rows(RESNET, fixed=(("group_width", 8),)), rows(RESNET, se=True),
    replace(RESNET, padding="same")], ids=range(10))
def test_others_are_refused(space, tmp_path):
    with pytest.raises(UserError, match="is for the authors' families, of which this net is none"):
        write(space, tmp_path)
