"""The script beside an exported file: it feeds the net as evaluation does, and needs neither torch nor this project."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onceforall.data import ArrayPictures, DataSpec, FilePictures, Framing, eval_batches, load_data, normalize
from onceforall.deploy import classify
from onceforall.deploy.description import Channels, read_description
from onceforall.deploy.ends import Ends
from onceforall.deploy.export import Request, export
from onceforall.deploy.folder import Scored, open_subnet, save_subnet
from onceforall.deploy.targets import TARGETS

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.25)
PACKAGES = {"onnx": "onnxruntime", "litert": "ai-edge-litert", "ncnn": "ncnn", "openvino": "openvino"}


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * height)
    smooth = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(smooth.convert("L")).astype(np.uint16) * 257)
    if mode == "P":
        palette = smooth.quantize(16)
        palette.info["transparency"] = bytes(range(16))
        return palette
    return smooth.convert(mode)


@pytest.mark.parametrize(("width", "height", "mode", "suffix"), [
    (64, 64, "RGB", "png"), (31, 64, "RGB", "png"), (8, 8, "L", "png"), (300, 217, "RGB", "jpg"),
    (75, 500, "RGB", "jpg"), (1200, 900, "RGB", "jpg"), (901, 1203, "L", "jpg"), (120, 90, "CMYK", "jpg"),
    (50, 40, "RGBA", "png"), (50, 40, "P", "png"), (50, 40, "I;16", "png"), (3, 200, "RGB", "png"),
    (2000, 20, "RGB", "png"), (1, 1, "RGB", "png"),
])
def test_files_are_prepared_as_in_evaluation(digits, tmp_path, width, height, mode, suffix):
    path = tmp_path / f"picture.{suffix}"
    picture(width, height, mode).save(path)
    files = FilePictures((str(path),), torch.tensor([0]))
    for resolution, framing in ((12, Framing()), (128, Framing()), (128, Framing(0.95, "bicubic"))):
        data = replace(digits, test=files, mean=MEAN, std=STD, framing=framing)
        about = Channels.of(data).at(resolution).model_dump()
        (batch,) = eval_batches(files, resolution, batch=1, framing=framing)
        expected = normalize(batch.images, MEAN, STD)[0].numpy()
        np.testing.assert_allclose(classify.prepare(str(path), about), expected, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(8, 8), (32, 32), (28, 40), (64, 50)])
def test_pictures_in_memory_are_prepared_as_in_evaluation(digits, tmp_path, width, height):
    image = picture(width, height)
    image.save(tmp_path / "picture.png")
    arrays = ArrayPictures(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None], torch.tensor([0]))
    for resolution, framing in ((12, Framing()), (28, Framing()), (64, Framing()), (64, Framing(0.95, "bicubic"))):
        data = replace(digits, test=arrays, mean=MEAN, std=STD, framing=framing)
        about = Channels.of(data).at(resolution).model_dump()
        (batch,) = eval_batches(arrays, resolution, batch=1, framing=framing)
        expected = normalize(batch.images, MEAN, STD)[0].numpy()
        np.testing.assert_allclose(classify.prepare(str(tmp_path / "picture.png"), about), expected, atol=1e-4)


def class_folders(root: Path, pictures: ArrayPictures, classes: tuple[str, ...]) -> None:
    for i, (image, label) in enumerate(zip(pictures.images, pictures.labels.tolist(), strict=True)):
        path = root / classes[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "package"), PACKAGES.items())
def test_three_packages_are_enough_for_the_accuracy_of_the_description(
        target, package, supernet, weights, digits, tmp_path):
    """The net's classifier is fitted to the pictures, so that it does not guess. Enlarged pictures of 8 pixels have
    values between bytes, so that a file that takes bytes has an accuracy of its own."""
    from onceforall.training.evaluate import Evaluator
    pytest.importorskip(package.replace("-", "_"))
    class_folders(tmp_path / "data" / "train", digits.train, digits.classes)
    class_folders(tmp_path / "data" / "val", digits.test, digits.classes)
    data = load_data(DataSpec("folder", root=str(tmp_path / "data")))
    evaluator, arch = Evaluator(data, calibration_images=200), supernet.space.smallest.at(16)
    net = evaluator.subnet(supernet, arch)
    fit_classifier(net, data, arch.resolution)
    found, folder = Scored.of(evaluator, net, supernet.space, arch), tmp_path / "subnet"
    assert found.score.top1 > 0.3
    save_subnet(found.extracted, folder, source=weights)
    requests = Request(target), Request(target, pixels=TARGETS[target].pixels, softmax=True)
    files = [file for request in requests for file in export(folder, request, data)]
    python = bare_environment(tmp_path / "env", package)
    about = read_description(folder)
    assert about.exports[files[0]].verification.top1 == about.accuracy.top1
    for file in files:
        stated = about.exports[file].verification
        result = subprocess.run(
            [python, "-I", str(folder / "classify.py"), str(folder / file),
             "--accuracy", str(tmp_path / "data" / "val")], check=False, capture_output=True, text=True, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"top-1 {100 * stated.top1:.2f} % on 359 pictures\n"


def bare_environment(folder: Path, package: str) -> str:
    venv.create(folder, with_pip=True)
    python = str(folder / "bin" / "python")
    found = subprocess.run([python, "-m", "pip", "install", "-q", package, "numpy", "pillow"], check=False,
                           capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"packages cannot be installed here: {found.stderr.splitlines()[-1]}")
    missing = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'onceforall', 'onnx'))))"
    assert subprocess.run([python, "-I", "-c", missing], check=False).returncode == 0
    return python


def fit_classifier(net, data, resolution: int) -> None:
    """Least squares on the features of the training pictures."""
    hidden = []
    hook = net.head.classifier.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    labels = []
    with torch.no_grad():
        for batch in eval_batches(data.train, resolution, batch=100):
            net(normalize(batch.images, data.mean, data.std))
            labels.append(batch.labels)
        hook.remove()
        features = torch.cat(hidden).double()
        spread = torch.cat([features, torch.ones(len(features), 1)], 1)
        wanted = torch.nn.functional.one_hot(torch.cat(labels), 10).double()
        solved = torch.linalg.solve(spread.T @ spread + 10 * torch.eye(spread.shape[1]).double(), spread.T @ wanted)
        net.head.classifier.weight.copy_(solved[:-1].T)
        net.head.classifier.bias.copy_(solved[-1])


@pytest.mark.parametrize("ends", [{}, {"pixels": True, "softmax": True}], ids=["plain", "pixels"])
@pytest.mark.parametrize(("target", "batch"), [
    *((name, 1 if name == "ncnn" else 4) for name in PACKAGES), ("openvino", None), ("executorch", 4)])
def test_every_form_answers(target, batch, ends, folder):
    for package in TARGETS[target].packages:
        pytest.importorskip(package)
    ends = {name: value for name, value in ends.items() if getattr(TARGETS[target], name)}
    (file,) = export(folder, Request(target, batch=batch, **ends))
    infer, about = classify.opened(str(folder / file))
    assert (folder / "classify.py").is_file()
    size = about["preprocessing"]["crop"]
    form = Ends(about["preprocessing"]["mean"], about["preprocessing"]["std"], **ends)
    images = np.random.default_rng(0).standard_normal((6, 3, size, size), dtype=np.float32)
    fed = form.fed(images)
    assert (fed.dtype, about.get("type")) == ((np.uint8, "uint8") if "pixels" in ends else (np.float32, "float32"))
    np.testing.assert_allclose(infer(fed)[5:], infer(fed[5:]), rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        expected = open_subnet(folder)[0](torch.from_numpy(form.seen(images))).numpy()
    found = infer(fed)
    if "softmax" in ends:  # the logits but for a constant
        found, expected = (values - values.mean(1, keepdims=True) for values in (found, expected))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("ends", [{}, {"pixels": True, "softmax": True}], ids=["plain", "pixels"])
def test_pictures_to_test_an_app_with(ends, folder, digits, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    (file,) = export(folder, Request("onnx", **ends), digits)
    place, words = folder / "selftest", ["classify.py", str(folder / file), "--selftest"]
    rows = json.loads((place / "expected.json").read_text())
    assert sorted(path.name for path in place.iterdir()) == [f"{n}.png" for n in range(1, 6)] + ["expected.json"]
    assert [row["picture"] for row in rows] == [f"{n}.png" for n in range(1, 6)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        classify.main()
    lines = capsys.readouterr().out.splitlines()
    assert end.value.code == 0
    assert len(lines) == 5
    assert all(float(line.rpartition(" ")[2]) < (0.02 if ends else 1e-5) for line in lines)  # enlarged: see above
    rows[2]["logits"] = [-value for value in rows[2]["logits"]]
    (place / "expected.json").write_text(json.dumps(rows))
    with pytest.raises(SystemExit) as end:
        classify.main()
    assert end.value.code == 1
    assert "3.png: ANOTHER top-1" in capsys.readouterr().out
    for nothing in ("[]", "{}", '[{"picture": "1.png"}]', '[{"picture": "1.png", "logits": []}]', "[1]"):
        (place / "expected.json").write_text(nothing)
        with pytest.raises(SystemExit, match="selftest: holds no pictures with expected answers"):
            classify.main()
    (place / "expected.json").write_text('[{"picture": "1.png", "logits": [1, 2]}]')
    with pytest.raises(SystemExit, match="expects 2 classes, and the file has 10"):
        classify.main()
    (place / "expected.json").unlink()
    with pytest.raises(SystemExit, match="selftest: holds no pictures with expected answers"):
        classify.main()


def test_classes_without_names():
    assert classify.ranked(np.array([0.0, 3.0, 1.0]), ["a"], 2) == [
        ("1", pytest.approx(0.8438, abs=1e-4)), ("2", pytest.approx(0.1142, abs=1e-4))]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is no {} file that runs here"), (b"\x08\x08" + b"x" * 99, "is no {} file that runs here"),
    (b"\x1c\x00\x00\x00TFL3" + b"x" * 99, "is no {} file that runs here")])
@pytest.mark.parametrize(("form", "file", "package"), [
    ("ONNX", "model.onnx", "onnxruntime"), ("LiteRT", "model.tflite", "ai_edge_litert"),
    ("ncnn", "model.ncnn.param", "ncnn"), ("OpenVINO", "model.xml", "openvino"),
    ("ExecuTorch", "model.pte", "executorch")])
def test_other_files_are_refused(tmp_path, content, message, form, file, package):
    pytest.importorskip(package)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(classify.RefusedError, match=message.format(form)):
        classify.opened(str(tmp_path / file))


def test_ncnn_files_need_their_description(folder, tmp_path):
    pytest.importorskip("ncnn")
    (file,) = export(folder, Request("ncnn"))
    for name in (file, "model.ncnn.bin"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(classify.RefusedError, match="is no ncnn file that runs here .*model.json"):
        classify.opened(str(tmp_path / file))
    about = json.loads((folder / "model.json").read_text())
    about["exports"][file]["type"] = "uint8"
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(classify.RefusedError, match="what it says of its input is not so"):
        classify.opened(str(tmp_path / file))
    about = json.loads((folder / "model.json").read_text()) | {"exports": {}}
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(classify.RefusedError, match="does not say how to feed it"):
        classify.opened(str(tmp_path / file))


def test_a_missing_runtime_is_named(tmp_path, monkeypatch):
    (tmp_path / "model.tflite").write_bytes(b"x")
    monkeypatch.setattr(sys, "argv", ["classify.py", str(tmp_path / "model.tflite")])
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(SystemExit, match="model.tflite: needs the package ai-edge-litert; pip install ai-edge-litert"):
        classify.main()


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "picture.jpg").write_bytes(b"x")
    with pytest.raises(classify.RefusedError, match=r"picture.jpg: is no export; give a file named \*.onnx, "):
        classify.opened(str(tmp_path / "picture.jpg"))


def test_an_onnx_file_of_others_is_refused(folder, tmp_path):
    onnx = pytest.importorskip("onnx")
    export(folder, Request("onnx"))
    model = onnx.load(folder / "model.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(classify.RefusedError, match="does not say how to feed it"):
        classify.opened(str(tmp_path / "other.onnx"))


def test_the_script_stands_alone_on_python_3_8(folder):
    tree = ast.parse(Path(classify.__file__).read_text(), feature_version=(3, 8))
    names = {name for node in ast.walk(tree) for name in (
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else
        [node.module] if isinstance(node, ast.ImportFrom) else [])}
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"__future__"} == {"numpy", "PIL"}
    json.dumps(read_description(folder).preprocessing.model_dump())


TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
         8: Image.Transpose.ROTATE_270}


@pytest.mark.parametrize("tag", TURNS)
@pytest.mark.parametrize(("width", "height", "suffix"), [
    (31, 64, "png"), (300, 217, "jpg"), (1203, 901, "jpg"), (120, 90, "tif"), (50, 40, "webp"), (3, 200, "png")])
def test_a_turned_picture_is_prepared_as_in_evaluation(digits, tmp_path, width, height, suffix, tag):
    upright, exif = picture(width, height), Image.Exif()
    exif[0x0112] = tag
    upright.save(tmp_path / "upright.png")
    upright.transpose(TURNS[tag]).save(tmp_path / f"turned.{suffix}", exif=exif, lossless=True, quality=98)
    path = str(tmp_path / f"turned.{suffix}")
    files = FilePictures((path,), torch.tensor([0]))
    arrays = ArrayPictures(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.tensor([0]))
    for test in (files, arrays):  # which are rounded after resizing, and which are not
        about = Channels.of(replace(digits, test=test, mean=(0, 0, 0), std=(1, 1, 1))).at(28).model_dump()
        found = classify.prepare(path, about)
        np.testing.assert_allclose(found, classify.prepare(str(tmp_path / "upright.png"), about),
                                   atol=0 if suffix != "jpg" else 0.03)
        if test is files:
            (batch,) = eval_batches(files, 28, batch=1)
            np.testing.assert_allclose(found, batch.images[0].numpy() / 255, atol=1e-6)
