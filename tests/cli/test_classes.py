"""Classes go by their names: subsets, other names, other orders, and networks that name none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from onceforall.cli import main
from onceforall.data import ArrayPictures, DataSpec, Known, load_data
from onceforall.deploy.description import Channels, read_description
from onceforall.deploy.folder import Extracted, Scored, open_subnet, save_subnet
from onceforall.errors import UserError
from onceforall.interop.nnabla.config import Config
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=[12, 16])
DIGITS = tuple("0123456789")


def ofa(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec("digits"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory, digits) -> Path:
    """A supernet with random weights that knows the ten digits by name."""
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()
    path = tmp_path_factory.mktemp("run") / "weights.h5"
    save(Trained(net, SPACE, None, {"mean": digits.mean, "std": digits.std, "classes": digits.classes}), path)
    return path


@pytest.fixture(scope="module")
def subnet(tmp_path_factory, weights, digits) -> Path:
    """Its smallest sub-network."""
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()
    evaluator, folder = Evaluator(digits), tmp_path_factory.mktemp("subnet")
    found = Scored.of(evaluator, evaluator.subnet(net, SPACE.smallest), SPACE, SPACE.smallest)
    save_subnet(found.extracted, folder, source=weights)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The digits as PNG files in train/<class>/ and val/<class>/."""
    root, whole = tmp_path_factory.mktemp("digits"), load_data(DataSpec("digits", train_portion=1.0))
    for split, pictures in (("train", whole.train), ("val", whole.test)):
        for i, (image, label) in enumerate(zip(pictures.images, pictures.labels.tolist(), strict=True)):
            path = root / split / str(label) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root


def of_classes(folder: Path, target: Path, names: dict[str, str]) -> Path:
    """A copy with the classes `names` alone, each under its new name."""
    for split in ("train", "val"):
        for name, new in names.items():
            shutil.copytree(folder / split / name, target / split / new)
    return target


def expected(subnet: Path, digits, labels: list[int]) -> tuple[int, float, float]:
    """Pictures, top-1 and loss of the test pictures with these labels, by the largest of all ten outputs."""
    net, about = open_subnet(subnet)
    evaluator = Evaluator(digits)
    chosen = digits.test.subset([i for i, label in enumerate(digits.test.labels.tolist()) if label in labels])
    (batch,) = evaluator._batches(chosen, about.resolution, 1000)
    with torch.inference_mode():
        logits = net(evaluator._prepared(batch.images))
    right = (logits.argmax(1) == batch.labels).double().mean()
    return len(chosen), float(right), float(F.cross_entropy(logits, batch.labels))


@pytest.mark.parametrize("kept", [[0, 1, 2, 4, 5, 6, 7, 8, 9], [7, 9]])
def test_a_subset_of_the_classes_is_scored_as_what_it_is(subnet, folder, digits, tmp_path, capsys, caplog, kept):
    data = of_classes(folder, tmp_path / "some", {str(label): str(label) for label in kept})
    code, out, _ = ofa(capsys, "evaluate", subnet, "--data", data, "--json")
    found, (count, top1, loss) = json.loads(out), expected(subnet, digits, kept)
    assert code == 0
    assert (found["images"], found["top1"]) == (count, top1)
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
    missing = [name for name in DIGITS if int(name) not in kept]
    assert f"no test pictures of {len(missing)} of the network's 10 classes: {', '.join(missing)};" in caplog.text


def test_a_subset_does_not_change_the_statistics(weights, folder, digits, tmp_path, capsys, caplog):
    """BN of a supernet is recalibrated on pictures of all classes: those of its run, where they can be read."""
    home = tmp_path / "run"
    home.mkdir()
    shutil.copy(weights, home)
    data = of_classes(folder, tmp_path / "some", {"7": "7", "9": "9"})
    words = ("evaluate", home / "weights.h5", "--arch", "smallest", "--data", data, "--json")
    assert ofa(capsys, *words)[0] == 0
    assert "training pictures that lack 8 of the network's 10 classes (0, 1, 2, 3, 4, 5, 6, 8), which" in caplog.text

    Config.from_dict({
        "dataloader": {"digits": {}}, "optimizer": {"train": {"lr": 0.1}}, "hparams": {"task": "fullnet"},
        "network": {"ofa": {"space": "mobilenet_v3_large_32px", "width_mult": 0.15, "num_classes": 10}},
    }).write(home / "config.json")
    code, out, _ = ofa(capsys, *words)
    found = json.loads(out)
    assert code == 0
    assert "the training pictures of the network's own run: those given lack 8 of its 10 classes" in caplog.text
    evaluator = Evaluator(digits)
    subset = digits.test.subset([i for i, label in enumerate(digits.test.labels.tolist()) if label in (7, 9)])
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()
    score = evaluator.score(net, SPACE.smallest, subset)
    assert (found["images"], found["top1"]) == (len(subset), score.top1)
    assert found["loss"] == pytest.approx(score.loss, rel=1e-5)


def test_other_names_are_refused(subnet, folder, tmp_path, capsys):
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    data = of_classes(folder, tmp_path / "words", dict(zip(DIGITS, words, strict=True)))
    code, out, err = ofa(capsys, "evaluate", subnet, "--data", data)
    assert (code, out) == (2, "")
    assert "the network does not know eight, five, four, nine, one, seven, six, three, ... (10 classes)" in err
    assert "it also knows 0, 1, 2, 3, 4, 5, 6, 7, ... (10 classes)" in err
    assert len(err.splitlines()) == 1


def by_image(pictures: ArrayPictures, classes: tuple[str, ...]) -> dict[bytes, str]:
    """The name of the class of each picture."""
    return {image.numpy().tobytes(): classes[label]
            for image, label in zip(pictures.images, pictures.labels.tolist(), strict=True)}


@pytest.mark.parametrize("form", ["digits", "folder"])
def test_labels_follow_the_order_of_the_network(folder, form):
    spec, names = DataSpec(form, root=str(folder) if form == "folder" else None), DIGITS[5:] + DIGITS[:5]
    plain, data = load_data(spec), load_data(spec, Known(names))
    assert data.classes == names
    assert data.test.labels.tolist() != plain.test.labels.tolist()
    assert {**by_image(data.train, names), **by_image(data.held_out, names), **by_image(data.test, names)} == {
        **by_image(plain.train, DIGITS), **by_image(plain.held_out, DIGITS), **by_image(plain.test, DIGITS)}


def test_a_name_that_no_folder_can_have(folder, tmp_path):
    names = ("T-shirt/top", "Bag")
    root = of_classes(folder, tmp_path, {"0": "Bag", "1": "T-shirt_top"})
    data = load_data(DataSpec("folder", root=str(root)), Known(names))
    assert data.classes == names
    zero = load_data(DataSpec("folder", root=str(folder)))
    zeros = {image.numpy().tobytes() for image in zero.test.images[zero.test.labels == 0]}
    assert {image.numpy().tobytes() for image in data.test.images[data.test.labels == 1]} == zeros


def test_a_list_of_all_classes_goes_by_the_numbers_of_outputs(folder, tmp_path):
    lines = [f"{path.parent.name}/{path.name} {path.parent.name}" for path in sorted((folder / "val").glob("*/*.png"))]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    spec = DataSpec("list", train_path=str(folder / "val"), train_file=str(tmp_path / "list.txt"))
    assert load_data(spec, Known(tuple("abcdefghij"))).classes == tuple("abcdefghij")
    assert load_data(spec, Known((*DIGITS, "10"))).classes == (*DIGITS, "10")
    with pytest.raises(UserError, match="the network does not know 0, 1, 2, 3, 4, 5, 6, 7, .* it also knows a, b, c"):
        load_data(spec, Known(tuple("abcdefghijk")))


def test_an_extracted_net_keeps_the_names_of_all_its_outputs(weights, folder, tmp_path, capsys):
    data = of_classes(folder, tmp_path / "nine", {name: name for name in DIGITS if name != "3"})
    code, _, _ = ofa(capsys, "extract", weights, "--data", data, "--arch", "smallest", "-o", tmp_path / "out")
    about = read_description(tmp_path / "out")
    assert code == 0
    assert about.classes == list(DIGITS)
    assert about.num_classes == 10


@pytest.fixture
def nameless(weights, tmp_path) -> Path:
    """The supernet as a file that does not say what its outputs mean."""
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()
    save(Trained(net, SPACE), tmp_path / "nameless.safetensors")
    return tmp_path / "nameless.safetensors"


def test_a_net_without_names_goes_by_position_where_the_numbers_agree(nameless, folder, tmp_path, capsys, caplog):
    code, _, _ = ofa(capsys, "extract", nameless, "--data", folder, "--arch", "smallest", "-o", tmp_path / "all")
    assert code == 0
    assert read_description(tmp_path / "all").classes == list(DIGITS)
    assert "does not name its classes: its outputs are taken to mean, in this order, 0, 1, 2," in caplog.text
    two = of_classes(folder, tmp_path / "two", {"7": "7", "9": "9"})
    code, _, err = ofa(capsys, "extract", nameless, "--data", two, "--arch", "smallest", "-o", tmp_path / "out")
    assert code == 2
    assert "does not name the 10 classes that it tells apart, and there are pictures of 2" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("names", "outputs", "new"), [
    (tuple("ab"), 10, True),  # names for the first two of ten outputs
    ((), 10, True),
    (tuple("ba"), 2, False),  # all of them, in another order
])
def test_finetuning_keeps_a_classifier_only_for_its_classes(weights, digits, tmp_path, capsys, names, outputs, new):
    net = Supernet(SPACE, outputs, generator=torch.Generator().manual_seed(1)).eval()
    found = Evaluator(digits, calibration_images=100).subnet(net, SPACE.smallest)
    save_subnet(Extracted(found, SPACE, SPACE.smallest, Channels.of(digits), names), tmp_path / "net", source=weights)
    for split, count in (("train", 20), ("val", 4)):
        for level, name in ((0, "a"), (255, "b")):
            for i in range(count):
                path = tmp_path / "data" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (level, i, i)).save(path)
    code, _, _ = ofa(capsys, "finetune", tmp_path / "net", "--data", tmp_path / "data", "--epochs", "1", "-o",
                     tmp_path / "out", "--device", "cpu")
    tuned, about = open_subnet(tmp_path / "out")
    assert code == 0
    assert tuned.plan.head[-1].outputs == 2
    assert about.classes == (["a", "b"] if new else ["b", "a"])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["network"]["new_classifier"] is new
