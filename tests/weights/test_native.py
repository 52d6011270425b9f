"""Our own form of a weights file."""

from __future__ import annotations

import torch

from onceforall.space import search_space
from onceforall.weights.about import About, Pictures
from onceforall.weights.content import Content, Stored
from onceforall.weights.native import read, write


def test_equal_weights_make_equal_files(tmp_path):
    """A sub-network's description names its source by the SHA-256 of the file."""
    about = About(kind="supernet", space=search_space("mobilenet_v3_large_32px").to_dict(), num_classes=2,
                  pictures=Pictures(classes=("żaba", '"quoted"\\', "tab\tand \x01\x7f")))
    stored = Stored("[]", {"0": torch.ones(1)})
    content = Content({"w": torch.ones(3), "v": torch.zeros(2, 2)}, {}, about, stored=stored)
    files = set()
    for _ in range(20):
        write(tmp_path / "weights.safetensors", content)
        files.add((tmp_path / "weights.safetensors").read_bytes())
    assert len(files) == 1
    found = read(tmp_path / "weights.safetensors")
    assert found.about == about and found.stored.text == "[]"
    assert {name: array.tolist() for name, array in found.arrays.items()} == {"w": [1, 1, 1], "v": [[0, 0], [0, 0]]}
