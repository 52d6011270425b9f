"""The measurement of the cache of shrunk pictures runs, and says what docs/performance.md promises of it."""

from __future__ import annotations

import pytest
from in_turn import rows_of
from PIL import Image


@pytest.mark.slow
def test_a_row_for_each_side(tmp_path):
    for number in range(17):
        Image.linear_gradient("L").rotate(7 * number).resize((400, 300)).save(tmp_path / f"{number:02d}.jpg")
    (row,) = rows_of("decode_cache.py", str(tmp_path), "--only", "sample_128")
    assert (row["n"], row["pictures"], row["large"], row["side"]) == (1, 16, 16, 224)
    assert list(row["sides"]) == ["torchvision", "decode_jpeg", "none", "cold", "full", "warm"]
    usual = row["sides"]["torchvision"]["pictures_per_s"]
    for side in row["sides"].values():
        assert side["ratio"][0] == pytest.approx(side["pictures_per_s"][0] / usual[0])
