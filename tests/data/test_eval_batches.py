"""Evaluation shows every picture once, in order, by torchvision's resize and centre crop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as V

from onceforall.data import ArrayPictures, DataSpec, FilePictures, Framing, eval_batches
from onceforall.data.evaluation import scaled_size
from onceforall.errors import UserError

FRAMINGS = [Framing(), Framing(0.95, "bicubic"), Framing(1.0, "bilinear")]
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("resolution", [8, 14, 33])
def test_arrays_equal_torchvisions(array_pictures: ArrayPictures, resolution: int, framing: Framing) -> None:
    found = list(eval_batches(array_pictures, resolution, batch=8, framing=framing))
    assert [len(batch) for batch in found] == [8, 8, 8, 6]
    assert torch.cat([batch.labels for batch in found]).tolist() == list(range(30))
    scaled = V.resize(array_pictures.images.float() / 255, [round(resolution / framing.share)],
                      MODES[framing.interpolation], antialias=True)
    expected = V.center_crop(scaled, [resolution, resolution]).clamp(0, 1)
    torch.testing.assert_close(torch.cat([batch.images for batch in found]), expected, atol=1e-5, rtol=0)
    assert {batch.resolution for batch in found} == {resolution}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("resolution", [32, 64, 100])
def test_files_equal_torchvisions(file_pictures: FilePictures, resolution: int, framing: Framing) -> None:
    found = eval_batches(file_pictures, resolution, batch=5, framing=framing)
    images = torch.cat([batch.images for batch in found])
    assert images.dtype == torch.uint8
    for path, image in zip(file_pictures.paths, images, strict=True):
        if path.endswith("png"):  # noise as JPEG is decoded at a reduced scale, which only smooth pictures survive
            scaled = V.resize(Image.open(path), [round(resolution / framing.share)], MODES[framing.interpolation])
            expected = V.pil_to_tensor(V.center_crop(scaled, [resolution, resolution]))
            assert (image.int() - expected.int()).abs().max() <= (1 if resolution > 32 else 12)


def test_workers_change_nothing(file_pictures: FilePictures) -> None:
    alone, helped = (list(eval_batches(file_pictures, 24, batch=4, workers=count)) for count in (0, 2))
    assert len(alone) == len(helped) == 4
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_pictures_are_left_out(
    file_pictures: FilePictures, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    for index in (4, 5, 6, 7, 9):
        Path(file_pictures.paths[index]).write_bytes(b"")
    found = list(eval_batches(file_pictures, 16, batch=4, workers=workers))
    assert [batch.labels.tolist() for batch in found] == [[0, 1, 2, 3], [8, 10, 11], [12]]
    assert "left out 5 broken pictures of 13" in caplog.text
    with pytest.raises(UserError, match="broken picture"):
        list(eval_batches(file_pictures, 16, batch=4, workers=workers, strict=True))


def test_no_pictures_no_batches(array_pictures: ArrayPictures, file_pictures: FilePictures) -> None:
    assert list(eval_batches(array_pictures.subset([]), 16, batch=4)) == []
    assert list(eval_batches(file_pictures.subset([]), 16, batch=4)) == []


def test_scaled_size() -> None:
    assert scaled_size(500, 375, shorter=256) == (341, 256)
    assert scaled_size(375, 500, shorter=256) == (256, 341)
    assert scaled_size(8, 8, shorter=8) == (8, 8)
    assert [Framing(share).shorter_side(224) for share in (0.875, 0.95, 1.0)] == [256, 236, 224]


@pytest.mark.parametrize(("values", "message"), [
    ({"share": 1.5}, "^framing.share: 1.5 is not within 0.1..1"), ({"share": 0}, "0 is not within 0.1..1"),
    ({"interpolation": "nearest"}, "^framing.interpolation: .*nearest"), ({"shares": 1}, "shares: is not a known")])
def test_framings_that_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataSpec.from_dict({"name": "digits", "framing": values})


def test_a_long_strip_stays_bounded(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((1, 60_000, 3), dtype=np.uint8)).save(tmp_path / "strip.png")
    pictures = FilePictures((str(tmp_path / "strip.png"),), torch.tensor([0]))
    assert [batch.images.shape for batch in eval_batches(pictures, 224, batch=1)] == [(1, 3, 224, 224)]
