"""Every space of the catalogue goes the whole way: weights in each form, an extracted folder, a verified file."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from onceforall.deploy.export import Request, export
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.nn import Supernet
from onceforall.space import CATALOG, search_space
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, load_supernet, open_weights, save


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOG)
def test_from_weights_to_a_verified_file(name, digits, tmp_path):
    few = replace(digits, test=digits.test.subset(range(50)))
    evaluator = Evaluator(few, calibration_images=50)
    space = search_space(f"{name}?width_mult=0.15")
    net = Supernet(space, num_classes=10, generator=torch.Generator().manual_seed(5)).eval()
    pictures = {"mean": few.mean, "std": few.std, "classes": few.classes}
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
    (made,) = export(tmp_path / "subnet", Request("onnx"), few).values()
    assert made.verification.pictures.images == 50
    assert made.verification.top1 == made.verification.torch_top1 == found.score.top1
