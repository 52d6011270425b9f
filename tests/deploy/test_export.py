"""Exports: each target answers as torch does, and one that does not is kept aside."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from onceforall.deploy import to_torch
from onceforall.deploy.description import read_description, sha256
from onceforall.deploy.export import Request, export
from onceforall.deploy.folder import load_subnet
from onceforall.deploy.targets import TARGETS
from onceforall.deploy.verify import Verifier, prepared
from onceforall.errors import UserError

CASES = [pytest.param(name, precision, marks=[pytest.mark.slow] if name == "executorch" else [])
         for name, target in TARGETS.items() for precision in target.precisions]


def needed(name: str) -> None:
    for package in TARGETS[name].packages:
        pytest.importorskip(package)


@pytest.fixture(scope="module")
def written() -> dict[str, bytes]:
    return {}


def once(write, written: dict[str, bytes]):
    """The float32 file, beside which int8 is timed too, takes as long as int8's own: the same net is written once."""
    def kept(job, path):
        if job.precision != "fp32":
            return write(job, path)
        key = repr((job.batch, job.metadata, [(n, t.double().sum().item()) for n, t in job.net.state_dict().items()]))
        if key not in written:
            assert write(job, path) == {}
            written[key] = path.read_bytes()
        path.write_bytes(written[key])
        return {}
    return kept


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), CASES)
def test_each_target_answers_as_torch(folder, digits, name, precision, written, monkeypatch):
    needed(name)
    if name == "executorch":
        monkeypatch.setattr(TARGETS[name].module(), "write", once(TARGETS[name].module().write, written))
    request = Request(name, precision, max_loss=100 if precision == "int8" else 0.3, calibration_images=100)
    ((file, made),) = export(folder, request, digits).items()
    assert file == f"model{'' if precision == 'fp32' else '_' + precision}{TARGETS[name].suffix}"
    assert all(sha256(folder / part) == digest for part, digest in made.sha256.items())
    assert made.size == sum((folder / part).stat().st_size for part in made.sha256)
    assert read_description(folder).exports == {file: made}
    assert f"`{file}`" in (folder / "README.md").read_text()
    assert not list(folder.glob(".export-*"))
    infer, net = TARGETS[name].module().opened(folder / file, 1), load_subnet(folder)
    images, labels = next(prepared(digits.test, digits, size_of(folder), made.batch or 40))
    expected = net(torch.from_numpy(images)).detach().numpy()
    error = np.abs(infer(images) - expected).max() / np.abs(expected).max()
    assert error < {"fp32": 1e-4, "fp16": 0.1, "int8": 1}[precision]
    seen = made.verification
    assert seen.pictures.images == len(digits.test)
    assert seen.torch_top1 == read_description(folder).accuracy.top1
    assert 0 < seen.latency.ms < 1000
    assert (made.calibration_images is None) == (precision != "int8")


def size_of(folder) -> int:
    return read_description(folder).resolution


SIGNAL = """
import signal, sys
from pathlib import Path
from onceforall.deploy.to_openvino import opened
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
runs = [opened(Path(sys.argv[1]), 1) for _ in range(2)]
del runs[0]
del runs[0]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heard")
"""


@pytest.mark.slow
def test_a_signal_is_heard_after_openvino(folder, digits):
    """With a Core for each model the process ended by SIGSEGV, if the models were dropped in the order of opening."""
    needed("openvino")
    export(folder, Request("openvino"), digits)
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", SIGNAL, str(folder / "model.xml")], check=False,
                          capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_fixed_batch_is_filled_up(folder, digits, name):
    """359 test pictures in batches of 50: the last one has 9."""
    needed(name)
    ((file, made),) = export(folder, Request(name, batch=50), digits).items()
    assert made.batch == made.verification.latency.batch == 50
    assert made.verification.pictures.images == 359
    assert made.verification.pictures.same_top1 == 359
    with pytest.raises(Exception, match=r"(?i)dimension|shape|size"):
        TARGETS[name].module().opened(folder / file, 1)(np.zeros((1, 3, 12, 12), np.float32))


def test_without_pictures_random_inputs_verify(folder):
    ((file, made),) = export(folder, Request("onnx")).items()
    assert made.verification.pictures is None
    assert made.verification.top1 is None
    assert made.verification.random.images == 32
    assert made.verification.random.relative_error < 1e-4


def test_the_file_says_how_to_feed_it(folder):
    onnx = pytest.importorskip("onnx")
    export(folder, Request("onnx"))
    values = {p.key: p.value for p in onnx.load(folder / "model.onnx").metadata_props}
    about = json.loads(values["onceforall"])
    assert about["preprocessing"] == read_description(folder).preprocessing.model_dump(mode="json")
    assert about["classes"] == read_description(folder).classes


@pytest.mark.slow
def test_what_answers_otherwise_is_kept_aside(folder, digits, monkeypatch):
    write = to_torch.write

    def wrong(job, path):
        with torch.no_grad():
            job.net.head.classifier.bias[0] += 1e-3
        return write(job, path)

    export(folder, Request("onnx"), digits)
    before = (folder / "model.json").read_bytes()
    monkeypatch.setattr(to_torch, "write", wrong)
    with pytest.raises(UserError, match=r"rejected/model.pt2: its logits differ from torch's by .*more than 0.0001"):
        export(folder, Request("torch-export"), digits)
    assert (folder / "rejected" / "model.pt2").exists()
    assert not (folder / "model.pt2").exists()
    assert (folder / "model.json").read_bytes() == before
    assert not list(folder.glob(".export-*"))


@pytest.mark.slow
def test_a_loss_of_accuracy_is_kept_aside(folder, digits, monkeypatch):
    """The least of changes to half precision that moves answers: the classes change places."""
    write = to_torch.write

    def wrong(job, path):
        with torch.no_grad():
            job.net.head.classifier.weight.copy_(job.net.head.classifier.weight.flip(0))
        return write(job, path)

    monkeypatch.setattr(to_torch, "write", wrong)
    with pytest.raises(UserError, match=r"more than 0\.05; give --data"):
        export(folder, Request("torch-export", "fp16"))
    # the fixture's net guesses: one with another order of classes guesses as well, so the labels are its own answers
    net = load_subnet(folder)
    size = size_of(folder)
    answers = torch.cat([net(torch.from_numpy(x)).argmax(1) for x, _ in prepared(digits.test, digits, size, 50)])
    sure = replace(digits, test=replace(digits.test, labels=answers))
    with pytest.raises(UserError, match=r"loses \d+\.\d\d points of top-1 \(100\.00 to .*more than --max-loss 1;"):
        export(folder, Request("torch-export", "fp16"), sure)


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_differ(folder, value):
    net = load_subnet(folder)
    found = Verifier(net, read_description(folder), None)(lambda x: np.full((len(x), 10), value, np.float32))
    assert found.random.relative_error > 1e30
    json.dumps(found.model_dump(), allow_nan=False)


@pytest.mark.parametrize(("request_", "message"), [
    (Request("tflite"), "--to: 'tflite' is not one of onnx, openvino, torch-export, executorch, litert, ncnn"),
    (Request("torch-export", "int8"), "--int8: torch-export has fp32, fp16 only; take --to onnx, openvino, executorch, "
     "litert"),
    (Request("onnx", "int8"), "--int8: needs training pictures to calibrate with"),
    (Request("openvino", "int8", batch=0), "--batch: 'dynamic' is not possible in int8 here"),
    (Request("ncnn", batch=2), "--batch: 2 is not possible: this form takes one picture at a time; leave it out"),
    (Request("ncnn", pixels=True), "--input: is not possible with ncnn; leave it out; model.json"),
    (Request("ncnn", batch=0), "--batch: dynamic is not possible"),
    (Request("onnx", batch=99_999_999), "--batch: 99999999 is not a number from 0 to 4,096"),
    (Request("onnx", threads=0), "--threads: 0 is not a number from 1 to "),
    (Request("onnx", max_loss=float("nan")), "--max-loss: nan is not a number from 0 to 100"),
])
def test_what_cannot_be_is_one_line(folder, request_, message):
    if request_.target in TARGETS:
        needed(request_.target)
    before = sorted(folder.rglob("*"))
    with pytest.raises(UserError) as error:
        export(folder, request_)
    assert str(error.value).startswith(message)
    assert sorted(folder.rglob("*")) == before


def test_a_missing_package_says_what_brings_it(folder, monkeypatch):
    monkeypatch.setattr("onceforall.deploy.targets.find_spec", lambda name: None if name == "nncf" else find_spec(name))
    needed("onnx")
    with pytest.raises(UserError, match=r"needs the package nncf; pip install 'onceforall\[openvino\]'"):
        export(folder, Request("openvino"))


def test_a_package_of_another_version_says_so(folder, monkeypatch):
    needed("onnx")
    monkeypatch.setattr("onceforall.deploy.targets.version",
                        lambda name: "1.2" if name == "onnxruntime" else version(name))
    with pytest.raises(UserError, match=r"needs onnxruntime >=1.18, and 1.2 is here; pip install 'onceforall\[onnx\]'"):
        export(folder, Request("onnx"))
