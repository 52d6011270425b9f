"""BN folding: the same answers without normalisation."""

from __future__ import annotations

import torch
from torch import nn

from onceforall.nn import Supernet, extract
from onceforall.nn.folding import fold
from onceforall.space import search_space


def test_folded_nets_answer_the_same():
    space = search_space("mobilenet_v3_large_32px", width_mult=0.25)
    net = Supernet(space, 7, generator=torch.Generator().manual_seed(0)).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 2)
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_()
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    for arch in (space.smallest, space.middle, space.largest):
        plain = extract(net, arch)
        folded = fold(plain)
        assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
        assert any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
        torch.testing.assert_close(folded(images), plain(images), rtol=1e-9, atol=1e-9)
        assert [layer.name for layer in plain.plan.layers() if layer.norm] == [
            name.removesuffix(".conv") for name, m in folded.named_modules() if isinstance(m, nn.Conv2d)
            and plain.get_submodule(name).bias is None and m.bias is not None]
