"""One folder, one number: of `ofa evaluate`, the export's verification, classify.py and `ofa predict`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from onceforall.cli import main
from onceforall.data.folders import EXTENSIONS
from onceforall.deploy import classify


def ofa(capsys, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, words)))
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


NAMES = ("0.png", "more/1.PNG", "more/deep/2.jfif", "3.jpe", "4.pgm", "5.bmp")


@pytest.fixture
def messy(digits, tmp_path) -> Path:
    """Six pictures a class: in subfolders, with unusual endings, beside hidden, broken and other files."""
    root = tmp_path / "messy" / "val"
    for label in range(10):
        images = digits.test.images[digits.test.labels == label][:6]
        for image, name in zip(images, NAMES, strict=True):
            path = root / str(label) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = {".jfif": "JPEG", ".jpe": "JPEG", ".pgm": "PPM"}.get(path.suffix)
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            (picture.convert("L") if path.suffix == ".pgm" else picture).save(path, kind)
    one = root / "3"
    (one / ".DS_Store").write_bytes(bytes(64))
    (one / ".hidden.png").write_bytes((one / "0.png").read_bytes())
    (one / "broken.png").write_bytes((one / "0.png").read_bytes()[:60])
    (one / "who.txt").write_text("took these?")
    (root / "notes.txt").write_text("on this split")
    (root / "stray.png").write_bytes((one / "0.png").read_bytes())
    for hidden in (root / ".ipynb_checkpoints", one / ".trash"):
        hidden.mkdir()
        (hidden / "0.png").write_bytes((one / "0.png").read_bytes())
    os.symlink(root / "5", one / "link")
    os.symlink(root, root / "loop")
    return root


@pytest.mark.slow
def test_all_four_give_the_same_number_on_the_same_files(folder, messy, capsys):
    code, out, err = ofa(capsys, "evaluate", folder, "--data", messy.parent, "--json")
    evaluated = json.loads(out)
    assert code == 0
    assert evaluated["images"] == 60
    assert "broken.png" in err
    code, out, err = ofa(capsys, "export", folder, "--to", "onnx", "--data", messy.parent, "--json")
    assert code == 0, err
    verified = json.loads(out)["model.onnx"]["verification"]
    script = subprocess.run([sys.executable, folder / "classify.py", folder / "model.onnx", "--accuracy", messy],
                            check=False, capture_output=True, text=True)
    assert script.returncode == 0, script.stderr
    first, *left = script.stdout.splitlines()
    percent, count = re.fullmatch(r"top-1 ([0-9.]+) % on ([0-9]+) pictures", first).groups()
    assert len(left) == 4  # a broken picture, hidden files, a text, a linked folder
    assert "broken.png" in left[0]
    predicted = []
    for source in (folder, folder / "model.onnx"):
        code, out, err = ofa(capsys, "predict", source, messy, "--json")
        rows = json.loads(out)
        assert code == 0
        assert "broken.png" in err
        # below the split itself, predict sees the stray picture too, which has no class
        rows = [row for row in rows if Path(row["picture"]).parent != messy]
        right = sum(row["top"][0]["class"] == Path(row["picture"]).relative_to(messy).parts[0] for row in rows)
        predicted.append((len(rows), right / len(rows)))
    top1 = evaluated["top1"]
    assert (verified["pictures"]["images"], verified["top1"]) == (60, top1)
    assert (int(count), percent) == (60, f"{100 * top1:.2f}")
    assert predicted == [(60, top1), (60, top1)]


def test_a_class_that_the_network_does_not_know_is_refused_by_all(folder, messy, capsys):
    (messy / "eleven").mkdir()
    (messy / "eleven" / "0.png").write_bytes((messy / "1" / "0.png").read_bytes())
    code, _, err = ofa(capsys, "evaluate", folder, "--data", messy.parent)
    assert code == 2
    assert "does not know eleven" in err
    with pytest.raises(classify.RefusedError, match="eleven: is a class that the network does not know"):
        classify.class_folders(list("0123456789"), messy)


def test_a_picture_that_is_named_itself_has_to_be_read(folder, messy, capsys):
    code, out, err = ofa(capsys, "predict", folder, messy / "3" / "broken.png", messy / "3", "--json")
    assert code == 2
    assert len(json.loads(out)) == 6
    assert "broken.png: cannot be read as a picture" in err


def test_the_script_knows_the_same_endings():
    assert set(classify._ENDINGS) == set(EXTENSIONS)


def test_the_script_takes_the_names_of_folders(tmp_path):
    for name in ("T-shirt_top", "Ba\u0308r", ".hidden"):
        (tmp_path / name).mkdir()
    found = classify.class_folders(["B\u00e4r", "T-shirt/top", "other"], tmp_path)
    assert {number: path.name for number, path in found.items()} == {0: "Ba\u0308r", 1: "T-shirt_top"}
