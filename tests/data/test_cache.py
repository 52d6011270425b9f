"""Training from shrunk pictures: kept or not, whole or damaged, the cache never changes what is trained on."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_orientation import STORED, save_turned, waves

from onceforall.data import (
    Augment,
    Batch,
    DataSpec,
    FilePictures,
    Loader,
    Pictures,
    TrainBatches,
    cache_text,
    eval_batches,
    load_data,
    may_cache,
)
from onceforall.data.cache import CachedPictures, cached, kept_side, kept_size
from onceforall.data.cache_folder import CacheFolder, cache_place, packed, unpacked
from onceforall.data.crop import crop_boxes, noise
from onceforall.data.decode import Broken, read_pixels
from onceforall.data.depth import Depth
from onceforall.errors import UserError
from onceforall.testing import check_pictures

HALF = Augment((0.5, 1.0))  # with 16 pixels a shorter side of 32, so that the fixture's pictures are large
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch) -> Path:
    """An empty cache, and its folder."""
    monkeypatch.setenv("ONCEFORALL_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "pictures"


def epochs(pictures: Pictures, cache: int, *, workers: int = 0, augment: Augment = HALF, count: int = 2,
           size: int = 16) -> list[Batch]:
    """The batches of some epochs."""
    batches = TrainBatches(pictures, [size], augment=augment, seed=0, loader=Loader(4, workers=workers, cache=cache))
    return [batch for epoch in range(count) for batch in batches.epoch(epoch)]


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) > 0 and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(left, right, strict=True))


def through(pictures: Pictures, limit: int = PLENTY, **options: int) -> Pictures:
    return cached(pictures, [16], augment=HALF, limit=limit, **{"readers": 1, **options})


def read_all(pictures: Pictures) -> list[np.ndarray | Broken]:
    return [pictures.read(index) for index in range(len(pictures))]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.npy"))


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


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


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1], lambda data: data[:200], lambda data: data[:100], lambda data: b"",
    lambda data: bytes(len(data)), lambda data: data + bytes(8), lambda data: data[:128] + bytes(len(data) - 128),
    lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], lambda data: data.replace(b"(32, ", b"(16, "),
    lambda data: b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (999999999, 999999999, 3)"])
def test_a_damaged_file_is_decoded_anew(file_pictures, kept, damage):
    wanted = read_all(through(file_pictures))
    sound = {path: path.read_bytes() for path in files(kept)}
    for path, data in sound.items():
        assert damage(data) != data
        path.write_bytes(damage(data))
    found = read_all(through(file_pictures))
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert {path: path.read_bytes() for path in files(kept)} == sound


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 8), (300, 224)])
def test_the_files_are_numpys(tmp_path, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    (tmp_path / "a.npy").write_bytes(packed(pixels))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), pixels)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), pixels)
    np.testing.assert_array_equal(unpacked(packed(pixels)), pixels)


def test_a_broken_picture_is_not_kept(file_pictures, kept):
    path = Path(file_pictures.paths[3])
    path.write_bytes(path.read_bytes()[:900])
    assert isinstance(through(file_pictures).read(3), Broken)
    assert files(kept) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_the_limit(file_pictures, kept, workers):
    epochs(file_pictures, PLENTY)
    largest = max(path.stat().st_size for path in files(kept))
    shutil.rmtree(kept)
    limit = 5 * largest
    epochs(file_pictures, limit, workers=workers)
    assert limit - 2 * largest < bytes_in(kept) <= limit
    before = files(kept)
    epochs(file_pictures, limit, workers=workers)
    assert files(kept) == before
    for path in before[2:]:
        os.utime(path, (1, 1))
    TrainBatches(file_pictures, [16], augment=HALF, loader=Loader(4, workers=0, cache=2 * largest), seed=0)
    assert files(kept) == before[:2]


def test_files_of_others_make_room(file_pictures, kept):
    own = through(file_pictures)
    (kept / "notes.txt").write_text("not of the cache")
    os.utime(kept / "notes.txt", (1, 1))
    for number in range(9):
        (kept / f"{number}.npy").write_bytes(bytes(4096))
        os.utime(kept / f"{number}.npy", (10**9 - number,) * 2)
    read_all(through(file_pictures))
    mine = {kept / f"{own.key(index)}.npy" for index in range(len(own))}
    assert mine < set(files(kept))
    for path in mine:
        os.utime(path, (1, 1))  # not used for longer than those of others
    takes = sum(path.stat().st_size for path in mine)
    through(file_pictures, takes + 4 * 4096 + 4000)
    assert set(files(kept)) - mine == {kept / f"{number}.npy" for number in range(4)}
    read_all(through(file_pictures.subset(range(6)), takes + 4 * 4096 + 4000))
    assert len(files(kept)) == len(mine) + 4
    through(file_pictures.subset([0]), takes // 2)
    assert kept / f"{own.key(0)}.npy" in files(kept)
    assert len(files(kept)) < len(mine)
    assert (kept / "notes.txt").exists()


def test_a_full_cache_takes_another_data_set(file_pictures, write_picture, tmp_path, kept):
    paths = [write_picture(tmp_path / "more" / f"{i}.png", (90, 80), seed=i) for i in range(13)]
    read_all(through(file_pictures))
    limit = bytes_in(kept) + 1000
    more = through(FilePictures(tuple(map(str, paths)), torch.arange(13)), limit)
    read_all(more)
    assert len({f"{more.key(index)}.npy" for index in range(13)} & {path.name for path in files(kept)}) >= 12
    assert bytes_in(kept) <= limit


def test_what_is_used_is_young(file_pictures, kept):
    read_all(through(file_pictures))
    used, other = (kept / f"{through(file_pictures).key(index)}.npy" for index in (0, 1))
    for path in (used, other):
        os.utime(path, (1, 1))
    through(file_pictures).read(0)
    assert time.time() - used.stat().st_mtime < 60
    assert other.stat().st_mtime == 1


def test_what_killed_processes_left_goes(file_pictures, kept):
    kept.mkdir(parents=True)
    old, young = kept / "a.npy.0123.partial", kept / "b.npy.0123.partial"
    for path, age in ((old, 3700), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    through(file_pictures)
    assert list(kept.iterdir()) == [young]


def test_room_is_left_on_the_disk(file_pictures, kept, monkeypatch, caplog):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(2 * 1024**3 + 10_000))
    wanted = epochs(file_pictures, 1)
    assert same(epochs(file_pictures, PLENTY), wanted)
    assert 0 < bytes_in(kept) <= 10_000
    assert caplog.text == ""


@pytest.fixture
def unsaid():
    """The warning, which is said once a process, is due."""
    from onceforall.data.cache_folder import _say_unwritable
    _say_unwritable.cache_clear()
    yield
    _say_unwritable.cache_clear()


@pytest.mark.usefixtures("unsaid")
@pytest.mark.parametrize("place", ["onceforall.data.cache_folder.os.replace", "builtins.open"])
def test_a_full_disk_is_said_once(file_pictures, kept, monkeypatch, caplog, place):
    wanted, whole = epochs(file_pictures, 1), open

    def no_room(*given: object, **named: object) -> object:
        if given[1:] == ("xb",) or place.endswith("replace"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(*given, **named)

    monkeypatch.setattr(place, no_room)
    for _ in range(2):
        assert same(epochs(file_pictures, PLENTY), wanted)
    assert [record.getMessage() for record in caplog.records] == [
        f"{kept}: training pictures cannot be kept (No space left on device): pictures are decoded in every epoch"]
    assert list(kept.iterdir()) == []


@pytest.mark.usefixtures("unsaid")
def test_one_of_the_workers_says_it(file_pictures, kept, monkeypatch, capfd):
    wanted = epochs(file_pictures, 1)
    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger("onceforall").addHandler(handler)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("onceforall.data.cache_folder.os.replace", no_room)
    assert same(epochs(file_pictures, PLENTY, workers=2), wanted)
    assert capfd.readouterr().err.count("No space left on device") == 1


@pytest.mark.usefixtures("unsaid")
def test_a_folder_that_may_not_be_written(file_pictures, unprivileged, monkeypatch, caplog):
    wanted = epochs(file_pictures, 1)
    monkeypatch.setenv("ONCEFORALL_CACHE", str(unprivileged))
    for _ in range(2):
        assert same(epochs(file_pictures, PLENTY), wanted)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(unprivileged) in caplog.text
    assert "Permission denied" in caplog.text


@pytest.mark.usefixtures("unsaid")
def test_a_file_in_its_place(file_pictures, kept, caplog):
    kept.parent.write_text("in the way")
    assert same(epochs(file_pictures, PLENTY), epochs(file_pictures, 1))
    assert len(caplog.records) == 1


FILL = """
import sys, torch
from onceforall.data import Augment, FilePictures, Loader, TrainBatches
torch.set_num_threads(1)
pictures = FilePictures(tuple(sys.argv[1:]), torch.arange(len(sys.argv[1:])))
batches = TrainBatches(pictures, [16], augment=Augment((0.5, 1.0)), loader=Loader(4, workers=0, cache=1 << 30), seed=0)
print("begins", flush=True)
for epoch in range(10**6):
    list(batches.epoch(epoch))
"""


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_matters(tmp_path, file_pictures, kept):
    wanted = epochs(file_pictures, 1)
    (tmp_path / "fill.py").write_text(FILL)
    for number in range(6):
        shutil.rmtree(kept, ignore_errors=True) if number % 2 else None
        with subprocess.Popen([sys.executable, str(tmp_path / "fill.py"), *file_pictures.paths],
                              stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            process.stdout.readline()
            time.sleep(0.004 * number)
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert all(unpacked(path.read_bytes()) is not None for path in files(kept))
        assert same(epochs(file_pictures, PLENTY), wanted)


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


def test_its_place(monkeypatch, tmp_path):
    assert cache_place() == tmp_path / "kept" / "pictures"
    monkeypatch.delenv("ONCEFORALL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_place() == tmp_path / "xdg" / "onceforall" / "pictures"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_place() == tmp_path / "home" / ".cache" / "onceforall" / "pictures"


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


def test_nothing_is_kept_without_room(tmp_path):
    folder = CacheFolder(str(tmp_path))
    folder.write("a", np.zeros((8, 8, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []
    assert folder.read("a") is None
