"""The data sets by name: digits, Fashion-MNIST, CIFAR-10, class folders and list files."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from onceforall.data.decode import BrokenLog, error_line
from onceforall.data.fashion import FASHION_CLASSES, fashion_mnist
from onceforall.data.folders import LAYOUT, class_names, read_folder, read_list
from onceforall.data.labels import AnyPictures, positions, relabelled
from onceforall.data.pictures import ArrayPictures, DataSet, FilePictures, Pictures, colour_statistics, from_grey
from onceforall.data.small import in_memory_if_small
from onceforall.data.spec import DEFAULT_ROOT, DataSpec
from onceforall.data.split import carve
from onceforall.space.errors import UserError
from onceforall.space.files import in_full, unreadable

TRAIN_SHARE = 0.8  # of a data set that comes without a test split

logger = logging.getLogger(__name__)


def load_data(spec: DataSpec, known: tuple[str, ...] | None = None) -> DataSet:
    """Load and split the data set that `spec` names.

    Args:
        spec: which data set, and where it is.
        known: the names of a network's outputs, in their order. Labels are given by these names, and `classes` of the
            data set are all of them, even where it has pictures of only some. None: the data set's own classes.

    Returns:
        The data set.

    Raises:
        UserError: it is missing, empty or inconsistent, or has a class that is not in `known`.
    """
    match spec.name:
        case "digits":
            whole, classes = _by_name(spec, [_digits()], tuple(map(str, range(10))), known)
            train, test = carve(whole[0], TRAIN_SHARE, what="test")
            return _data_set(spec, train, test=test, classes=classes)
        case "fashion-mnist":
            (train, test), classes = _by_name(spec, fashion_mnist(spec), FASHION_CLASSES, known)
            return _data_set(spec, train, test=test, classes=classes)
        case "cifar10":
            if spec.root is not None and (Path(spec.root) / "train").is_dir():
                return _folder(spec, known)
            return _cifar10(spec, known)
        case "folder" | "imagenet":
            return _folder(spec, known)
        case "list":
            return _list(spec, known)
    names = "digits, fashion-mnist, cifar10, folder, imagenet, list"
    raise UserError("data.name", f"{spec.name!r} is no data set", f"known: {names}")


def _by_name(
    spec: DataSpec, splits: Sequence[AnyPictures], names: tuple[str, ...], known: tuple[str, ...] | None
) -> tuple[list[AnyPictures], tuple[str, ...]]:
    """Splits with the labels of `known`, and the names that their labels mean.

    It comes before any pictures are held out, which depends on the labels.
    """
    if known is None or known == names:
        return list(splits), names
    places = positions(names, known, place=spec.root or spec.train_file or spec.name)
    return [relabelled(split, places) for split in splits], known


def _data_set(
    spec: DataSpec, train: Pictures, *, test: Pictures, classes: tuple[str, ...], held_out: Pictures | None = None
) -> DataSet:
    # measured before holding out, so that train_portion does not change what the network sees
    mean, std = colour_statistics(train)
    if held_out is None:
        train, held_out = carve(train, spec.train_portion, what="the held-out split")
    logger.info("%s: %d training, %d held-out, %d test pictures", spec.name, len(train), len(held_out), len(test))
    return DataSet(train, held_out, test, classes, mean, std, spec)


def _digits() -> ArrayPictures:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))
    return from_grey(grey, torch.from_numpy(bunch.target.astype(np.int64)))


def _folder(spec: DataSpec, known: tuple[str, ...] | None) -> DataSet:
    if spec.root is None:
        raise UserError("data.root", f"is missing for {spec.name!r}", f"give the folder; {LAYOUT}")
    root, log = Path(spec.root), BrokenLog(strict=spec.strict)
    if not root.is_dir():
        raise UserError("data.root", f"{root} is not a folder{in_full(root)}", LAYOUT)
    names = class_names(root / "train")
    read = [read_folder(root / "train", names, complete=True)]
    read += [read_folder(root / name, names, complete=False) for name in _evaluation_folders(root)]
    read, classes = _by_name(spec, read, names, known)
    train, *given = [in_memory_if_small(split, log) for split in read]
    match given:
        case [held_out, test]:
            return _data_set(spec, train, test=test, classes=classes, held_out=held_out)
        case [test]:
            return _data_set(spec, train, test=test, classes=classes)
    train, test = carve(train, TRAIN_SHARE, what="test")
    return _data_set(spec, train, test=test, classes=classes)


def _evaluation_folders(root: Path) -> list[str]:
    """Those of val (or valid) and test that hold class folders; unlabelled test pictures are no test split."""
    found = [name for name in ("val", "valid", "test") if (root / name).is_dir()
             and any(entry.is_dir() for entry in (root / name).iterdir())]
    return [name for name in found if not (name == "valid" and "val" in found)]


def _list(spec: DataSpec, known: tuple[str, ...] | None) -> DataSet:
    log = BrokenLog(strict=spec.strict)
    for name in ("train_file", "train_path"):
        if getattr(spec, name) is None:
            raise UserError(f"data.{name}", "is missing for 'list'", "give train_file and train_path")
    listed = read_list(str(spec.train_file), str(spec.train_path))
    names = tuple(str(label) for label in range(int(listed.labels.max()) + 1))
    read = [listed] if spec.valid_file is None else [listed, _valid_list(spec, len(names))]
    if known is not None and len(known) == len(names):  # a label of a list is the number of an output
        names = known
    read, classes = _by_name(spec, read, names, known)
    train, *given = [in_memory_if_small(split, log) for split in read]
    if not given:
        train, test = carve(train, TRAIN_SHARE, what="test")
        return _data_set(spec, train, test=test, classes=classes)
    return _data_set(spec, train, test=given[0], classes=classes)


def _valid_list(spec: DataSpec, classes: int) -> FilePictures:
    if spec.valid_path is None:
        raise UserError("data.valid_path", "is missing beside valid_file", "give the folder its paths start from")
    valid = read_list(str(spec.valid_file), spec.valid_path)
    if int(valid.labels.max()) >= classes:
        problem = f"label {int(valid.labels.max())} is not in {spec.train_file} (0..{classes - 1})"
        raise UserError(str(spec.valid_file), problem, "use the same labels in both files")
    return valid


def _cifar10(spec: DataSpec, known: tuple[str, ...] | None) -> DataSet:
    from torchvision.datasets import CIFAR10

    root = spec.root or DEFAULT_ROOT
    try:
        train, test = (CIFAR10(root, train=part, download=spec.download) for part in (True, False))
    except PermissionError as error:
        raise unreadable(error.filename or root, error) from None
    except (RuntimeError, OSError) as error:
        remedy = "ofa fit --data cifar10 --download fetches it; or unpack cifar-10-python.tar.gz there"
        problem = f"no CIFAR-10 under {root}{in_full(root)} ({error_line(error)})"
        raise UserError("data.root", problem, remedy) from error
    splits = [
        ArrayPictures(torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for part in (train, test)
    ]
    splits, classes = _by_name(spec, splits, tuple(train.classes), known)
    return _data_set(spec, splits[0], test=splits[1], classes=classes)
