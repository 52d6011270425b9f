"""The folder of shrunk pictures: bounded, shared, damaged, full or closed, it never changes what is trained on."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple

import numpy as np
import pytest
import torch
from shrunk import HALF, PLENTY, bytes_in, epochs, files, read_all, same, through

from onceforall.data import (
    FilePictures,
    Loader,
    TrainBatches,
)
from onceforall.data.cache_folder import CacheFolder, cache_place, packed, unpacked

pytestmark = pytest.mark.usefixtures("kept")


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
import hashlib, sys, torch
from onceforall.data import Augment, FilePictures, Loader, TrainBatches, cache_folder
torch.set_num_threads(1)
cache_folder.FREE = 0
epochs, *paths = sys.argv[1:]
pictures = FilePictures(tuple(paths), torch.arange(len(paths)))
batches = TrainBatches(pictures, [16], augment=Augment((0.5, 1.0)), loader=Loader(4, workers=0, cache=1 << 30), seed=0)
print("begins", flush=True)
digest = hashlib.sha256()
for epoch in range(int(epochs)):
    for batch in batches.epoch(epoch):
        digest.update(batch.images.numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.fixture
def fill(tmp_path, file_pictures) -> list[str]:
    """A command that reads the pictures through the cache. The number of epochs and the pictures' paths follow it."""
    (tmp_path / "fill.py").write_text(FILL)
    return [sys.executable, str(tmp_path / "fill.py")]


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_matters(fill, file_pictures, kept):
    """Ten kills: one before the first file is there, one after it, and so on."""
    wanted = epochs(file_pictures, 1)
    for number in range(10):
        shutil.rmtree(kept, ignore_errors=True)
        with subprocess.Popen([*fill, "1000000", *file_pictures.paths], stdout=subprocess.PIPE,
                              env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            process.stdout.readline()
            while len(files(kept)) < number:
                assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert len(files(kept)) >= number
        assert all(unpacked(path.read_bytes()) is not None for path in files(kept))
        assert same(epochs(file_pictures, PLENTY), wanted)


@pytest.mark.slow
def test_a_disk_that_is_full(fill, file_pictures, kept):
    """A file system of its own, which is full after some of the pictures."""
    alone, room = ["unshare", "--mount", "--map-root-user"], kept.parent
    room.mkdir()
    mount = f"mount -t tmpfs -o size=64k tmpfs '{room}'"
    if not shutil.which("unshare") or subprocess.call([*alone, "sh", "-c", mount], stderr=subprocess.DEVNULL):
        pytest.skip("a file system cannot be mounted here")
    command = " ".join([f"'{word}'" for word in (*fill, "2", *file_pictures.paths)])
    run = subprocess.run([*alone, "sh", "-c", f"{mount} && {command} && ls '{kept}'"], capture_output=True, text=True,
                         check=True)
    _, digest, *left = run.stdout.split()
    assert run.stderr.count("No space left on device") == 1
    assert 0 < len(left) < len(file_pictures) and all(name.endswith(".npy") for name in left)
    wanted = hashlib.sha256()
    for batch in epochs(file_pictures, PLENTY):
        wanted.update(batch.images.numpy().tobytes())
    assert digest == wanted.hexdigest()


def test_its_place(monkeypatch, tmp_path):
    assert cache_place() == tmp_path / "kept" / "pictures"
    monkeypatch.delenv("ONCEFORALL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_place() == tmp_path / "xdg" / "onceforall" / "pictures"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_place() == tmp_path / "home" / ".cache" / "onceforall" / "pictures"


def test_nothing_is_kept_without_room(tmp_path):
    folder = CacheFolder(str(tmp_path))
    folder.write("a", np.zeros((8, 8, 3), dtype=np.uint8))
    assert list(tmp_path.iterdir()) == []
    assert folder.read("a") is None
