"""The data sets by name: digits, Fashion-MNIST, CIFAR-10, class folders and list files."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from onceforall.data.decode import BrokenLog, error_line
from onceforall.data.depth import USUAL, Depth
from onceforall.data.depth_sample import decided_depth
from onceforall.data.fashion import FASHION_CLASSES, fashion_mnist
from onceforall.data.folders import LAYOUT, class_names, read_folder, read_list
from onceforall.data.pictures import ArrayPictures, DataSet, FilePictures, Pictures, colour_statistics, from_grey
from onceforall.data.small import in_memory_if_small
from onceforall.data.spec import DEFAULT_ROOT, DataSpec
from onceforall.data.split import carve
from onceforall.space.errors import UserError

TRAIN_SHARE = 0.8  # of a data set that comes without a test split

logger = logging.getLogger(__name__)


def load_data(spec: DataSpec, depth: Depth | None = None) -> DataSet:
    """The data set that `spec` names, split; `UserError` where it is missing, empty or inconsistent.

    `depth`: of the pixels in its files; None to decide it from a sample of its training pictures.
    """
    match spec.name:
        case "digits":
            train, test = carve(_digits(), TRAIN_SHARE, what="test")
            return _data_set(spec, train, test=test, classes=tuple(map(str, range(10))))
        case "fashion-mnist":
            train, test = fashion_mnist(spec)
            return _data_set(spec, train, test=test, classes=FASHION_CLASSES)
        case "cifar10":
            if spec.root is not None and (Path(spec.root) / "train").is_dir():
                return _folder(spec, depth)
            return _cifar10(spec)
        case "folder" | "imagenet":
            return _folder(spec, depth)
        case "list":
            return _list(spec, depth)
    known = "digits, fashion-mnist, cifar10, folder, imagenet, list"
    raise UserError("data.name", f"{spec.name!r} is no data set", f"known: {known}")


def _data_set(
    spec: DataSpec, train: Pictures, *, test: Pictures, classes: tuple[str, ...], held_out: Pictures | None = None,
    depth: Depth = USUAL,
) -> DataSet:
    # measured before holding out, so that train_portion does not change what the network sees
    mean, std = colour_statistics(train)
    if held_out is None:
        train, held_out = carve(train, spec.train_portion, what="the held-out split")
    logger.info("%s: %d training, %d held-out, %d test pictures", spec.name, len(train), len(held_out), len(test))
    return DataSet(train, held_out, test, classes, mean, std, spec, depth)


def _digits() -> ArrayPictures:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))
    return from_grey(grey, torch.from_numpy(bunch.target.astype(np.int64)))


def _folder(spec: DataSpec, depth: Depth | None) -> DataSet:
    if spec.root is None:
        raise UserError("data.root", f"is missing for {spec.name!r}", f"give the folder; {LAYOUT}")
    root, log = Path(spec.root), BrokenLog(strict=spec.strict)
    if not root.is_dir():
        raise UserError("data.root", f"{root} is not a folder", LAYOUT)
    classes = class_names(root / "train")
    found = [read_folder(root / "train", classes, complete=True)]
    found += [read_folder(root / name, classes, complete=False) for name in _evaluation_folders(root)]
    depth = depth or decided_depth(found[0])
    train, *given = (in_memory_if_small(replace(pictures, depth=depth), log) for pictures in found)
    match given:
        case [held_out, test]:
            return _data_set(spec, train, test=test, classes=classes, held_out=held_out, depth=depth)
        case [test]:
            return _data_set(spec, train, test=test, classes=classes, depth=depth)
    train, test = carve(train, TRAIN_SHARE, what="test")
    return _data_set(spec, train, test=test, classes=classes, depth=depth)


def _evaluation_folders(root: Path) -> list[str]:
    """Those of val (or valid) and test that hold class folders; unlabelled test pictures are no test split."""
    found = [name for name in ("val", "valid", "test") if (root / name).is_dir()
             and any(entry.is_dir() for entry in (root / name).iterdir())]
    return [name for name in found if not (name == "valid" and "val" in found)]


def _list(spec: DataSpec, depth: Depth | None) -> DataSet:
    log = BrokenLog(strict=spec.strict)
    for name in ("train_file", "train_path"):
        if getattr(spec, name) is None:
            raise UserError(f"data.{name}", "is missing for 'list'", "give train_file and train_path")
    listed = read_list(str(spec.train_file), str(spec.train_path))
    classes = tuple(str(label) for label in range(int(listed.labels.max()) + 1))
    depth = depth or decided_depth(listed)
    train = in_memory_if_small(replace(listed, depth=depth), log)
    if spec.valid_file is None:
        train, test = carve(train, TRAIN_SHARE, what="test")
        return _data_set(spec, train, test=test, classes=classes, depth=depth)
    valid = in_memory_if_small(replace(_valid_list(spec, len(classes)), depth=depth), log)
    return _data_set(spec, train, test=valid, classes=classes, depth=depth)


def _valid_list(spec: DataSpec, classes: int) -> FilePictures:
    if spec.valid_path is None:
        raise UserError("data.valid_path", "is missing beside valid_file", "give the folder its paths start from")
    valid = read_list(str(spec.valid_file), spec.valid_path)
    if int(valid.labels.max()) >= classes:
        problem = f"label {int(valid.labels.max())} is not in {spec.train_file} (0..{classes - 1})"
        raise UserError(str(spec.valid_file), problem, "use the same labels in both files")
    return valid


def _cifar10(spec: DataSpec) -> DataSet:
    from torchvision.datasets import CIFAR10

    root = spec.root or DEFAULT_ROOT
    try:
        train, test = (CIFAR10(root, train=part, download=spec.download) for part in (True, False))
    except (RuntimeError, OSError) as error:
        remedy = "ofa fit --data cifar10 --download fetches it; or unpack cifar-10-python.tar.gz there"
        raise UserError("data.root", f"no CIFAR-10 under {root} ({error_line(error)})", remedy) from error
    splits = [
        ArrayPictures(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    ]
    return _data_set(spec, splits[0], test=splits[1], classes=tuple(train.classes))
