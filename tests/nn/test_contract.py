"""What holds for every search space: forward == extract, gradients reach what is used, counts of the built net."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from onceforall.cost import macs, params
from onceforall.errors import UserError
from onceforall.nn import Supernet, build, extract, recalibrate, sort_channels
from onceforall.space import CATALOG, search_space
from onceforall.testing.space import random_supernet

SPACES = {name: f"{name}?width_mult=0.35" for name in CATALOG}
SIZES = {"mobilenet_v3_large_64px": 32, "mobilenet_v3_large_32px": 16}  # and 64 for the others


@pytest.fixture(scope="module", params=SPACES)
def case(request):
    space = search_space(SPACES[request.param])
    size = SIZES.get(request.param, 64)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    return space, random_supernet(space).train(), images


def archs(space):
    rng = random.Random(5)
    return [space.largest, space.middle, space.smallest, *(space.sample(rng) for _ in range(2))]


@pytest.mark.slow
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_forward_equals_extract_bit_for_bit(case, memory, training):
    space, net, images = case
    net = copy.deepcopy(net).to(memory_format=memory).train(training)
    images = images.to(memory_format=memory)
    for arch in archs(space):
        plain = extract(net, arch)
        assert all(type(m).__module__.startswith("torch.") for m in plain.modules() if list(m.parameters(False)))
        with torch.random.fork_rng():
            torch.manual_seed(1)
            from_net = net(images, arch)
            torch.manual_seed(1)
            from_plain = plain(images)
        assert torch.equal(from_net, from_plain)
        for name, tensor in extract(net, arch).state_dict().items():  # weights, and statistics after the pass
            assert torch.equal(tensor, plain.state_dict()[name]), name


def test_the_extracted_net_is_a_copy(case):
    space, net, images = case
    plain = extract(net, space.middle).eval()
    before = plain(images)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(1.0)
    assert torch.equal(plain(images), before)
    net.load_state_dict(changed.state_dict())


@pytest.mark.slow
def test_gradients_reach_every_used_and_no_unused_parameter(case):
    space, net, images = case
    net = copy.deepcopy(net).double().train()
    net.dropout = 0.0
    for arch in archs(space):
        net.zero_grad()
        net(images.double(), arch).square().sum().backward()
        plain = extract(net, arch)
        plain(images.double()).square().sum().backward()
        used = {name for name, _ in plain.named_parameters()}
        for name, parameter in net.named_parameters():
            if name in used:
                grad = plain.get_parameter(name).grad
                part = parameter.grad[tuple(slice(n) for n in grad.shape)]
                if ".depthwise" not in name:  # an elastic kernel's gradient passes through its matrices
                    torch.testing.assert_close(part, grad, rtol=1e-9, atol=1e-12)
                assert parameter.grad is not None
            elif "kernel_" in name:
                block = name.split(".conv.")[0]
                there = block in dict(plain.named_modules())
                kernel = plain.get_submodule(f"{block}.conv").kernel_size[0] if there else 7
                larger = int(name.rpartition("_")[2].split("to")[0])
                assert (parameter.grad is not None) == (kernel < larger), name
            else:
                assert parameter.grad is None, name


def test_macs_and_parameters_of_the_built_net(case):
    space, net, images = case
    for arch in archs(space):
        plain = extract(net, arch)
        counted = 0

        def count(module, _, out):
            nonlocal counted
            per_output = module.weight[0].numel()
            counted += out[0].numel() * per_output

        for module in plain.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        plain(torch.zeros(2, 3, arch.resolution, arch.resolution))
        assert counted == macs(space, arch, num_classes=7)
        assert sum(p.numel() for p in plain.parameters()) == params(space, arch, num_classes=7)


def elastic_kernels(space, layer):
    return space.stages[int(layer.name.split(".")[1])].choices.get("kernel", ())


def test_the_largest_subnets_state_is_the_supernets(case):
    space, net, _ = case
    state = {k: v for k, v in net.state_dict().items() if "kernel_" not in k}
    largest = extract(net, space.largest).state_dict()
    assert state.keys() == largest.keys()
    assert all(torch.equal(v, largest[k]) for k, v in state.items())
    extra = sum(v.numel() for k, v in net.state_dict().items() if "kernel_" in k)
    depthwise = [layer for blocks in net.plan(space.largest).stages for block in blocks for layer in block.layers
                 if layer.groups > 1]
    assert extra == sum(sum(k ** 4 for k in elastic_kernels(space, layer)[:-1]) for layer in depthwise)


def test_an_extracted_net_is_rebuilt_from_plan_and_state(case):
    space, net, images = case
    plain = extract(net, space.middle).eval()
    again = build(plain.plan, plain.state_dict(), bn_eps=space.bn_eps).eval()
    assert torch.equal(again(images), plain(images))


def test_sorting_keeps_the_largest_and_what_was_trained(case):
    space, net, images = case
    net = copy.deepcopy(net).double().eval()
    images = images.double()
    trained = space.restrict(expand=sorted({e for stage in space.stages for e in stage.choices.get("expand", ())})[-2:])
    narrow = [trained.smallest, trained.middle, *(trained.sample(random.Random(i)) for i in range(6)), space.largest]
    before = [net(images, arch) for arch in narrow]
    sort_channels(net, trained)
    for arch, logits in zip(narrow, before, strict=True):
        torch.testing.assert_close(net(images, arch), logits, rtol=1e-9, atol=1e-9)
    alone = space.restrict(**{name: [max(v for stage in space.stages for v in stage.choices.get(name, (0,)))]
                              for name in space.dimensions if name != "kernel"})
    sort_channels(net, alone.each("width", [values[-1:] for values in space.widths]))
    torch.testing.assert_close(net(images, space.largest), before[-1], rtol=1e-9, atol=1e-9)
    block = next(block for blocks, stage in zip(net.stages, space.stages, strict=True) for block in blocks[-1:]
                 if len(stage.choices.get("expand", ())) > 1)
    last = net.get_submodule(next(plan.path[-1].name for plan in net.plan(space.largest).blocks()
                                  if net.get_submodule(plan.name) is block))
    importance = last.conv.weight.abs().sum((0, 2, 3))
    assert (importance.diff() <= 0).all()
    if hasattr(block, "se"):
        squeeze = block.se.excite.conv.weight.abs().sum((0, 2, 3))
        assert (squeeze.diff() <= 0).all()


def test_recalibration_gives_the_batches_statistics(case):
    space, net, images = case
    plain = extract(net, space.middle).eval()
    recalibrate(plain, [images])
    assert not plain.training
    norm = plain.stem.norm
    maps = plain.stem.conv(images)
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3), unbiased=False))
    assert norm.momentum == pytest.approx(0.1)
    with pytest.raises(ValueError, match="one shape"):
        recalibrate(plain, [images, images[:1]])


def test_initialisation_follows_the_generator():
    space = search_space("mobilenet_v3_large_32px?width_mult=0.35")
    state = torch.get_rng_state()
    nets = [Supernet(space, 5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), state)
    weights = [net.stages[4][0].expand.conv.weight for net in nets]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    depthwise = nets[0].stages[4][1].depthwise.conv.weight
    assert depthwise.std().item() == pytest.approx((2 / (49 * depthwise.shape[0])) ** 0.5, rel=0.05)


def test_an_arch_outside_the_space_is_refused():
    net = Supernet(search_space("mobilenet_v3_large_32px?width_mult=0.35").restrict(kernel=(7,)), 5)
    with pytest.raises(UserError, match="kernel 3 is not one of 7"):
        net(torch.zeros(1, 3, 16, 16), search_space("mobilenet_v3_large_32px").smallest)
