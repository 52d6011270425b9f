"""Deep and turned pictures give the net the same input wherever it runs, and what is shipped says how."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deep import KINDS
from PIL import Image

from onceforall.cli import main
from onceforall.cli.pictures import evaluator_of
from onceforall.data import BEFORE, DataSpec, Depth, FilePictures, eval_batches, load_data, normalize
from onceforall.deploy import classify
from onceforall.deploy.description import Channels, read_description
from onceforall.deploy.elastic import Elastic
from onceforall.deploy.elastic_write import write_elastic
from onceforall.deploy.export import Request, export
from onceforall.deploy.folder import Scored, open_subnet, save_subnet
from onceforall.searching.front import Row
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.weights.nets import open_weights

SIZES = {"in memory": (16, 20), "files": (70, 90)}


@dataclass(frozen=True)
class Shipped:
    """A sub-network of random weights, extracted and exported with a folder of pictures of one depth."""

    data: Path
    folder: Path
    kind: str

    @property
    def depth(self) -> Depth:
        return Depth(**KINDS[self.kind].white)


def make_folder(digits, root: Path, kind: str, size: tuple[int, int], *, strength: float = 1.0) -> None:
    """Digits of two classes; the validation pictures are stored turned where the form of file can say so."""
    for split, pictures in (("train", digits.train), ("val", digits.test)):
        for label, name in ((3, "three"), (7, "seven")):
            (root / split / name).mkdir(parents=True)
            for i, image in enumerate(pictures.images[pictures.labels == label][:6]):
                grey = Image.fromarray(image[0].numpy()).resize(size)
                path = root / split / name / f"{i}{KINDS[kind].name[1:]}"
                KINDS[kind].write((np.asarray(grey) * strength).astype(np.uint8), path)
                if split == "val" and path.suffix in (".png", ".tif"):
                    turn(path)


def turn(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        stored = image.transpose(Image.Transpose.ROTATE_90)
    stored.save(path, exif=exif)


@pytest.fixture(scope="module", params=[
    ("12 in 16 bits", "files"), ("8 in 32 bits", "files"), ("floats to 1", "in memory")], ids=" ".join)
def shipped(request, digits, supernet, weights, tmp_path_factory) -> Shipped:
    pytest.importorskip("onnxruntime")
    place, (kind, size) = tmp_path_factory.mktemp("shipped"), request.param
    make_folder(digits, place / "data", kind, SIZES[size])
    data = load_data(DataSpec("folder", root=str(place / "data")))
    assert isinstance(data.test, FilePictures) == (size == "files")
    evaluator, arch = Evaluator(data, calibration_images=12), supernet.space.smallest
    net = evaluator.subnet(supernet, arch)
    save_subnet(Scored.of(evaluator, net, supernet.space, arch).extracted, place / "subnet", source=weights)
    export(place / "subnet", Request("onnx"), data)
    return Shipped(place / "data", place / "subnet", kind)


def test_predict_classify_and_evaluation_see_the_same(shipped: Shipped, capsys) -> None:
    net, about = open_subnet(shipped.folder)
    data = load_data(DataSpec("folder", root=str(shipped.data)))
    (batch,) = eval_batches(data.test, about.resolution, batch=99)
    with torch.no_grad():
        expected = net(normalize(batch.images, data.mean, data.std)).softmax(1)[:, :10].numpy()
    assert np.ptp(expected, axis=0).max() > 1e-4, "the pictures make no difference"
    for source in (shipped.folder, shipped.folder / "model.onnx"):
        with pytest.raises(SystemExit):
            main(["predict", str(source), str(shipped.data / "val"), "--top", "10", "--json"])
        rows = json.loads(capsys.readouterr().out)
        names = [*data.classes, *map(str, range(2, 10))]
        found = [[{c["class"]: c["probability"] for c in row["top"]}[name] for name in names] for row in rows]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    infer, told = classify.opened(str(shipped.folder / "model.onnx"))
    assert told["preprocessing"]["depth"] == asdict(shipped.depth)
    top1, count, _ = classify.accuracy(infer, told, shipped.data / "val")
    assert (top1, count) == (about.accuracy.top1, 12)
    verified = read_description(shipped.folder).exports["model.onnx"].verification
    assert (verified.top1, verified.pictures.images) == (top1, 12)


def test_the_description_and_the_weights_say_it(shipped: Shipped) -> None:
    about = read_description(shipped.folder)
    assert about.preprocessing.depth == shipped.depth
    assert open_weights(shipped.folder).pictures["depth"] == asdict(shipped.depth)


def test_other_pictures_are_read_at_the_depth_of_the_run(shipped: Shipped, digits, tmp_path) -> None:
    """Darker ones, which alone would say another depth, stay darker."""
    make_folder(digits, tmp_path, shipped.kind, (16, 20), strength=0.2)
    data = evaluator_of(shipped.folder, open_weights(shipped.folder), data=str(tmp_path), root=None,
                        compute=Compute()).data
    assert data.depth == shipped.depth
    assert 45 <= data.train.images.max() <= 52


def test_a_description_that_does_not_say_it_is_an_old_one(shipped: Shipped, tmp_path) -> None:
    values = json.loads((shipped.folder / "model.json").read_text(encoding="utf-8"))
    del values["preprocessing"]["depth"]
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    pre = read_description(tmp_path).preprocessing
    assert pre.depth == BEFORE
    picture = sorted((shipped.data / "val").rglob("*.*"))[0]
    old = {name: value for name, value in pre.model_dump().items() if name != "depth"}
    try:
        expected = classify.prepare(str(picture), pre.model_dump())
    except classify.RefusedError:
        with pytest.raises(classify.RefusedError):
            classify.prepare(str(picture), old)
    else:
        np.testing.assert_array_equal(classify.prepare(str(picture), old), expected)


@pytest.mark.parametrize("white", [0, -5, "much", None])
def test_a_damaged_depth_is_one_line(shipped: Shipped, tmp_path, capsys, white: object) -> None:
    values = json.loads((shipped.folder / "model.json").read_text(encoding="utf-8"))
    values["preprocessing"]["depth"]["uint16"] = white
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        main(["predict", str(tmp_path), "x.png"])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "preprocessing.depth" in err


def test_one_file_of_many_budgets_says_it(shipped: Shipped, supernet, tmp_path) -> None:
    data = load_data(DataSpec("folder", root=str(shipped.data)))
    arch = supernet.space.smallest
    write_elastic(supernet, [Row(arch, {"macs": 1.0}, 0.5, 0.5)], Evaluator(data, calibration_images=12),
                  tmp_path / "elastic.safetensors")
    net = Elastic.load(tmp_path)
    assert net.preprocessing(arch).depth == shipped.depth
    assert net.pictures["depth"] == asdict(shipped.depth)


@pytest.mark.parametrize("kind", KINDS)
def test_every_depth_is_prepared_as_in_evaluation(digits, tmp_path, kind: str) -> None:
    grey = np.asarray(Image.fromarray(digits.test.images[5, 0].numpy()).resize((70, 90)))
    path = tmp_path / KINDS[kind].name
    KINDS[kind].write(grey, path)
    Image.fromarray(grey).save(tmp_path / "plain.png")
    depth = Depth(**KINDS[kind].white)
    files = FilePictures((str(path),), torch.tensor([0]), depth)
    for test in (files, digits.test):
        seen = replace(digits, test=test, mean=(0, 0, 0), std=(1, 1, 1), depth=depth)
        about = Channels.of(seen).at(16).model_dump()
        found = classify.prepare(str(path), about)
        np.testing.assert_allclose(found, classify.prepare(str(tmp_path / "plain.png"), about), atol=1.01 / 255)
        if test is files:
            (batch,) = eval_batches(files, 16, batch=1)
            np.testing.assert_allclose(found, batch.images[0].numpy() / 255, atol=1e-6)


@pytest.mark.parametrize(("kind", "depth"), [
    ("16 bits", {"uint16": 4095.0}), ("floats to 255", {"float32": 1.0}), ("20 in 32 bits", {"int32": 255.0})])
def test_a_picture_of_another_depth_is_refused(digits, tmp_path, kind: str, depth: dict[str, float]) -> None:
    path = tmp_path / KINDS[kind].name
    KINDS[kind].write(np.full((20, 20), 200, dtype=np.uint8), path)
    about = Channels.of(replace(digits, depth=Depth(**depth))).at(16).model_dump()
    with pytest.raises(classify.RefusedError, match="its levels reach from"):
        classify.prepare(str(path), about)
