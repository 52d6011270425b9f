"""Every space of the catalogue goes the whole way: weights in each form, an extracted folder, a verified file."""

from __future__ import annotations

import random

import pytest
import torch

from onceforall.cli import main
from onceforall.deploy.description import read_description
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.nn import Supernet
from onceforall.space import CATALOG, search_space
from onceforall.weights.nets import Trained, load_supernet, open_weights, save


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOG)
def test_from_weights_to_a_verified_file(name, evaluator, tmp_path, capsys):
    space = search_space(f"{name}?width_mult=0.15")
    net = Supernet(space, num_classes=10, generator=torch.Generator().manual_seed(5)).eval()
    pictures = {"mean": evaluator.data.mean, "std": evaluator.data.std, "classes": evaluator.data.classes}
    for suffix in ("h5", "safetensors", "pth"):
        save(Trained(net, space, None, pictures), tmp_path / f"net.{suffix}")
        again = load_supernet(tmp_path / f"net.{suffix}")
        assert again.space == space
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in net.state_dict().items())
        assert again.stem.norm.eps == net.stem.norm.eps == space.bn_eps
    arch = space.sample(random.Random(1)).at(min(space.resolutions))
    subnet = evaluator.subnet(net, arch)
    found = Scored.of(evaluator, subnet, space, arch)
    save_subnet(found.extracted, tmp_path / "subnet", source=tmp_path / "net.h5")
    assert open_weights(tmp_path / "subnet" / "model.safetensors").arch == arch
    with pytest.raises(SystemExit) as end:
        main(["export", str(tmp_path / "subnet"), "--to", "onnx"])
    assert end.value.code == 0, capsys.readouterr().err
    (made,) = read_description(tmp_path / "subnet").exports.values()
    assert made.verification.top1 == made.verification.torch_top1 == found.score.top1
