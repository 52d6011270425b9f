"""Random folders of pictures as users have them: loading works, or says in one line what is wrong.

Class black holds black pictures and class white white ones, each paler in its upper half, so that a wrong picture, a
wrong label, a wrong turn and a wrong depth are seen.
ONCEFORALL_FUZZ=long draws ten times as many, at random.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import signal
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from deep import KINDS as DEPTHS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from onceforall.data import Augment, DataSpec, Loader, TrainBatches, eval_batches, load_data
from onceforall.errors import UserError, printable

LONG = os.environ.get("ONCEFORALL_FUZZ") == "long"
SETTINGS = settings(max_examples=1500 if LONG else 150, derandomize=not LONG, deadline=None, database=None,
                    suppress_health_check=list(HealthCheck))
SECONDS = 10
MEGABYTES = 600
CLASSES = {"black": 0, "white": 255}
PALER = {"black": 64, "white": 191}
Write = Callable[[Path, int, tuple[int, int]], object]


def _grey(level: int, size: tuple[int, int]) -> Image.Image:
    """Of one level, nearer to grey in the upper half."""
    levels = np.full((size[1], size[0], 3), level, dtype=np.uint8)
    levels[:size[1] // 2] = level + (64 if level < 128 else -64)
    return Image.fromarray(levels)


def _saved(name: str, mode: str, **options: object) -> tuple[str, Write]:
    return name, lambda path, level, size: _grey(level, size).convert(mode).save(path, **options)


def _wrongly_named(path: Path, level: int, size: tuple[int, int]) -> None:
    _grey(level, size).save(path, "JPEG")


def _deep(depth: str) -> tuple[str, Write]:
    kind = DEPTHS[depth]
    return kind.name, lambda path, level, size: kind.write(np.asarray(_grey(level, size).convert("L")), path)


def _animated(path: Path, level: int, size: tuple[int, int]) -> None:
    frames = [_grey(255 - level, size), _grey(128, size)]
    _grey(level, size).save(path, save_all=True, append_images=frames, duration=10)


STORED = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_270}


def _turned(name: str, tag: int) -> tuple[str, Write]:
    """As a camera stores it that is held otherwise."""
    def write(path: Path, level: int, size: tuple[int, int]) -> None:
        exif = Image.Exif()
        exif[0x0112] = tag
        _grey(level, size).transpose(STORED[tag]).save(path, exif=exif)
    return name, write


def _torn_exif(path: Path, level: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _grey(level, size).save(path, exif=exif.tobytes()[:-7])


def _truncated(path: Path, level: int, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(level).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])


def _bomb(path: Path, level: int, size: tuple[int, int]) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(50_020_000), 1))
                     + chunk(b"IEND", b""))


GOOD: dict[str, tuple[str, Write]] = {
    "png": _saved("a.png", "RGB"), "jpeg": _saved("a.JPG", "RGB"), "cmyk": _saved("a.jpeg", "CMYK"),
    "grey": _saved("a.png", "L"), "palette": _saved("a.png", "P"), "alpha": _saved("a.png", "RGBA"),
    "grey alpha": _saved("a.png", "LA"), "one bit": _saved("a.png", "1"), "tiff": _saved("a.tif", "RGB"),
    "wrong ending": ("a.png", _wrongly_named), "gif": ("a.gif", _animated),
    "animated webp": ("a.webp", _animated), "animated png": ("a.png", _animated), "torn exif": ("a.jpg", _torn_exif),
    **{f"turned {tag}": _turned(name, tag) for tag, name in zip(STORED, ["a.jpg", "a.png", "a.tif", "a.jpg", "a.webp",
                                                                         "a.png", "a.jpg"], strict=True)},
    "one column": ("a.png", lambda path, level, size: _grey(level, (1, 2)).save(path)),
    "a strip": ("a.png", lambda path, level, size: _grey(level, (1, 10_000)).save(path)),
    "spaces and quotes": _saved("a b'\"c\\ .png", "RGB"), "new line": _saved("a\nb.png", "RGB"),
    "letters": _saved("größe 名前 🐈.png", "RGB"), "no text": _saved("a\udcff\x1b[2J.png", "RGB"),
}
BAD: dict[str, tuple[str, Write]] = {
    "no bytes": ("b.png", lambda path, level, size: path.touch()),
    "truncated": ("b.jpg", _truncated),
    "text": ("b\x1b[2J.jpg", lambda path, level, size: path.write_text("x", encoding="ascii")),
    "bomb": ("b.png", _bomb),
    "dangling": ("b.jpg", lambda path, level, size: path.symlink_to("nowhere")),
    "link to itself": ("b.jpg", lambda path, level, size: path.symlink_to(path.name)),
    "pipe": ("b.jpg", lambda path, level, size: os.mkfifo(path)),
    "device": ("b.jpg", lambda path, level, size: path.symlink_to("/dev/zero")),
}
LEFT_OUT: dict[str, tuple[str, Write]] = {
    "hidden": (".a.png", lambda path, level, size: _grey(128, size).save(path)),
    "folder": ("x.jpg", lambda path, level, size: path.mkdir()),
    "loop": ("loop", lambda path, level, size: path.symlink_to("..")),
    "notes": ("notes.txt", lambda path, level, size: path.touch()),
}
KINDS = GOOD | BAD | LEFT_OUT
DEEP = "deep"  # of the depth that the whole folder has


@dataclass(frozen=True)
class Item:
    split: str
    label: str
    kind: str
    size: tuple[int, int]


SIZES = st.sampled_from([(12, 12), (12, 12), (70, 50), (33, 90)])
ITEMS = st.lists(st.builds(Item, st.sampled_from(["train", "train", "val"]), st.sampled_from(list(CLASSES)),
                           st.one_of(st.sampled_from(list(GOOD)), st.sampled_from([*KINDS, DEEP, DEEP, DEEP])), SIZES),
                 min_size=4, max_size=9)
EXTRAS = st.sampled_from([None] * 6 + ["train/empty", "val/new", "train/bl\nack", "val/empty black"])


@contextmanager
def built(items: list[Item], extra: str | None, depth: str) -> Iterator[tuple[Path, set[str], dict[str, int]]]:
    """The folder, the paths of its broken pictures, and the number of good ones in each split and class."""
    root, bad = Path(tempfile.mkdtemp()), set[str]()
    good = {f"{split}/{label}": 0 for split in ("train", "val") for label in CLASSES}
    try:
        for number, item in enumerate(items):
            folder = root / item.split / item.label / str(number)
            folder.mkdir(parents=True)
            name, write = _deep(depth) if item.kind == DEEP else KINDS[item.kind]
            write(folder / name, CLASSES[item.label], item.size)
            good[f"{item.split}/{item.label}"] += item.kind in GOOD or item.kind == DEEP
            bad |= {str(folder / name)} if item.kind in BAD else set()
        if extra is not None:
            (root / extra).mkdir(parents=True)
        yield root, bad, good
    finally:
        shutil.rmtree(root)


@contextmanager
def in_time() -> Iterator[None]:
    """Fail after ten seconds."""
    def late(*_: object) -> None:
        raise AssertionError(f"it hung for {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def load(root: Path, *, strict: bool, workers: int) -> dict[str, int]:
    """One epoch of training batches and all evaluation batches; the pictures seen of each split."""
    data = load_data(DataSpec("folder", root=str(root), strict=strict, train_portion=0.7))
    augment, seen = Augment(brightness=0, saturation=0), {}
    loader = Loader(batch=1, workers=workers, strict=strict)
    parts = {"train": TrainBatches(data.train, [16], augment=augment, loader=loader, seed=0).epoch(0)}
    parts |= {name: eval_batches(pictures, 16, batch=2, workers=workers, strict=strict)
              for name, pictures in (("held_out", data.held_out), ("test", data.test)) if len(pictures)}
    for name, batches in parts.items():
        seen[name] = 0
        for batch in batches:
            assert batch.images.shape[1:] == (3, 16, 16)
            levels = batch.images.float() * (255 if batch.images.dtype.is_floating_point else 1)
            for image, label in zip(levels, batch.labels.tolist(), strict=True):
                right(image, data.classes[label], whole=name != "train")
            seen[name] += len(batch)
    return seen


def right(image: Tensor, label: str, *, whole: bool) -> None:
    """The picture (3, 16, 16) in 0..255 shows its class; a `whole` one is upright."""
    full, pale = CLASSES[label], PALER[label]
    low, high = min(full, pale) - 13, max(full, pale) + 13
    if whole:
        upper, lower = float(image[:, :2].mean()), float(image[:, -2:].mean())
        assert abs(lower - full) < 13, (upper, lower)
        assert 25 < abs(upper - lower) < 100, (upper, lower)
    assert low <= float(image.mean()) <= high


def check(items: list[Item], extra: str | None, caplog: pytest.LogCaptureFixture, *, strict: bool,
          workers: int, depth: str = "16 bits") -> None:
    caplog.clear()
    if any(item.kind == DEEP for item in items):  # one that shows how bright they get
        items = [*items, Item("train", "white", DEEP, (12, 12))]
    before = most_memory()
    with built(items, extra, depth) as (root, bad, good):
        train_lacks = any(not good[f"train/{name}"] for name in CLASSES)
        has_val = any(item.split == "val" for item in items) or (extra or "").startswith("val")
        val_lacks = has_val and not any(good[f"val/{name}"] for name in CLASSES)
        may_refuse = train_lacks or val_lacks or extra is not None or (strict and bool(bad))
        try:
            with in_time():
                seen = load(root, strict=strict, workers=workers)
        except UserError as error:
            if not (may_refuse and str(error).isprintable()):
                raise
            return
        assert not (strict and bad), "a broken picture was accepted under strict"
        messages = [record.getMessage() for record in caplog.records]
        assert all(message.isprintable() for message in messages)
        named = [message.split(": broken picture skipped (") for message in messages if "picture skipped (" in message]
        assert {path for path, reason in named} == set(map(printable, bad))
        assert all(len(reason) > 5 for path, reason in named)
        if has_val:
            assert seen["test"] == good["val/black"] + good["val/white"]
    assert most_memory() - before < MEGABYTES


def most_memory() -> float:
    """MB that the process has held at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, logger="onceforall"):
        yield caplog


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_any_folder_of_pictures(warned: pytest.LogCaptureFixture) -> None:
    @SETTINGS
    @given(items=ITEMS, extra=EXTRAS, strict=st.sampled_from([False, False, False, True]),
           depth=st.sampled_from(list(DEPTHS)))
    def holds(items: list[Item], extra: str | None, strict: bool, depth: str) -> None:
        check(items, extra, warned, strict=strict, workers=0, depth=depth)

    holds()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_beside_good_ones(warned: pytest.LogCaptureFixture, kind: str) -> None:
    items = [Item(split, label, "jpeg", (70, 50)) for split in ("train", "val") for label in CLASSES for _ in range(2)]
    check([*items, Item("train", "black", kind, (33, 90)), Item("val", "white", kind, (12, 12))], None, warned,
          strict=False, workers=0)


@pytest.mark.parametrize("depth", DEPTHS)
def test_each_depth_beside_8_bits(warned: pytest.LogCaptureFixture, depth: str) -> None:
    items = [Item(split, label, kind, (70, 50)) for split in ("train", "val") for label in CLASSES
             for kind in (DEEP, "jpeg")]
    check(items, None, warned, strict=True, workers=0, depth=depth)


def test_worker_processes(warned: pytest.LogCaptureFixture) -> None:
    kinds = ["jpeg", "no text", "new line", "truncated", "pipe", "bomb", DEEP, "loop"]
    items = [Item(split, label, kind, (70, 50)) for split, label, kind in
             zip(["train", "train", "val", "train"] * 2, ["black"] * 4 + ["white"] * 4, kinds, strict=True)]
    items += [Item(split, label, "jpeg", (70, 50)) for split in ("train", "val") for label in CLASSES]
    check(items, None, warned, strict=False, workers=2)
    check(items, None, warned, strict=True, workers=2)
