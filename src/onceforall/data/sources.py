"""The data sets by name: digits, Fashion-MNIST, CIFAR-10, class folders, list files, and Datasets from Python."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from onceforall.data.assemble import data_set, sizes_of
from onceforall.data.dataset import DataSet
from onceforall.data.decode import BrokenLog, error_line
from onceforall.data.depth_sample import decided_depth
from onceforall.data.fashion import FASHION_CLASSES, fashion_mnist
from onceforall.data.folders import LAYOUT, class_names, read_folder, read_list
from onceforall.data.found import LeftOut, Origin
from onceforall.data.given import found
from onceforall.data.joined import unlabelled_pictures
from onceforall.data.labels import NOTHING, AnyPictures, Known, positions, relabelled
from onceforall.data.layout import Layout, layout_of
from onceforall.data.pictures import ArrayPictures, FilePictures, Pictures, from_grey
from onceforall.data.small import in_memory_if_small
from onceforall.data.spec import DEFAULT_ROOT, DataSpec
from onceforall.data.split import MAX_NAMED
from onceforall.errors import UserError
from onceforall.files import in_full, unreadable


def load_data(spec: DataSpec, known: Known = NOTHING, *, in_memory: bool = True) -> DataSet:
    """Load and split the data set that `spec` names.

    Args:
        spec: which data set, and where it is.
        known: what a network knows that the pictures are read for. The classes of the data set are then all classes
            that it knows, even where there are pictures of only some.
        in_memory: decode small picture files of one size now, without the broken ones.

    Returns:
        The data set, with what was `found`. Its training split is empty under `spec.score_only` where there is none.

    Raises:
        UserError: it is missing, empty or inconsistent, or has a class that is not known.
    """
    if spec.name not in SOURCES:
        raise UserError("data.name", f"{spec.name!r} is no data set", f"known: {', '.join(SOURCES)}")
    data = SOURCES[spec.name](spec, known, in_memory)
    return data if spec.unlabelled is None else _with_unlabelled(data, spec, spec.unlabelled)


def _with_unlabelled(data: DataSet, spec: DataSpec, folder: str) -> DataSet:
    """Raises UserError for a folder that has the data set's own pictures in it, those to test on among them."""
    place = Path(folder).resolve()
    for own in _places(spec):
        if place == own or own in place.parents or place in own.parents:
            raise UserError("data.unlabelled", f"{folder!r} and {own} share pictures", "give a folder beside it")
    more, found = unlabelled_pictures(folder, data.depth), data.found
    if found is not None:
        note = f"{len(more):,} pictures without labels in {folder} train under a teacher"
        found = replace(found, origin=replace(found.origin, notes=(*found.origin.notes, note)))
    return replace(data, unlabelled=more, found=found)


def _by_name(
    spec: DataSpec, splits: Sequence[AnyPictures], names: tuple[str, ...], known: Known
) -> tuple[list[AnyPictures], tuple[str, ...]]:
    """Splits with the labels of the known classes, and the names that their labels mean.

    It comes before any pictures are held out, which depends on the labels.
    """
    if known.classes is None or known.classes == names:
        return list(splits), names
    places = positions(names, known.classes, place=spec.place)
    return [relabelled(split, places) for split in splits], known.classes


def _digits(spec: DataSpec, known: Known, _in_memory: bool) -> DataSet:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))
    pictures = from_grey(grey, torch.from_numpy(bunch.target.astype(np.int64)))
    splits, classes = _by_name(spec, [pictures], tuple(map(str, range(10))), known)
    return data_set(spec, splits, classes, Origin(where="digits"))


def _fashion_mnist(spec: DataSpec, known: Known, _in_memory: bool) -> DataSet:
    splits, classes = _by_name(spec, fashion_mnist(spec), FASHION_CLASSES, known)
    return data_set(spec, splits, classes, _named(spec))


def _folder(spec: DataSpec, known: Known, in_memory: bool) -> DataSet:
    if spec.root is None:
        raise UserError("data.root", f"is missing for {spec.name!r}", f"give the folder; {LAYOUT}")
    root = Path(spec.root)
    if not root.is_dir():
        raise UserError("data.root", f"{root} is not a folder{in_full(root)}", LAYOUT)
    left = LeftOut(root)
    layout = layout_of(root, left)
    if spec.score_only and (layout.plain or layout.train is None):
        return _to_score(spec, layout, left, known, in_memory=in_memory)
    folder = layout.train or root / "train"
    names = class_names(folder)
    given = [split for split in (layout.val, layout.test) if split is not None]
    read = [read_folder(folder, names, complete=True, left=left)]
    read += [read_folder(split, names, complete=False, left=left) for split in given]
    return _of_files(spec, read, names, known, left, in_memory=in_memory, notes=_notes(layout), train=_shown(folder),
                     test="".join(map(_shown, given[-1:])), held_out="".join(map(_shown, given[:-1])))


def _places(spec: DataSpec) -> list[Path]:
    """The folders of the splits that a data set is read from."""
    named = [spec.train_path, spec.valid_path]
    if spec.root is not None:
        layout = layout_of(Path(spec.root), LeftOut(Path(spec.root))) if spec.name in ("folder", "imagenet") else None
        named += [spec.root] if layout is None else [str(p) for p in (layout.train, layout.val, layout.test) if p]
    return [Path(path).resolve() for path in named if path is not None]


def splits_of(root: str) -> set[str]:
    """Which of train, val and test a folder holds; none for a plain folder of classes, or for no folder."""
    if not Path(root).is_dir():
        return set()
    layout = layout_of(Path(root), LeftOut(Path(root)))
    named = {"train": layout.train, "val": layout.val, "test": layout.test}
    return set() if layout.plain else {name for name, folder in named.items() if folder is not None}


def _to_score(spec: DataSpec, layout: Layout, left: LeftOut, known: Known, *, in_memory: bool) -> DataSet:
    """A folder without training pictures: those of test/, or else of val/, or else, where there are no splits, all of
    them."""
    folder = layout.test or layout.val or layout.train
    if folder is None:
        raise UserError(str(spec.root), "holds no pictures in class folders", LAYOUT)
    names = class_names(folder)
    read = [read_folder(folder, names, complete=False, left=left)]
    return _of_files(spec, read, names, known, left, in_memory=in_memory, test=_shown(folder),
                     notes=["there are no training pictures: all are scored"])


def _of_files(spec: DataSpec, read: Sequence[FilePictures], names: tuple[str, ...], known: Known, left: LeftOut, *,
              in_memory: bool, notes: Sequence[str], **places: str) -> DataSet:
    """The data set of splits of picture files; the one that is only to be scored where no place is of training.

    Args:
        spec: what it is loaded by.
        read: the splits: training pictures, then what `data_set` takes after them.
        names: what their labels mean.
        known: what a network knows of the pictures.
        left: counts what is left out.
        in_memory: whether small pictures are decoded now.
        notes: what else is to be said of them.
        places: where each split lies, by its name.
    """
    read, classes = _by_name(spec, read, names, known)
    depth = known.depth or decided_depth(read[0], classes)
    read = [replace(split, depth=depth) for split in read]
    splits = _decoded(read, spec, left, in_memory=in_memory)
    if "train" not in places:
        none = splits[0].subset([])
        splits = [none, none, *splits]
    endings = Counter(os.path.splitext(path)[1].lower() for pictures in read for path in pictures.paths)
    origin = Origin(where=str(spec.root or spec.train_file), sizes=sizes_of(read), left_out=left.rows,
                    formats=dict(endings.most_common()), notes=tuple(notes), **places)
    return data_set(spec, splits, classes, origin, depth=depth)


def _decoded(read: Sequence[Pictures], spec: DataSpec, left: LeftOut, *, in_memory: bool) -> list[Pictures]:
    """The splits, in memory where their pictures are small. Broken pictures that this finds are counted."""
    if not in_memory:
        return list(read)
    log = BrokenLog(strict=spec.strict)
    decoded = [in_memory_if_small(split, log) for split in read]
    if log.count:
        left.note("broken", Path(log.example), count=log.count)
    return decoded


def _notes(layout: Layout) -> list[str]:
    notes = ["no folder is called train, val or test: the folders are the classes"] if layout.plain else []
    train = layout.train
    notes += [f"{_shown(split)} is {_shown(train)}: the same pictures" for split in (layout.val, layout.test)
              if split is not None and train is not None and split.resolve() == train.resolve()]
    return notes


def _shown(folder: Path) -> str:
    return f"{folder.name or folder.resolve().name}/"


def _list(spec: DataSpec, known: Known, in_memory: bool) -> DataSet:
    for name in ("train_file", "train_path"):
        if getattr(spec, name) is None:
            raise UserError(f"data.{name}", "is missing for 'list'", "give train_file and train_path")
    listed = read_list(str(spec.train_file), str(spec.train_path))
    names = tuple(str(label) for label in range(int(listed.labels.max()) + 1))
    read = [listed] if spec.valid_file is None else [listed, _valid_list(spec, len(names))]
    notes = _missing_labels(str(spec.train_file), read, len(names))
    if known.classes is not None and len(known.classes) == len(names):  # a label of a list is the number of an output
        names = known.classes
    return _of_files(spec, read, names, known, LeftOut(Path(str(spec.train_path))), in_memory=in_memory, notes=notes,
                     train=str(spec.train_file), test=spec.valid_file or "")


def _missing_labels(file: str, read: Sequence[FilePictures], classes: int) -> list[str]:
    """A note that names labels without a training picture, and counts the test pictures of these.

    Raises UserError where they are 1..N without a gap: class 0 would be empty, and all others off by one.
    """
    missing = sorted(set(range(classes)) - set(read[0].labels.tolist()))
    if missing == [0] and classes > 2:
        raise UserError(file, f"its labels are 1..{classes - 1}, and labels start at 0", "subtract 1 from each")
    if not missing:
        return []
    named = ", ".join(map(str, missing[:MAX_NAMED])) + (", ..." if len(missing) > MAX_NAMED else "")
    lost = sum(int(torch.isin(split.labels, torch.tensor(missing)).sum()) for split in read[1:])
    return [f"{len(missing):,} of {classes:,} labels have no training picture: {named}; {lost:,} test pictures have "
            "them"]


def _valid_list(spec: DataSpec, classes: int) -> FilePictures:
    if spec.valid_path is None:
        raise UserError("data.valid_path", "is missing beside valid_file", "give the folder its paths start from")
    valid = read_list(str(spec.valid_file), spec.valid_path)
    if int(valid.labels.max()) >= classes:
        problem = f"label {int(valid.labels.max())} is not in {spec.train_file} (0..{classes - 1})"
        raise UserError(str(spec.valid_file), problem, "use the same labels in both files")
    return valid


def _cifar10(spec: DataSpec, known: Known, in_memory: bool) -> DataSet:
    from torchvision.datasets import CIFAR10

    root = spec.root or DEFAULT_ROOT
    if spec.root is not None and (Path(root) / "train").is_dir():
        return _folder(spec, known, in_memory)
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
    return data_set(spec, splits, classes, _named(spec))


def _python(spec: DataSpec, known: Known, in_memory: bool) -> DataSet:
    given, left = found(spec), LeftOut(Path())
    splits, classes = _by_name(spec, given.splits, given.classes, known)
    splits = _decoded(splits, spec, left, in_memory=in_memory)
    return data_set(spec, splits, classes, Origin(
        where=spec.place, train="its training pictures", test="its test pictures" if len(splits) > 1 else "",
        held_out="its held-out pictures" if len(splits) > 2 else "", left_out=left.rows))


def _named(spec: DataSpec) -> Origin:
    return Origin(where=spec.name, train="its training pictures", test="its test pictures")


SOURCES: dict[str, Callable[[DataSpec, Known, bool], DataSet]] = {
    "digits": _digits, "fashion-mnist": _fashion_mnist, "cifar10": _cifar10, "folder": _folder, "imagenet": _folder,
    "list": _list, "python": _python}
