"""Training from shrunk pictures: kept or not, whole or damaged, the cache never changes what is trained on."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shrunk import HALF, PLENTY, bytes_in, epochs, files, read_all, same, through
from test_orientation import STORED, save_turned, waves

from onceforall.data import (
    Augment,
    DataSpec,
    FilePictures,
    Loader,
    cache_fits,
    cache_text,
    eval_batches,
    load_data,
    may_cache,
)
from onceforall.data.cache import CachedPictures, cached, kept_side, kept_size
from onceforall.data.cache_folder import packed, unpacked
from onceforall.data.crop import crop_boxes, noise
from onceforall.data.decode import Broken, read_pixels
from onceforall.data.depth import Depth
from onceforall.data.joined import JoinedPictures
from onceforall.errors import UserError
from onceforall.testing import check_pictures

pytestmark = pytest.mark.usefixtures("kept")


@pytest.mark.parametrize("workers", [0, 2])
def test_cold_warm_and_full_are_the_same_bits(file_pictures, kept, workers):
    full = epochs(file_pictures, 1, workers=workers)
    assert files(kept) == []
    cold = epochs(file_pictures, PLENTY, workers=workers)
    assert len(files(kept)) == len(file_pictures)
    before = [path.stat().st_mtime_ns for path in files(kept)]
    assert same(full, cold)
    assert same(cold, epochs(file_pictures, PLENTY, workers=workers))
    assert before == [path.stat().st_mtime_ns for path in files(kept)]
    assert not same(cold, epochs(file_pictures, 0))


def test_what_is_kept_is_read(file_pictures, kept):
    """Only in training."""
    scored = list(eval_batches(file_pictures, 16, batch=4))
    epochs(file_pictures, PLENTY)
    for path in files(kept):
        pixels = unpacked(path.read_bytes())
        path.write_bytes(packed(np.zeros_like(pixels)))
    assert all(not batch.images.any() for batch in epochs(file_pictures, PLENTY))
    assert same(list(eval_batches(file_pictures, 16, batch=4)), scored)
    assert same(epochs(file_pictures, 0), epochs(file_pictures, 0))
    assert all(batch.images.any() for batch in epochs(file_pictures, 0))


def test_pictures_that_are_not_large(file_pictures, kept):
    """At 16 pixels and crops of 8 % a shorter side of 96 is kept, and the largest picture has 106."""
    assert same(epochs(file_pictures, PLENTY, augment=Augment()), epochs(file_pictures, 0, augment=Augment()))
    assert not kept.exists()
    pictures = cached(file_pictures, [16], augment=Augment(), limit=PLENTY, readers=1)
    assert [pictures.size(i) for i in range(13)] == [file_pictures.size(i) for i in range(13)]


def test_large_and_small_ones_together(tmp_path, write_picture, kept):
    paths = [write_picture(tmp_path / f"{side}.png", (side + 9, side)) for side in (39, 40, 41)]
    pictures = FilePictures(tuple(map(str, paths)), torch.arange(3))
    found = [pixels.shape for pixels in read_all(through(pictures))]
    assert found == [(39, 48, 3), (32, 39, 3), (32, 39, 3)]
    assert len(files(kept)) == 2
    np.testing.assert_array_equal(through(pictures).read(0), read_pixels(str(paths[0])))


def test_pictures_in_memory_are_left_alone(array_pictures):
    assert through(array_pictures) is array_pictures
    assert not may_cache(array_pictures)
    assert cache_text(array_pictures, [16], augment=HALF, limit=PLENTY) == ""


@pytest.mark.parametrize(("scale", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.5, 1.0), (3 / 4, 4 / 3)),
                                              ((1.0, 1.0), (1.0, 1.0)), ((0.3, 0.4), (0.9, 2.0)),
                                              ((0.5, 1.0), (0.2, 0.4))])
@pytest.mark.parametrize("resolution", [16, 48, 224])
def test_no_crop_is_enlarged(scale, ratio, resolution):
    augment = Augment(scale, ratio=ratio)
    side, smallest = kept_side(resolution, augment), []
    assert side % 32 == 0
    for size in ((4000, 3000), (3000, 4000), (2000, 2000), (9001, 1501)):
        width, height = kept_size(size, side)
        assert min(width, height) == side
        assert abs(width / height * size[1] / size[0] - 1) < 1 / side
        smallest.append(crop_boxes(noise(0, 3000, seed=0, epoch=0), (height, width), augment=augment)[:, 2:].min())
    assert resolution <= min(smallest)


def test_a_shrunk_picture_is_sharp_and_without_aliasing(tmp_path):
    """Next to the exact pixels; waves of two and of three pixels would come back as slow ones."""
    smooth = waves(640, 480)
    smooth.save(tmp_path / "a.jpg", quality=98, subsampling=0)
    across = np.arange(640)
    stripes = np.stack([np.broadcast_to(127 + 120 * np.cos(np.pi * across * 2 / period), (480, 640)) for period in
                        (2, 3, 2)], axis=2)
    Image.fromarray(stripes.round().astype(np.uint8)).save(tmp_path / "b.png")
    pictures = through(FilePictures((str(tmp_path / "a.jpg"), str(tmp_path / "b.png")), torch.arange(2)))
    exact = np.asarray(smooth.resize((43, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(pictures.read(0) - exact).mean() < 2
    assert np.abs(pictures.read(1)[:, 2:-2].astype(int) - 127).max() < 6


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_orientation(tmp_path, tag, name):
    upright = waves(403, 605)
    options = {"quality": 98, "subsampling": 0} if name == "a.jpg" else {}
    path = save_turned(upright, tmp_path / name, tag, **options)
    upright.save(tmp_path / f"upright_{name}", **options)
    turned, plain = (through(FilePictures((str(p),), torch.arange(1))) for p in (path, tmp_path / f"upright_{name}"))
    for _ in range(2):  # cold, and warm
        found, wanted = (pictures.read(0).astype(int) for pictures in (turned, plain))
        assert found.shape == wanted.shape == (48, 32, 3)
        # a reduced JPEG loses part of a pixel at another edge
        assert np.abs(found - wanted).max() <= (0 if name == "a.png" else 8)
    assert turned.size(0) == (32, 48)


def test_depth(tmp_path, kept):
    levels = np.linspace(0, 4000, 80 * 60).reshape(60, 80).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png")
    pictures = FilePictures((str(tmp_path / "a.png"),), torch.arange(1))
    for white, brightest in ((4000, 255), (8000, 128), (4000, 255)):
        pixels = through(FilePictures(pictures.paths, pictures.labels, Depth(uint16=white))).read(0)
        assert abs(int(pixels.max()) - brightest) <= 3
    assert len(files(kept)) == 2


def test_a_changed_file_is_decoded_anew(file_pictures, write_picture, kept):
    before = read_all(through(file_pictures))
    path = Path(file_pictures.paths[0])
    size, was = path.stat().st_size, path.stat().st_mtime_ns
    path.write_bytes(b"no picture".ljust(size))
    os.utime(path, ns=(was, was))
    assert not isinstance(through(file_pictures).read(0), Broken)  # nothing tells that it changed
    os.utime(path, ns=(was, was + 1))
    assert isinstance(through(file_pictures).read(0), Broken)
    write_picture(path, (90, 80), seed=99)
    assert not np.array_equal(through(file_pictures).read(0), before[0])
    path.unlink()
    assert isinstance(through(file_pictures).read(0), Broken)
    assert all(np.array_equal(a, b) for a, b in zip(read_all(through(file_pictures))[1:], before[1:], strict=True))


def test_other_sizes_have_copies_of_their_own(file_pictures, kept):
    """Training at 24 pixels needs a shorter side of 64, for which nine pictures are large enough."""
    wanted = epochs(file_pictures, PLENTY, size=24)
    shutil.rmtree(kept)
    epochs(file_pictures, PLENTY, size=16)
    before = len(files(kept))
    assert same(epochs(file_pictures, PLENTY, size=24), wanted)
    assert len(files(kept)) > before


def test_a_broken_picture_is_not_kept(file_pictures, kept):
    path = Path(file_pictures.paths[3])
    path.write_bytes(path.read_bytes()[:900])
    assert isinstance(through(file_pictures).read(3), Broken)
    assert files(kept) == []


def test_as_a_source_of_pictures(file_pictures):
    check_pictures(through(file_pictures))


def test_the_line_that_is_printed(file_pictures, kept, tmp_path, write_picture):
    assert cache_text(file_pictures, [16], augment=Augment(), limit=PLENTY) == ""
    assert cache_text(file_pictures, [16], augment=HALF, limit=0) == ""
    text = cache_text(file_pictures, [8, 16], augment=HALF, limit=PLENTY)
    assert text.startswith(f"cache: large training pictures, shrunk to 32 pixels, in {kept}: about ")
    read_all(through(file_pictures))
    assert text.split()[-2:] == [f"{bytes_in(kept) / 1024**2:.1f}", "MiB"]
    for times, limit, end in ((10_000, 1 << 20, r"\d{3}\.\d MiB, of which 1\.0 MiB are kept"),
                              (30_000, 1 << 40, r"1\.\d GiB")):
        many = file_pictures.subset(list(range(13)) * times)
        assert re.search(f": about {end}$", cache_text(many, [16], augment=HALF, limit=limit))


@pytest.mark.parametrize("kind", [lambda cache: DataSpec("digits", cache=cache), lambda cache: Loader(1, cache=cache)])
def test_a_limit_below_zero(kind):
    assert kind(0).cache == 0
    with pytest.raises(UserError, match="cache: -1 is negative; 0 keeps no shrunk pictures"):
        kind(-1)


def test_calibration_pictures_are_the_files(tmp_path, write_picture):
    for split, name in ((s, n) for s in ("train", "val") for n in "ab"):
        for number in range(4):
            write_picture(tmp_path / split / name / f"{number}.png", (90, 80), seed=number)
    data = load_data(DataSpec("folder", root=str(tmp_path), cache=PLENTY))
    assert {type(data.train), type(data.calibration(3)), type(data.test)} == {FilePictures}
    assert isinstance(through(data.train), CachedPictures)


def test_whether_it_is_worth_it(file_pictures, array_pictures):
    """At least half of the shrunk pictures have to fit."""
    def fits(limit: int) -> bool:
        return cache_fits(file_pictures, [8, 16], augment=HALF, limit=limit)

    total = sum(pixels.nbytes for pixels in map(cached(
        file_pictures, [8, 16], augment=HALF, limit=PLENTY, readers=1).read, range(len(file_pictures))))
    assert fits(total) and fits(int(0.6 * total)) and not fits(int(0.4 * total))
    assert not cache_fits(array_pictures, [16], augment=HALF, limit=PLENTY)


def test_pictures_of_two_sources(file_pictures, array_pictures, kept):
    """Files among them go through the cache, and only those."""
    joined = JoinedPictures.of([array_pictures, file_pictures])
    through = cached(joined, [16], augment=HALF, limit=PLENTY, readers=1)
    assert isinstance(through, JoinedPictures) and through.labels.equal(joined.labels)
    assert through.parts[0] is array_pictures and isinstance(through.parts[1], CachedPictures)
    assert cached(joined, [16], augment=HALF, limit=0, readers=1).parts == joined.parts
