"""Measures training pictures a second and core, with and without the cache of shrunk pictures, against torchvision.

Six sides take turns, each in a process of its own, with one thread:

    torchvision     PIL's open, RandomResizedCrop, flip, ToTensor: the usual pipeline
    decode_jpeg     torchvision.io.decode_jpeg on the file's bytes, then the same on tensors, antialiased
    none            ours without a cache
    cold            ours with an empty one, which is filled
    full            ours with one that has no room
    warm            ours with a filled one

A round is one epoch of all pictures. Every side ends with batches of floats in [0, 1]. Seconds are the process's time
on the processor, so that other programs on the same cores matter less.

    python benchmarks/decode_cache.py SAMPLE [--json] [--rounds N] [--only photos_224]

SAMPLE: a tar archive, or a folder, of JPEG pictures such as ImageNet's. Photos of 12 megapixels are made of 24 of them:
enlarged, with noise, JPEG quality 92.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from side_by_side import Result, Work, in_turn, machine, parser, progress

from onceforall.data import Augment, FilePictures, Loader, TrainBatches
from onceforall.data.cache import kept_side, kept_size
from onceforall.training.engine.memory import keep_large_blocks

BATCH, PHOTOS, SIZE, LIMIT = 8, 24, (4000, 3000), 1 << 34
CASES = {  # name: pictures, resolution, smallest crop
    f"{kind}_{size}" + ("_8" if low < 0.5 else ""): (kind, size, low)
    for kind in ("sample", "photos") for size, low in ((128, 0.5), (224, 0.5), (224, 0.08))}


def jpegs(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))


def make_photos(sample: Sequence[str], folder: Path) -> None:
    """Enlarge some of the pictures that are wide enough, and add noise, as a sensor has it."""
    folder.mkdir()
    wide = [path for path in sample if Image.open(path).width >= 1.2 * Image.open(path).height]
    for number, path in enumerate(wide[:PHOTOS]):
        with Image.open(path) as image:
            large = np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)).astype(np.int16)
        noise = np.random.default_rng(number).normal(0, 4, (*large.shape[:2], 1)).round().astype(np.int16)
        Image.fromarray((large + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{number:02d}.jpg", quality=92)


def ours(paths: Sequence[str], resolution: int, low: float, *, cache: Path | None = None, limit: int = LIMIT,
         cold: bool = False) -> Work:
    """An epoch of training batches; `cold`: of an empty cache each time."""
    keep_large_blocks()
    if cache is not None:
        os.environ["ONCEFORALL_CACHE"] = str(cache)
    pictures = FilePictures(tuple(paths), torch.zeros(len(paths), dtype=torch.int64))
    augment = Augment((low, 1.0), brightness=0.0, saturation=0.0)

    def batches() -> TrainBatches:
        loader = Loader(BATCH, workers=0, cache=limit if cache else 0)
        return TrainBatches(pictures, [resolution], augment=augment, loader=loader, seed=0)

    kept = batches()

    def work(number: int) -> int:
        if cold and cache is not None:
            shutil.rmtree(cache, ignore_errors=True)  # in the time that counts; it is a few ms
        source = batches() if cold else kept
        return sum(len(batch.images.float().div_(255)) for batch in source.epoch(number))
    return work


def theirs(paths: Sequence[str], resolution: int, low: float, *, tensors: bool) -> Work:
    """An epoch of torchvision's pipeline, from PIL's pictures or from decoded tensors."""
    from torchvision import transforms
    keep_large_blocks()
    last: Callable[[Any], torch.Tensor] = scaled if tensors else transforms.ToTensor()
    change = transforms.Compose([transforms.RandomResizedCrop(resolution, (low, 1.0), antialias=True),
                                 transforms.RandomHorizontalFlip(), last])
    load = decoded if tensors else opened

    def pictures(number: int) -> Iterator[torch.Tensor]:
        torch.manual_seed(number)
        for index in torch.randperm(len(paths)).tolist():
            yield change(load(paths[index]))

    def work(number: int) -> int:
        count, batch = 0, []
        for picture in pictures(number):
            batch.append(picture)
            if len(batch) == BATCH:
                count, batch = count + len(torch.stack(batch)), []
        return count
    return work


def scaled(picture: torch.Tensor) -> torch.Tensor:
    return picture.float().div_(255)


def opened(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def decoded(path: str) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def measure(name: str, paths: Sequence[str], folder: Path, rounds: int) -> dict[str, Any]:
    """A case: pictures a second of each side, and how many times as many as torchvision's."""
    _, resolution, low = CASES[name]
    given = paths[:len(paths) // BATCH * BATCH], resolution, low
    found = in_turn({
        "torchvision": partial(theirs, *given, tensors=False), "decode_jpeg": partial(theirs, *given, tensors=True),
        "none": partial(ours, *given), "cold": partial(ours, *given, cache=folder / "cold", cold=True),
        "full": partial(ours, *given, cache=folder / "full", limit=1),
        "warm": partial(ours, *given, cache=folder / f"warm_{name}")},
        rounds=rounds, threads=1, clock=time.process_time)
    assert {result.first for result in found.values()} == {len(given[0])}
    side = kept_side(resolution, Augment((low, 1.0)))
    large = sum(kept_size(Image.open(path).size, side) is not None for path in given[0])
    sides = {name: {"pictures_per_s": quartiles([len(given[0]) / seconds for seconds in result.seconds]),
                    "ratio": quartiles(ratios(result, found["torchvision"]))} for name, result in found.items()}
    return {"case": name, "n": rounds, "pictures": len(given[0]), "large": large, "side": side, "sides": sides}


def ratios(result: Result, reference: Result) -> list[float]:
    return [b / a for a, b in zip(result.seconds, reference.seconds, strict=True)]


def quartiles(values: Sequence[float]) -> list[float]:
    """The median, the first and the third quartile."""
    first, median, third = (float(np.percentile(values, share)) for share in (25, 50, 75))
    assert median == statistics.median(values)
    return [median, first, third]


def show(found: dict[str, Any]) -> None:
    print(f"{found['case']}: {found['large']} of {found['pictures']} pictures are shrunk to {found['side']} pixels, "
          f"n = {found['n']}")
    for name, side in found["sides"].items():
        rate, ratio = ("{:.4g} ({:.4g} to {:.4g})".format(*side[key]) for key in ("pictures_per_s", "ratio"))
        print(f"    {name:<12}{rate} /s, {ratio} times torchvision's")


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("sample", type=Path)
    options.add_argument("--only", choices=CASES, help="one case")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, sample = Path(temporary), arguments.sample
        if sample.is_file():
            sample = folder / "sample"
            with tarfile.open(arguments.sample) as archive:
                archive.extractall(sample, filter="data")
        names = [arguments.only] if arguments.only else list(CASES)
        if any(CASES[name][0] == "photos" for name in names):
            progress("making photos of 12 megapixels")
            make_photos(jpegs(sample), folder / "photos")
        paths = {"sample": jpegs(sample), "photos": jpegs(folder / "photos")}
        cases = []
        for name in names:
            progress(name)
            cases.append(measure(name, paths[CASES[name][0]], folder, arguments.rounds))
    if arguments.json:
        print(json.dumps(cases))
        return
    print(f"{machine(1)}, torchvision {torchvision.__version__}, Pillow {PIL.__version__}")
    for found in cases:
        show(found)


if __name__ == "__main__":
    main()
