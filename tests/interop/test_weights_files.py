"""Weights files of the three forms: there and back to the bit, inferred from shapes, refused in one line."""

from __future__ import annotations

import json
import logging
import pickle
import random
import shutil
import struct
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from few_blocks import few_blocks
from reference import empty_of, randomise, theirs_of
from safetensors.torch import load_file

import onceforall
from onceforall.cli import main
from onceforall.errors import UserError
from onceforall.interop.convert import convert
from onceforall.interop.mit.weights import key
from onceforall.interop.nnabla.names import entries
from onceforall.interop.nnabla.settings import training_of
from onceforall.nn import Subnet, Supernet, extract
from onceforall.space import CATALOG, Arch, search_space
from onceforall.weights.nets import Trained, load, load_weights, open_weights, save

SMALL = search_space("mobilenet_v3_large_32px?width_mult=0.25")


@pytest.fixture(scope="module")
def small() -> Trained:
    """A small supernet, every array random, its batch counts too."""
    net = Supernet(SMALL, 10, dropout=0.2, bn_eps=1e-3)
    with torch.no_grad():
        for i, (name, tensor) in enumerate(net.state_dict().items()):
            tensor.copy_(torch.full_like(tensor, i) if name.endswith("tracked") else torch.rand_like(tensor) + 0.5)
    pictures = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "classes": tuple("0123456789")}
    return Trained(net.eval(), SMALL, None, pictures)


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    paths = {"native": folder / "net.safetensors", "nnabla": folder / "net.h5", "mit": folder / "net.pth"}
    for path in paths.values():
        save(small, path)
    return paths


def h5_arrays(path):
    """Every array of a file with its values, type, index and need_grad."""
    out = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: out.__setitem__(
            name, (item[()], item.dtype, item.attrs["index"], item.attrs["need_grad"]))
            if isinstance(item, h5py.Dataset) else None)
    return out


@pytest.mark.parametrize("form", ["native", "nnabla", "mit"])
def test_a_supernet_comes_back_to_the_bit(small, files, form):
    back = open_weights(files[form])
    assert (back.space, back.arch, back.pictures, back.num_classes) == (SMALL, None, small.pictures, 10)
    assert (back.net.dropout, back.net.stem.norm.eps) == (0.2, 1e-3)
    for name, tensor in small.net.state_dict().items():
        assert torch.equal(back.net.state_dict()[name], tensor), name


@pytest.mark.parametrize("form", ["native", "nnabla", "mit"])
def test_a_subnet_comes_back_to_the_bit(small, files, form, tmp_path):
    arch = SMALL.sample(random.Random(1))
    plain = extract(small.net, arch)
    path = tmp_path / files[form].name
    save(Trained(plain, SMALL, arch, small.pictures), path)
    back = open_weights(path)
    assert isinstance(load(path), Subnet)
    assert (back.arch, back.num_classes, back.pictures) == (arch, 10, small.pictures)
    images = torch.rand(2, 3, 20, 20)
    assert torch.equal(back.net(images), plain(images))
    with pytest.raises(UserError, match="holds an extracted sub-network, not a supernet"):
        load_weights(Supernet(SMALL, 10), path)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["native", "nnabla", "mit"])
@pytest.mark.parametrize("second", ["native", "nnabla", "mit"])
def test_there_and_back_between_forms(files, tmp_path, first, second):
    there, back = tmp_path / files[second].name, tmp_path / f"back{files[first].suffix}"
    done = convert(files[first], there)
    assert (done.source, done.target, done.arrays, len(done.proved)) == (first, second, 411, 5)
    convert(there, back)
    if first == "nnabla":
        one, two = (h5_arrays(path) for path in (files[first], back))
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[k][0], two[k][0]) and one[k][1:] == two[k][1:] for k in one)
    else:
        read = load_file if first == "native" else lambda path: torch.load(path, weights_only=True)["state_dict"]
        one, two = read(files[first]), read(back)
        assert one.keys() == two.keys()
        assert all(torch.equal(one[k], two[k]) and one[k].dtype == two[k].dtype for k in one)
    one, two = open_weights(files[first]).net.state_dict(), open_weights(back).net.state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("through", ["net.pth", "net.safetensors", "net.h5"])
def test_what_nnablanas_wrote_beside_its_arrays_is_kept(oracle, tmp_path, through):
    """Mixed float32 and float64, need_grad and index of a real file survive another form."""
    source = tmp_path / "weights10.h5"
    with h5py.File(source, "w") as copy:
        for name, (values, _, index, trained) in h5_arrays(oracle / "weights10.h5").items():
            data = copy.create_dataset(name, data=values.astype(np.float64 if index % 3 == 0 else np.float32))
            data.attrs["index"], data.attrs["need_grad"] = (index + 7, trained if index % 5 else not trained)
    convert(source, tmp_path / "x" / through)
    convert(tmp_path / "x" / through, tmp_path / "back.h5")
    before, after = h5_arrays(source), h5_arrays(tmp_path / "back.h5")
    assert before.keys() == after.keys()
    for name, (values, dtype, index, trained) in before.items():
        assert np.array_equal(values, after[name][0]), name
        assert (dtype, index, trained) == after[name][1:], name


def test_a_real_supernet_of_nnablanas(oracle, caplog):
    trained = open_weights(oracle / "weights10.h5")
    assert trained.space == search_space("mobilenet_v3_large")
    assert (trained.num_classes, trained.arch) == (10, None)


def test_a_real_subnet_of_nnablanas(oracle):
    """The tutorial's, as its static net saves it: which one it is follows from the shapes."""
    trained = open_weights(oracle / "trainnet10_tutorial.h5")
    genes = json.loads((oracle / "genotypes.json").read_text())["tutorial"]
    assert trained.arch == Arch.from_genotype(trained.space, genes)
    images = torch.from_numpy(np.load(oracle / "input_a_2x3x64x64.npy"))
    expected = torch.from_numpy(np.load(oracle / "logits10.npz")["C_train/tutorial/a"])
    assert float((trained.net(images).detach() - expected).norm() / expected.norm()) < 1e-5


def test_a_subnet_is_written_as_nnablanas_writes_it(oracle, tmp_path):
    convert(oracle / "trainnet10_tutorial.h5", tmp_path / "subnet.h5")
    before, after = h5_arrays(oracle / "trainnet10_tutorial.h5"), h5_arrays(tmp_path / "subnet.h5")
    assert list(before) == list(after)
    assert all(np.array_equal(a, b) and rest == others for (a, *rest), (b, *others) in zip(
        before.values(), after.values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("style", ["present", "older", "bare", "parallel"])
def test_key_styles_of_the_authors(small, files, tmp_path, style):
    state = torch.load(files["mit"], weights_only=True)["state_dict"]
    if style == "older":
        state = {k.replace(".conv.", ".mobile_inverted_conv.", 1) if k.startswith("blocks") else k: v
                 for k, v in state.items()}
    elif style == "parallel":
        state = {f"module.{k}": v for k, v in state.items()}
    torch.save(state if style == "bare" else {"state_dict": state, "epoch": 3}, tmp_path / "ofa_net")
    trained = open_weights(tmp_path / "ofa_net", space="mobilenet_v3_large_32px")
    assert trained.space == SMALL  # the width is read off the shapes
    for name, tensor in small.net.state_dict().items():
        assert torch.equal(trained.net.state_dict()[name], tensor), name


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.2, 1.5])
def test_width_and_classes_are_inferred(width, tmp_path):
    space = search_space("mobilenet_v3_large", width_mult=width)
    state = Supernet(space, 7).state_dict()
    names = entries(Supernet(space, 7).plan(space.largest), space)
    torch.save({key(e.theirs): state[e.ours] for e in names}, tmp_path / "net.pth")
    trained = open_weights(tmp_path / "net.pth")
    assert (trained.space.name, trained.num_classes) == (space.name, 7)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["h5", "safetensors", "pth"])
def test_kernels_of_one_stage(tmp_path, suffix):
    """A space whose stages have different kernels, and its file in the whole space's net."""
    own = SMALL.each("kernel", [(5, 7) if s == 2 else (3, 5, 7) for s in range(5)])
    net, path = Supernet(own, 5), tmp_path / f"net.{suffix}"
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn_like(parameter))
    save(Trained(net, own), path)
    found = open_weights(path)
    assert found.space == own
    assert all(torch.equal(found.net.state_dict()[name], tensor) for name, tensor in net.state_dict().items())
    whole = Supernet(SMALL, 5)
    load_weights(whole, path)
    more = whole.state_dict().keys() - net.state_dict().keys()
    assert {name.rpartition(".")[2] for name in more} == {"kernel_5to3"}
    assert all(name.startswith("stages.2.") and torch.equal(whole.state_dict()[name], torch.eye(9)) for name in more)
    assert all(torch.equal(whole.state_dict()[name], tensor) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("suffix", ["h5", "safetensors", "pth"])
def test_a_space_that_is_not_in_the_catalogue(tmp_path, suffix):
    """Its rows are in the file."""
    own = replace(SMALL, name="mine", stages=(*SMALL.stages[:2], replace(SMALL.stages[2], width=48), *SMALL.stages[3:]))
    net, path = Supernet(own, 5), tmp_path / f"net.{suffix}"
    save(Trained(net, own), path)
    found = open_weights(path)
    assert found.space == own
    assert all(torch.equal(found.net.state_dict()[name], tensor) for name, tensor in net.state_dict().items())


def test_a_narrower_file_loads_into_a_wider_net(tmp_path, caplog):
    narrow = SMALL.restrict(kernel=(7,), expand=(6,), depth=(4,))
    save(Trained(Supernet(narrow, 5), narrow), tmp_path / "narrow.h5")
    wide = Supernet(SMALL, 5)
    with caplog.at_level(logging.INFO, logger="onceforall"):
        load_weights(wide, tmp_path / "narrow.h5")
    assert "40 kernel matrices start at identity" in caplog.text
    assert torch.equal(wide.stages[0][0].depthwise.conv.kernel_7to5, torch.eye(25))
    assert len(h5_arrays(tmp_path / "narrow.h5")) == 371
    with h5py.File(tmp_path / "narrow.h5", "a") as file:
        del file["first_conv/bn/_beta"]
    with pytest.raises(UserError, match="lacks"):
        load_weights(wide, tmp_path / "narrow.h5")


@pytest.mark.parametrize("foreign", [False, True])
def test_a_single_kernel_matrix_may_not_be_absent(small, tmp_path, foreign):
    """A whole step down may be, in a narrower net's file; one block's matrix is a damaged file."""
    save(small, tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        del file["blocks/8/conv/depth_conv/conv/7to5_matrix"]
        if foreign:
            del file.attrs["onceforall"]
    with pytest.raises(UserError, match="lacks 1 of 411 arrays, first blocks/8/conv/depth_conv/conv/7to5_matrix"):
        open_weights(tmp_path / "net.h5", space="mobilenet_v3_large_32px")
    with pytest.raises(UserError, match="lacks 1 of 411 arrays, first blocks/8/conv/depth_conv/conv/7to5_matrix"):
        load_weights(Supernet(SMALL, 10), tmp_path / "net.h5")


@pytest.mark.parametrize("step", ["7to5", "5to3"])
def test_a_step_of_the_files_own_space_may_not_be_absent(small, tmp_path, step):
    save(small, tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5", "a") as file:
        for number in range(1, 21):
            del file[f"blocks/{number}/conv/depth_conv/conv/{step}_matrix"]
    with pytest.raises(UserError, match="lacks 20 of 411 arrays"):
        open_weights(tmp_path / "net.h5")
    with pytest.raises(UserError, match="lacks 20 of 411 arrays"):
        load_weights(Supernet(SMALL, 10), tmp_path / "net.h5")


@pytest.mark.parametrize("change", [
    {"kind": "super"}, {"kind": "subnet"}, {"arch": 3}, {"num_classes": "5"}, {"num_classes": -1}, {"bn": [0.1]},
    {"bn": ["a", 1e-5]}, {"dropout": 7}, {"pictures": 3}, {"pictures": {"std": [0, 1, 1]}}, {"space": {}},
    {"space": {"name": "x"}}, {"kept": {"a": ["object", 1, True]}}, {"kept": {"a": [1]}}, {"counts": {"a": "b"}},
])
def test_a_damaged_description_is_one_line(files, tmp_path, change):
    state = torch.load(files["mit"], weights_only=True)
    state["onceforall"] = json.dumps({**json.loads(state["onceforall"]), **change})
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(UserError) as error:
        open_weights(tmp_path / "net.pth")
    assert "\n" not in str(error.value)
    state["onceforall"] = "[" * 100_000
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(UserError, match="damaged `onceforall` entry"):
        open_weights(tmp_path / "net.pth")


def test_the_authors_full_net_loads_into_a_supernet(authors, tmp_path):
    """Their first stage trains an ordinary net; its checkpoint is the largest sub-network's."""
    theirs = theirs_of(authors, 1.0)
    theirs.set_max_net()
    plain = theirs.get_active_subnet().eval()
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "full.pth")
    net = Supernet(search_space("mobilenet_v3_large"), 10).eval()
    load_weights(net, tmp_path / "full.pth")
    images = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(net(images, net.space.largest), plain(images), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_checkpoint_of_ours_loads_into_the_authors_net(tmp_path, pair):
    theirs, ours = pair
    save(Trained(ours, ours.space), tmp_path / "ours.pth")
    fresh = empty_of(type(theirs), getattr(theirs, "width_mult", 1.0))
    fresh.load_state_dict(torch.load(tmp_path / "ours.pth", weights_only=True)["state_dict"])
    assert all(torch.equal(a, theirs.state_dict()[k]) for k, a in fresh.state_dict().items())


@pytest.mark.slow
def test_a_specialised_net_goes_both_ways(authors, tmp_path, pair):
    """Theirs is built from our net.config and init; ours from theirs, in both key styles."""
    from ofa.imagenet_classification import networks
    _, ours = pair
    arch = ours.space.sample(random.Random(2)).at(160)
    plain = extract(ours, arch)
    plain.get_submodule("head.dropout").p = 0.25
    save(Trained(plain, ours.space, arch), tmp_path / "subnet.h5")
    folder = tmp_path / "flops@595M_top1@80.0_finetune@75"
    convert(tmp_path / "subnet.h5", folder, to="mit")
    config = json.loads((folder / "net.config").read_text())
    reference = getattr(networks, config["name"]).build_from_config(json.loads(json.dumps(config)))
    reference.load_state_dict(torch.load(folder / "init", weights_only=True)["state_dict"])
    images = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(load(folder)(images), reference.eval()(images), rtol=1e-4, atol=1e-4)
    assert json.loads((folder / "run.config").read_text()) == {"image_size": 160}

    torch.save({"state_dict": reference.state_dict()}, folder / "init")  # nothing of ours in it
    theirs = reference.config
    resnet = "input_stem" in theirs
    for block in theirs["blocks"] if not resnet else ():
        block["mobile_inverted_conv"] = block.pop("conv")
    (folder / "net.config").write_text(json.dumps(theirs))
    assert open_weights(folder).arch == arch
    assert open_weights(folder).net.get_submodule("head.dropout").p == theirs["classifier"]["dropout_rate"] == 0.25

    def changed(path, value):
        copy = json.loads(json.dumps(theirs))
        inner = copy
        for part in path[:-1]:
            inner = inner[part]
        inner[path[-1]] = value
        (folder / "net.config").write_text(json.dumps(copy))

    if resnet:
        wrong = [
            (("blocks", 3, "mid_channels"), 9, r"blocks\[3\].mid_channels: 9 is not"),
            (("blocks", 0, "downsample_mode"), "conv", r"blocks\[0\].downsample_mode: 'conv' is not 'avgpool_conv'"),
            (("input_stem", 0, "stride"), 1, r"input_stem\[0\].stride: 1 is not 2")]
    else:
        residual = next(i for i, block in enumerate(theirs["blocks"]) if block["shortcut"])
        wrong = [(("blocks", 3, "mobile_inverted_conv", "kernel_size"), 9, r"blocks\[3\].conv.kernel_size: 9 is not"),
                 (("blocks", residual, "shortcut"), None, rf"blocks\[{residual}\].shortcut: False is not True"),
                 (("blocks", 2, "mobile_inverted_conv", "mid_channels"), 5, r"blocks\[2\].conv.mid_channels: 5 is not")]
    for path, value, message in [
            *wrong, (("name",), "DenseNet", "name: 'DenseNet' is not"), (("bn",), {"eps": "x"}, "eps: 'x' is not a n"),
            (("bn",), {"momentum": 3}, "momentum: 3 is not a number"),
            (("classifier",), 4, "out_features: None is not")]:
        changed(path, value)
        with pytest.raises(UserError, match=message):
            open_weights(folder)


class Evil:
    def __reduce__(self):
        return print, ("code of the file was run",)


def spoilt(path, how):
    data = path.read_bytes()
    return {"empty": b"", "cut": data[:len(data) // 2], "short": data[:20], "python": b"import os\n" * 40,
            "picture": b"\x89PNG\r\n\x1a\n" + bytes(200), "pickle": pickle.dumps(Evil()),
            "number": pickle.dumps(3), "zeros": data[:64] + bytes(len(data) - 64),
            "header": struct.pack("<Q", 1 << 40) + b"{" + data}[how]


@pytest.mark.parametrize("form", ["native", "nnabla", "mit"])
@pytest.mark.parametrize("how", ["empty", "cut", "short", "python", "picture", "pickle", "number", "zeros", "header"])
def test_what_is_no_weights_file_is_one_line(files, tmp_path, capsys, form, how):
    path = tmp_path / files[form].name
    path.write_bytes(spoilt(files[form], how))
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(path)])
    out = capsys.readouterr()
    assert end.value.code == 2
    assert out.err.count("\n") == 1
    assert str(path) in out.err
    assert "code of the file" not in out.out + out.err


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": {"first_conv.conv.weight": Evil()}}, tmp_path / "net.pth")
    with pytest.raises(UserError, match="holds more than tensors, and what it holds is not run"):
        open_weights(tmp_path / "net.pth")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["native", "nnabla", "mit"])
def test_flipped_bytes_never_end_in_a_traceback(files, small, tmp_path, form, monkeypatch):
    """A damaged file is read (where the damage hits numbers) or refused, in whatever way it is damaged.

    Few blocks are read in half the time.
    """
    monkeypatch.setitem(CATALOG, "few_blocks", few_blocks)
    space, path = few_blocks(), tmp_path / files[form].name
    net = Supernet(space, 10, generator=torch.Generator().manual_seed(1)).eval()
    save(Trained(net, space, None, small.pictures), path)
    assert open_weights(path).space == space
    rng, data = random.Random(0), path.read_bytes()
    edges = [*range(min(4000, len(data))), *range(max(0, len(data) - 30_000), len(data))]
    refusals = []
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 4, 40))):
            broken[rng.choice(edges)] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            open_weights(path)
        except UserError as error:
            refusals.append(str(error))
    assert len(refusals) > 5
    assert not any("\n" in line for line in refusals)


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("blocks.3.conv.point_linear.bn.bn.bias"), "lacks 1 of 411 arrays, first blocks.3.conv.point"),
    (lambda s: s.update({"blocks.99.conv.x": torch.zeros(1)}), "has 1 arrays too many, first blocks.99.conv.x"),
    (lambda s: s.update({"first_conv.bn.bias": torch.zeros(5)}),
     r"first_conv.bn.bias: has shape \(5,\); \(8,\) is"),
    (lambda s: s.update({"first_conv.bn.bias": 3}), "first_conv.bn.bias: is int, not a tensor"),
    (lambda s: s.update({"first_conv.bn.bias": torch.zeros(8, dtype=torch.int64)}), "holds torch.int64"),
    (lambda s: s.update({"module.first_conv.bn.bias": torch.zeros(8)}), "stands beside another array"),
    (lambda s: s.update({"nowhere.num_batches_tracked": torch.tensor(1)}), "1 arrays too many, first nowhere"),
    (lambda s: s.update({"first_conv.bn.num_batches_tracked": torch.zeros(3)}), "is not one whole number"),
    (lambda s: s.update({"first_conv.bn.num_batches_tracked": torch.tensor(float("nan"))}), "is not one whole number"),
    (lambda s: s.update({"classifier.linear.bias": torch.tensor(1.0)}), r"classifier.linear.bias: has shape \(\)"),
])
def test_a_checkpoint_that_does_not_fit_is_named(files, tmp_path, change, message):
    state = torch.load(files["mit"], weights_only=True)
    change(state["state_dict"])
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(UserError, match=message):
        open_weights(tmp_path / "net.pth")


@pytest.mark.slow
def test_convert_on_the_command_line(files, tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["convert", *map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    code, out, _ = run(files["nnabla"], tmp_path / "net.pth")
    assert code == 0
    assert "(nnabla) -> " in out and "5 sub-networks answer the same to the bit" in out
    code, out, _ = run(files["nnabla"], tmp_path / "any.name", "--to", "native", "--json")
    assert json.loads(out)["target"] == "native"
    assert open_weights(tmp_path / "any.name").space == SMALL
    shutil.copy(files["mit"], tmp_path / "same.pth")
    for arguments, message in [
            ((files["mit"], tmp_path / "net.onnx"), "net.onnx: its name does not say which form"),
            ((files["mit"], tmp_path / "x.pth", "--to", "keras"), "--to: 'keras' is not a form"),
            ((tmp_path / "same.pth", tmp_path / "same.pth"), "is the file to convert"),
            ((files["mit"], tmp_path), "its name does not say"),
            ((files["mit"], tmp_path, "--to", "mit"), "is a folder"),
            ((tmp_path / "nothing.pth", tmp_path / "x.pth"), "nothing.pth: is neither"),
            ((files["mit"], tmp_path / "same.pth" / "x.pth"), "cannot be written"),
            ((files["mit"], tmp_path / ("x" * 300 + ".pth")), "cannot be written"),
            ((files["mit"], "/proc/x.pth"), "/proc/x.pth"), ((files["mit"], "/proc/x.safetensors"), "/proc/x.safe"),
            ((files["mit"], tmp_path / "x.pth", "--space", "mobilenet_v3_large"), "--space: 'mobilenet_v3_large' is"),
    ]:
        before = sorted(tmp_path.rglob("*"))
        code, _, err = run(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_every_verb_takes_every_form(files, tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return out

    seen, chosen = [], ("--data", "digits", "--device", "cpu")
    (tmp_path / "config.json").write_text("{}")  # somebody else's
    for name, source in files.items():
        path = shutil.copy(source, tmp_path)
        run("extract", path, *chosen, "--arch", "smallest@16", "-o", str(tmp_path / name))
        run("convert", str(tmp_path / name), str(tmp_path / name / path.rpartition("/")[2]))
        seen.append([run("inspect", path, "--json"),
                     run("evaluate", path, *chosen, "--arch", "smallest@16", "--json"),
                     run("evaluate", str(tmp_path / name), *chosen, "--json"),
                     run("evaluate", str(tmp_path / name), *chosen, "--resolution", "20", "--json")])
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1] == seen[0][2] != seen[0][3]


@pytest.mark.parametrize("name", ["net.safetensors", "net.h5", "net.pth"])
def test_a_sub_network_lies_in_torchs_own_memory(small, tmp_path, name):
    """A layer's weights that start at another byte of a cache line give other last bits on some processors."""
    arch = Arch.parse(SMALL, "smallest@16")
    save(Trained(extract(small.net, arch), SMALL, arch, small.pictures), tmp_path / name)
    for entry, tensor in load(tmp_path / name).state_dict().items():
        assert tensor.data_ptr() % 64 == 0, entry


def test_training_starts_from_any_form(files, tmp_path):
    from onceforall.interop.nnabla.config import Config
    from onceforall.training.start import space_of, supernet_of
    for path in files.values():
        config = Config.from_dict({"dataloader": {"digits": {}}, "network": {"ofa": {
            "space": "mobilenet_v3_large_32px", "width_mult": 0.25, "num_classes": 10, "weights": str(path)}},
            "optimizer": {"train": {"name": "Nesterov", "lr": 0.1}, "train_no_decay": {"name": "Nesterov", "lr": 0.1}},
            "hparams": {"task": "kernel"}})
        net = supernet_of(training_of(config))
        assert torch.equal(net.head["classifier"].weight, load(files["native"]).head["classifier"].weight)
        assert space_of(path) == SMALL


def test_load_is_public(files):
    assert isinstance(onceforall.load(files["mit"]), Supernet)
    randomise(onceforall.load(files["mit"]), 1)  # an ordinary module


def without_about(path):
    with h5py.File(path, "a") as file:
        del file.attrs["onceforall"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "names"), [
    ("resnet50d", ["input_stem/1/conv/conv/conv/_W", "blocks/17/conv2/bn/bn/_gamma", "blocks/4/downsample/conv/conv/_W",
                   "classifier/0/linear/linear/_W"]),
    ("xception41", ["second_conv/bn/_mean", "entryblocks/2/rep/sepconv2/pointwise/_W", "exitblocks/0/_skipbn/_beta",
                    "middleblocks/7/_depth_conv3/dwconv/7to5_matrix", "middleblocks/0/_point_linear1/ptconv/conv/_W",
                    "middleblocks/3/_point_linear2/bn/bn/_var", "expand_block2/dwconv/_W", "classifier/linear/_b"]),
    ("xception65?width_mult=0.25", ["middleblocks/15/_depth_conv1/dwconv/conv/_W"])])
def test_files_of_families_that_do_not_say_what_they_are(tmp_path, name, names):
    """NNablaNAS's names; space and sub-network are read off the shapes."""
    space = search_space(name)
    net = Supernet(space, 10, generator=torch.Generator().manual_seed(0)).eval()
    randomise(net, 3)
    save(Trained(net, space), tmp_path / "net.h5")
    without_about(tmp_path / "net.h5")
    with h5py.File(tmp_path / "net.h5") as file:
        assert all(key in file for key in names)
    again = open_weights(tmp_path / "net.h5")
    assert again.space == space
    assert all(torch.equal(tensor, again.net.state_dict()[key]) for key, tensor in net.state_dict().items()
               if not key.endswith("num_batches_tracked"))
    rng = random.Random(4)
    for arch in (space.smallest, space.largest, *(space.sample(rng) for _ in range(3))):
        save(Trained(extract(net, arch), space, arch), tmp_path / "subnet.h5")
        without_about(tmp_path / "subnet.h5")
        found = open_weights(tmp_path / "subnet.h5")
        assert found.arch == arch.at(max(space.resolutions))
        images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(found.net(images), net(images, arch))


@pytest.mark.slow
def test_a_family_that_a_file_is_not_of(tmp_path):
    """Named by --space, or by a genotype that is not of the file's."""
    for name in ("mobilenet_v3_large_32px?width_mult=0.15", "xception41?width_mult=0.15", "resnet50d?width_mult=0.15"):
        space = search_space(name)
        net = Supernet(space, 10, generator=torch.Generator().manual_seed(0))
        for trained in (Trained(net, space), Trained(extract(net, space.smallest), space, space.smallest)):
            save(trained, tmp_path / "net.h5")
            without_about(tmp_path / "net.h5")
            for other in ("mobilenet_v3_large", "xception41", "resnet50d", "attentive_nas"):
                if other[:6] != name[:6]:
                    with pytest.raises(UserError, match="its arrays are not of"):
                        open_weights(tmp_path / "net.h5", space=other)
