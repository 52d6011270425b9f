"""What every search space has to do, and so every kind of block in it."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from onceforall.cost import macs, params
from onceforall.cost.population import macs_table
from onceforall.nn import Subnet, Supernet, extract, recalibrate, sort_channels
from onceforall.nn.folding import fold
from onceforall.space import Arch, SearchSpace, lower
from onceforall.weights.nets import Trained, load_supernet, save

CLASSES = 7
SAMPLES = 3  # random sub-networks beside the smallest, the middle and the largest


def check_space(space: SearchSpace) -> None:
    """Check a search space, whether or not it is in the catalogue.

    It trains a step of its supernet, extracts, counts, sorts channels, saves and loads, and where onnxruntime is
    installed it writes an ONNX graph. A space of a few blocks takes seconds.

    Args:
        space: with kinds of block that are registered in `KINDS`.

    Raises:
        AssertionError: a rule does not hold; the message says which.
    """
    rng = random.Random(0)
    archs = list(dict.fromkeys([space.largest, space.middle, space.smallest,
                                *(space.sample(rng) for _ in range(SAMPLES))]))
    _check_values(space, archs)
    net = random_supernet(space)
    for arch in archs:
        _check_subnet(net, arch)
    _check_training(net, archs)
    _check_sorting(net)
    _check_file(net)
    if find_spec("onnx") and find_spec("onnxruntime"):
        _check_onnx(net, space.smallest)


def random_supernet(space: SearchSpace, classes: int = CLASSES) -> Supernet:
    """A supernet in evaluation mode whose parameters and statistics are all random, so that a wrong mapping shows."""
    generator = torch.Generator().manual_seed(0)
    net = Supernet(space, classes, generator=generator).eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if "running_var" in name or "norm.weight" in name:
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif "running_mean" in name or "bias" in name:
                tensor.normal_(0, 0.2, generator=generator)
            elif "kernel_" in name:
                tensor.add_(torch.empty_like(tensor).normal_(0, 0.1, generator=generator))
    return net


def _check_values(space: SearchSpace, archs: list[Arch]) -> None:
    text = json.dumps(space.to_dict())
    assert SearchSpace.from_dict(json.loads(text)) == space, "the rows say everything: `from_dict` of `to_dict`"
    table = macs_table(space, num_classes=CLASSES)
    for arch in archs:
        assert space.contains(arch), f"{arch} is in the space"
        assert Arch.parse(space, str(arch)) == arch, f"the text of {arch} is read back"
        assert space.decode(space.encode(arch)) == arch, f"the encoding of {arch} is read back"
        plan = lower(space, arch, CLASSES)
        assert len({layer.name for layer in plan.layers()}) == len(list(plan.layers())), "names of layers differ"
        priced = float(table.of(np.array([space.encode(arch)]))[0])
        assert priced == macs(space, arch, num_classes=CLASSES), f"{arch} costs the same alone and among many"


def _images(space: SearchSpace, size: int) -> Tensor:
    return torch.rand(2, space.in_channels, size, size, generator=torch.Generator().manual_seed(1))


def _check_subnet(net: Supernet, arch: Arch) -> None:
    images = _images(net.space, arch.resolution)
    plain = extract(net, arch).eval()
    with torch.no_grad():
        logits = plain(images)
        assert logits.shape == (2, CLASSES), "logits are (B, K)"
        assert torch.equal(net(images, arch), logits), f"{arch}: the extracted net answers as the supernet does"
        folded = fold(extract(net, arch)).eval()(images)
    assert torch.allclose(folded, logits, rtol=1e-3, atol=1e-4), f"{arch}: BN folds into the convolutions"
    assert sum(p.numel() for p in plain.parameters()) == params(net.space, arch, num_classes=CLASSES), \
        f"{arch}: parameters are those of the built net"
    assert _counted(plain, images) == macs(net.space, arch, num_classes=CLASSES), f"{arch}: MACs are those that it runs"


def _counted(plain: Subnet, images: Tensor) -> int:
    """Multiply-accumulates of one picture, from the maps that the layers give."""
    counts: list[int] = []
    for module in plain.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(
                lambda layer, _, out: counts.append(out[0].numel() * layer.weight[0].numel()))
    with torch.no_grad():
        plain(images)
    return sum(counts)


def _check_training(net: Supernet, archs: list[Arch]) -> None:
    net = random_supernet(net.space).train()
    for arch in archs:
        net(_images(net.space, arch.resolution), arch).square().mean().backward()
    used = {name for arch in archs for name, _ in extract(net, arch).named_parameters()}
    for name, parameter in net.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), f"{name} has a finite gradient"
        if name in used:
            assert parameter.grad is not None, f"{name} is trained"


def _check_sorting(net: Supernet) -> None:
    largest = net.space.largest
    images, sort = _images(net.space, largest.resolution), random_supernet(net.space)
    with torch.no_grad():
        before = sort(images, largest)
        sort_channels(sort, net.space.top)
        assert torch.allclose(sort(images, largest), before, rtol=1e-3, atol=1e-4), \
            "sorting channels leaves the largest sub-network as it is"
    plain = extract(net, net.space.smallest)
    recalibrate(plain, [_images(net.space, net.space.smallest.resolution)])
    assert all(bool(tensor.isfinite().all()) for tensor in plain.state_dict().values()), "BN is recalibrated"


def _check_file(net: Supernet) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save(Trained(net, net.space), path)
        again = load_supernet(path)
    assert again.space == net.space, "a weights file holds the space"
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items()), \
        "a weights file holds the weights"


def _check_onnx(net: Supernet, arch: Arch) -> None:
    from onnx import numpy_helper
    from onnxruntime import InferenceSession

    from onceforall.nn.onnx_graph import graph
    from onceforall.space.parts import parts

    plain = extract(net, arch).eval()
    folded = fold(plain)
    state = folded.state_dict()

    def tensor(layer, kind, shape):  # type: ignore[no-untyped-def]
        name = f"{layer.name}.conv.{kind}"
        values = state[name if name in state else f"{layer.name}.{kind}"]
        return numpy_helper.from_array(np.ascontiguousarray(values.numpy().reshape(shape)))

    model = graph([part for _, part in parts(folded.plan)], tensor, batch=2, half=False, names=("images", "logits"))
    images = _images(net.space, arch.resolution)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        wanted = plain(images).numpy()
    assert np.allclose(found, wanted, rtol=1e-3, atol=1e-3), "the ONNX graph answers as torch does"
