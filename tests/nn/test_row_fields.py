"""A supernet whose rows have what published networks vary: it trains, and what is taken out of it answers the same."""

from __future__ import annotations

import copy
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from onceforall.cost import macs, params
from onceforall.cost.memory import peak_memory
from onceforall.cost.population import macs_table, memory_table
from onceforall.errors import UserError
from onceforall.nn import Shared, Supernet, extract, sort_channels
from onceforall.nn.folding import fold
from onceforall.space import Arch, Gate, Head, SearchSpace, StageSpace, Stem, lower
from onceforall.space.parts import parts
from onceforall.space.rows import elastic
from onceforall.testing.space import random_supernet

UIB = StageSpace(16, (1, 2), 2, "relu", se=Gate(ratio=0.5, of="inputs", divisor=1, act="swish", gate="sigmoid"),
                 elastic=elastic({"start": (0, 3, 5), "kernel": (0, 3, 5), "expand": (1, 2)}),
                 fixed=(("expansion", 1),))
FUSED = StageSpace(24, (1, 2), 2, "swish", se=False, elastic=elastic({"kernel": (3, 5), "expand": (2, 4)}),
                   kind="fused_mbconv")
CONV = StageSpace(0, (0, 1), 1, "relu", se=False, elastic=elastic({"kernel": (1, 3)}), kind="conv")
GROUPED = StageSpace((32, 48), (1, 2), 2, "relu", se=Gate(place="end"),
                     elastic=elastic({"kernel": (3, 5), "expand": (0.5, 1)}), kind="bottleneck",
                     fixed=(("group_width", 16), ("strided", 1)))
LINEAR = StageSpace(40, (1,), 1, "hswish", se=True, elastic=elastic({"kernel": (3, 5), "expand": (2, 3)}),
                    acts=(("depthwise", None),))
BASIC = StageSpace(24, (1, 2), 2, "gelu", se=Gate(place="end"), kind="basic",
                   elastic=elastic({"fraction": (0.5, 1), "kernel": (3, 5)}), fixed=(("hidden", 32), ("squeezed", 5)))
MISH = StageSpace(32, (1, 2), 2, "mish", se=Gate(), elastic=elastic({"fraction": (0.5, 0.75, 1)}), kind="bottleneck",
                  fixed=(("hidden", 48), ("group_width", 12), ("squeezed", 3)))
SPACE = SearchSpace("fields", (33, 40), Stem(8, 1, "relu", kernel=5, pool=True), (UIB, FUSED, CONV, GROUPED, LINEAR),
                    Head(48, 32, "hswish", mix_norm=True), padding="same")
SPACES = {"same": SPACE, "centre": replace(SPACE, padding="centre", head=replace(SPACE.head, mix_norm=False,
                                                                                mix_bias=True)),
          "basic": replace(SPACE, stages=(BASIC, MISH))}


def test_plan_of_a_basic_block():
    plan = lower(SPACES["basic"], SPACES["basic"].middle)
    first, second = plan.stages[0][0], plan.stages[1][0]
    assert [(layer.role, layer.outputs, layer.kernel, layer.stride, layer.act) for layer in first.layers] == [
        ("conv1", 32, 5, 2, "gelu"), ("conv2", 24, 5, 1, None), ("reduce", 5, 1, 1, "relu"),
        ("excite", 24, 1, 1, "hsigmoid"), ("shortcut", 24, 1, 2, None)]
    assert (first.act, first.shortcut.pool, second["reduce"].outputs) == ("gelu", "mean", 3)
    assert (second["conv2"].outputs, second["conv2"].groups) == (36, 3)


@pytest.fixture(params=SPACES)
def space(request) -> SearchSpace:
    return SPACES[request.param]


@pytest.fixture
def net(space) -> Supernet:
    """All parameters, statistics and kernel matrices are random, so that a wrong mapping shows."""
    net = random_supernet(space, 5)
    net.dropout = 0.0
    return net


def archs(space: SearchSpace) -> list[Arch]:
    rng = random.Random(2)
    return [space.smallest, space.middle, space.largest, *(space.sample(rng) for _ in range(5))]


def pictures(size: int, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("training", [False, True])
def test_forward_equals_extract_at_any_size(net, training):
    for arch in archs(net.space):
        for size in (32, 33, 35, 40):
            plain = extract(net.train(training), arch)
            assert torch.equal(net(pictures(size), arch), plain(pictures(size)))


def test_a_step_trains_it(net):
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.05)
    images, labels = pictures(33, 8), torch.arange(8) % 5
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        used = [net.space.largest, net.space.smallest]
        shared = Shared(net, images, used)
        loss = sum(F.cross_entropy(shared(arch), labels) for arch in used)
        loss.backward()
        shared.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for name, parameter in net.named_parameters() if "kernel_" not in name)


def test_sharing_changes_nothing(net):
    shared = Shared(net, pictures(33), archs(net.space))
    for arch in archs(net.space):
        torch.testing.assert_close(shared(arch), net(pictures(33), arch), rtol=1e-4, atol=1e-5)


def test_a_depthwise_layer_that_may_be_left_out_is_not_shared():
    stage = replace(UIB, elastic=elastic({"kernel": (0, 3), "expand": (2, 4)}))
    space = replace(SPACE, stages=(stage, *SPACE.stages[1:]))
    net = Supernet(space, 5, dropout=0.0, generator=torch.Generator().manual_seed(0)).eval()
    shared = Shared(net, pictures(33), [space.largest, space.smallest])
    for arch in (space.largest, space.smallest):
        torch.testing.assert_close(shared(arch), net(pictures(33), arch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", ["same", "centre"], indirect=True)
def test_elastic_kernels_of_all_kinds_of_layers(net):
    steps = {name.rpartition(".conv.kernel_")[0] for name in net.state_dict() if "kernel_" in name}
    roles = {(int(words[1]), words[-1]) for words in (name.split(".") for name in steps)}
    assert roles == {(0, "start"), (0, "depthwise"), (1, "expand"), (2, "conv"), (3, "conv2"), (4, "depthwise")}
    assert "stages.3.0.conv2.conv.kernel_5to3" in net.state_dict()


@pytest.mark.parametrize("space", ["same", "centre"], indirect=True)
def test_plans(space):
    plan = lower(space, space.largest)
    first = plan.stages[0][0]
    assert (plan.stem.size, plan.stem.conv_size, plan.stem.out_size) == (40, 40, 20)
    assert [(layer.role, layer.stride, layer.act) for layer in first.path] == [
        ("start", 1, None), ("expand", 1, "relu"), ("depthwise", 2, "relu"), ("reduce", 1, "swish"),
        ("excite", 1, "sigmoid"), ("project", 1, None)]
    assert (first["reduce"].outputs, first["expand"].outputs) == (4, 16)  # half of 8 that come in
    assert plan.stages[4][0]["depthwise"].act is None and plan.stages[4][0]["expand"].act == "hswish"
    assert plan.stages[3][0]["conv2"].groups == 3 and plan.stages[3][0].last.role == "conv3"
    assert plan.stages[3][0]["shortcut"].conv_stride == 2
    smallest = lower(space, space.smallest)
    assert [(layer.role, layer.stride) for layer in smallest.stages[0][0].path] == [
        ("expand", 1), ("reduce", 1), ("excite", 1), ("project", 2)]
    early = replace(UIB, fixed=(*UIB.fixed, ("early_stride", 1)))
    path = lower(replace(space, stages=(early,)), Arch(40, (early.end(-1),))).stages[0][0].path
    assert [layer.stride for layer in path if layer.role in ("start", "depthwise")] == [2, 1]
    for blocks in plan.stages:
        for block in blocks:
            maps = [layer for layer in block.path if layer.role not in ("reduce", "excite")]
            assert all((a.outputs, a.out_size) == (b.inputs, b.size) for a, b in pairwise(maps))


def test_costs(space):
    drawn = archs(space)
    codes = np.array([space.encode(arch) for arch in drawn])
    assert macs_table(space).of(codes).tolist() == [macs(space, arch) for arch in drawn]
    assert memory_table(space).of(codes).tolist() == [peak_memory(space, arch) for arch in drawn]


def test_macs_and_parameters_of_the_built_net(net):
    for arch in archs(net.space):
        plain, counted = extract(net, arch), []

        def count(module, _, out, counted=counted):
            counted.append(out[0].numel() * module.weight[0].numel())

        for module in plain.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(count)
        plain(pictures(arch.resolution, 2))
        assert sum(counted) == macs(net.space, arch, num_classes=5)
        assert sum(p.numel() for p in plain.parameters()) == params(net.space, arch, num_classes=5)


@pytest.mark.parametrize("space", ["same", "centre"], indirect=True)
def test_sorting_keeps_what_was_trained(net):
    net = copy.deepcopy(net).double()
    trained = net.space.restrict(start=(3, 5), kernel=(0, 3, 5, 1))
    kept = [trained.smallest, trained.largest, *(trained.sample(random.Random(i)) for i in range(8))]
    before = [net(pictures(33).double(), arch) for arch in kept]
    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sort_channels(net, trained)
    for arch, logits in zip(kept, before, strict=True):
        torch.testing.assert_close(net(pictures(33).double(), arch), logits, rtol=1e-9, atol=1e-9)
    moved = {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, weights[name])}
    assert {"stages.0.0.project.conv.weight", "stages.1.0.project.conv.weight"} <= moved
    assert not any("stages.3" in name for name in moved)  # channels keep to their groups
    sort_channels(net, net.space.top)
    torch.testing.assert_close(net(pictures(33).double(), net.space.largest), before[1], rtol=1e-9, atol=1e-9)


def test_folding(net):
    for arch in archs(net.space)[:4]:
        plain = extract(net, arch)
        torch.testing.assert_close(fold(plain)(pictures(33)), plain(pictures(33)), rtol=1e-3, atol=1e-4)


def test_onnx(net):
    pytest.importorskip("onnxruntime")
    from onnx import numpy_helper
    from onnxruntime import InferenceSession

    from onceforall.nn.onnx_graph import graph
    for arch in archs(net.space)[:5]:
        folded = fold(extract(net, arch))
        state = folded.state_dict()

        def tensor(layer, kind, shape, state=state):
            name = f"{layer.name}.{kind}" if layer.role == "classifier" else f"{layer.name}.conv.{kind}"
            return numpy_helper.from_array(state[name].numpy().reshape(shape))

        model = graph([part for _, part in parts(folded.plan)], tensor, batch=3)
        session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        expected = folded(pictures(arch.resolution)).detach().numpy()
        found = session.run(None, {"images": pictures(arch.resolution).numpy()})[0]
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_parts_of_one_name_are_one_part(space):
    """What is timed under a name is what every sub-network has there."""
    known = {}
    both = [space, replace(space, padding="centre" if space.padding == "same" else "same"),
            replace(space, stem=replace(space.stem, kernel=3))]
    for each in both:
        for arch in archs(each):
            for name, part in parts(lower(each, arch)):
                layers = getattr(part, "layers", (part,))
                shape = tuple(replace(layer, name=layer.role, padding="same" if layer.uneven else "centre",
                                      norm=False, bias=False) if hasattr(layer, "role") else layer for layer in layers)
                assert known.setdefault(name, shape) == shape


def test_a_ratio_of_1_without_its_layer_is_refused():
    stage = replace(UIB, fixed=())
    with pytest.raises(UserError, match="fix expansion at 1"):
        Supernet(replace(SPACE, stages=(stage,)))


def test_hidden_channels_that_are_no_groups():
    stage = replace(GROUPED, elastic=elastic({"hidden": (24,)}))
    with pytest.raises(UserError, match=r"stages\.0\.0: 24 hidden channels are no groups of 16"):
        Supernet(replace(SPACE, stages=(stage,)))


@pytest.mark.parametrize("space", ["same", "centre"], indirect=True)
def test_files(space):
    assert SearchSpace.from_dict(space.to_dict()) == space
    form = space.to_dict()
    assert form["stages"][3]["se"] == {"place": "end"} and form["stages"][4]["se"] is True
    assert ("padding" in form) == (space.padding == "same")
    form["stages"][3]["se"]["place"] = "before"
    with pytest.raises(UserError, match=r"space.stages.3.se"):
        SearchSpace.from_dict(form)
