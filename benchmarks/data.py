"""Measures the input pipeline of training against torchvision's usual one (RandomResizedCrop on PIL, flip, ToTensor,
Normalize): pictures a second of one core, from files to a normalised float batch of 64, at 128 and 224 pixels; what
decoding at a reduced scale does to the pixels; and the rate of decoding whole pictures and nothing else, for a floor.
Alternating, each side in a process of its own, with one thread.

    python benchmarks/data.py FOLDER [--json] [--rounds N]

FOLDER: JPEG pictures, a folder a class, such as ImageNet's.
"""

from __future__ import annotations

import random
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from side_by_side import Work, case, in_turn, parser, report

from onceforall.data import Augment, FilePictures, Loader, TrainBatches, normalize
from onceforall.data.crop import crop_boxes, noise
from onceforall.data.dataset import IMAGENET_MEAN, IMAGENET_STD
from onceforall.data.decode import Broken, Cut, read_pixels
from onceforall.training.engine.memory import keep_large_blocks

BATCH, SCALE, CROPS = 64, (0.08, 1.0), 500
AUGMENT = Augment(SCALE, flip=True, brightness=0.0, saturation=0.0)


def files(folder: Path) -> FilePictures:
    paths = tuple(sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")))
    return FilePictures(paths, torch.zeros(len(paths), dtype=torch.int64))


def ours(folder: Path, size: int) -> Work:
    """An epoch of training batches."""
    keep_large_blocks()
    batches = TrainBatches(files(folder), [size], augment=AUGMENT, loader=Loader(BATCH, workers=0), seed=0)
    return lambda round_: sum(len(normalize(b.images, IMAGENET_MEAN, IMAGENET_STD)) for b in batches.epoch(round_))


def reference(folder: Path, size: int) -> Work:
    from torchvision import datasets, transforms
    data = datasets.ImageFolder(str(folder), transforms.Compose([
        transforms.RandomResizedCrop(size, SCALE), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]))
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, drop_last=True)
    return lambda round_: sum(len(images) for images, _ in loader)


def pixel_difference(folder: Path, size: int) -> dict[str, float]:
    """Between reduced-scale and full decoding of the same random crops, resized alike: mean absolute difference and
    its 99th percentile, in levels of 255, and the share of crops that were decoded at a reduced scale."""
    paths, differences, reduced = files(folder).paths, [], 0
    for number in range(CROPS):
        path, row = random.Random(number).choice(paths), noise(number, 1, seed=0, epoch=0)
        with Image.open(path) as image:
            whole = image.convert("RGB")
        top, left, height, width = crop_boxes(row, (whole.height, whole.width), augment=AUGMENT)[0].tolist()
        box = left, top, left + width, top + height
        pixels = read_pixels(path, lambda *_, box=box: Cut(box, (size, size)))
        assert not isinstance(pixels, Broken)
        exact = np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR, box=box))
        differences.append(np.abs(pixels.astype(int) - exact).ravel())
        reduced += min(width, height) >= 2 * size
    levels = np.concatenate(differences)
    return {"mean_pixel_difference": float(levels.mean()), "p99_pixel_difference": float(np.percentile(levels, 99)),
            "crops_decoded_smaller": reduced / CROPS}


def decoding_rate(folder: Path) -> float:
    """Pictures a second that are decoded whole, and no more."""
    paths = files(folder).paths
    began = time.perf_counter()
    for path in paths:
        with Image.open(path) as image:
            image.load()
    return len(paths) / (time.perf_counter() - began)


def main() -> None:
    options = parser(__doc__, rounds=7)
    options.add_argument("folder", type=Path)
    arguments = options.parse_args()
    count = len(files(arguments.folder)) // BATCH * BATCH
    cases, decoding = [], statistics.median(decoding_rate(arguments.folder) for _ in range(arguments.rounds))
    for size in (128, 224):
        found = in_turn({"ours": partial(ours, arguments.folder, size),
                         "reference": partial(reference, arguments.folder, size)}, rounds=arguments.rounds, threads=1)
        assert found["ours"].first == found["reference"].first == count
        one = case(f"pipeline_{size}", found["ours"], found["reference"])
        rates = {f"{side}_pictures_per_s": count / one[f"{side}_s"] for side in ("ours", "reference")}
        rates["decoding_alone_pictures_per_s"] = decoding
        cases.append({**one, **rates, **pixel_difference(arguments.folder, size)})
    report(cases, threads=1, as_json=arguments.json)


if __name__ == "__main__":
    main()
