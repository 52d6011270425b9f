"""ONNX files and pictures made to harm, given to `ofa predict` and to the script classify.py."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from onceforall.cli import main
from onceforall.data import decode
from onceforall.deploy import classify
from onceforall.deploy.card import card
from onceforall.deploy.description import read_description

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ABOUT = {"input": "images", "output": "logits", "classes": ["a\x1b[2J", "b"], "preprocessing": {
    "interpolation": "bilinear, antialiased", "rounded": True, "mean": [0.5] * 3, "std": [0.2] * 3,
    "resize_shorter_side": 9, "crop": 8}}


def model(path: Path, about: dict[str, object], *, location: str | None = None, batch: int | str = "n") -> Path:
    """Two logits: the mean of the pictures times two weights, which lie in the file `location` if it is given."""
    from onnx import TensorProto, helper, numpy_helper
    weight = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    if location is not None:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 2], data_location=TensorProto.EXTERNAL)
        weight.external_data.add(key="location", value=location)
    nodes = [helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
             helper.make_node("MatMul", ["mean", "w"], ["logits"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(made, {"onceforall": json.dumps(about)})
    path.write_bytes(made.SerializeToString())
    return path


def picture(path: Path, side: int = 12) -> Path:
    """A one-bit PNG."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes(((side + 7) // 8 + 1) * side), 9)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
                     + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def predicted(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["predict", *map(str, words)])
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.mark.parametrize("location", ["in.bin", "../secret.bin", "/proc/self/mem", "link.bin"])
def test_numbers_in_other_files_are_refused(tmp_path: Path, capsys, location: str) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    (folder / "in.bin").write_bytes(bytes(24))
    (folder / "link.bin").symlink_to("../secret.bin")
    path = model(folder / "a.onnx", ABOUT, location=location)
    code, _, err = predicted(capsys, path, picture(tmp_path / "a.png"))
    assert code == 2 and "it leaves its numbers to other files" in err and err.count("\n") == 1


def test_protobufs_longer_spelling_of_a_length_is_seen() -> None:
    assert classify._ELSEWHERE.search(b"..\x0a\x88\x80\x00location\x12\x01a")
    assert not classify._ELSEWHERE.search(json.dumps({"classes": ["location", "\n\x08location"]}).encode())


@pytest.mark.parametrize("change", [
    {"crop": 60_000, "resize_shorter_side": 60_000}, {"resize_shorter_side": 10**9}, {"crop": True},
    {"mean": ["x"] * 3}, {"std": [float("nan")] * 3}, {"rounded": 3},
    {"depth": {"uint16": 255.0}}, {"depth": [1]}, {"depth": {"uint16": 0, "int32": 1, "float32": 1}},
    {"depth": {"uint16": float("nan"), "int32": 1, "float32": 1}}])
def test_a_file_that_asks_for_pictures_of_any_size(tmp_path, capsys, little_memory, change) -> None:
    about = {**ABOUT, "preprocessing": {**ABOUT["preprocessing"], **change}}
    code, _, err = predicted(capsys, model(tmp_path / "a.onnx", about), picture(tmp_path / "a.png"))
    assert code == 2 and err.count("\n") == 1 and "a.onnx" in err


@pytest.mark.parametrize("about", [[], {**ABOUT, "classes": 3}, {**ABOUT, "output": "secret"}, {}])
def test_a_file_that_says_something_else(tmp_path, capsys, about) -> None:
    code, _, err = predicted(capsys, model(tmp_path / "a.onnx", about), picture(tmp_path / "a.png"))
    assert code == 2 and err.count("\n") == 1


def test_a_file_of_endless_batches(tmp_path, capsys, little_memory) -> None:
    path = model(tmp_path / "a.onnx", ABOUT, batch=2**31 - 1)
    code, _, err = predicted(capsys, path, picture(tmp_path / "a.png"))
    assert code == 2 and err.count("\n") == 1


def test_pictures_that_unpack_to_gigabytes_and_pipes(tmp_path, capsys) -> None:
    path, pipe = model(tmp_path / "a.onnx", ABOUT), tmp_path / "pipe.png"
    os.mkfifo(pipe)
    bomb = picture(tmp_path / "bomb.png", 20_000)
    for bad in (bomb, pipe):
        code, _, err = predicted(capsys, path, bad)
        assert code == 2 and err.count("\n") == 1 and ("pixels" in err or "not a file" in err)
        ran = subprocess.run([sys.executable, classify.__file__, path, bad], capture_output=True, text=True, timeout=30,
                             check=False)
        assert ran.returncode == 1 and ran.stderr.count("\n") == 1, ran.stderr
    assert (classify._MAX_PIXELS, classify._FORMATS) == (decode.MAX_PIXELS, decode.FORMATS)


def test_names_do_not_reach_the_terminal_as_they_are(tmp_path, capsys) -> None:
    named = picture(tmp_path / "p\x1b[31m\n.png")
    code, out, _ = predicted(capsys, model(tmp_path / "a.onnx", ABOUT), named)
    assert code == 0
    assert "\x1b" not in out and r"a\x1b[2J" in out and r"p\x1b[31m\n.png" in out


def test_a_card_keeps_what_others_wrote_in_its_place(folder: Path) -> None:
    values = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    evil = "`|\n# x\x1b[2J<script>"
    values |= {"versions": {evil: evil}, "provenance": {"source": evil, "sha256": evil, "date": evil},
               "data": {"name": evil}, "arch": evil, "space": {"name": evil}}
    (folder / "model.json").write_text(json.dumps(values), encoding="utf-8")
    text = card(read_description(folder))
    outside = "".join(part for line in text.split("\n") for part in line.split("`")[::2])
    assert "\n# x" not in text and "\x1b" not in text and "<script>" not in outside
