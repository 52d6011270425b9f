"""Picture files with labels from a class-folder tree or from a list file."""

import logging
import os
from pathlib import Path
from typing import NoReturn

import torch

from onceforall.data.pictures import FilePictures
from onceforall.space.errors import UserError, printable
from onceforall.space.files import unreadable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
MAX_LABEL = 999_999  # a slip of the pen must not become a million classes
_DIGITS = 20  # int() takes no more than some thousands
LAYOUT = "expected train/<class>/<picture> and val/<class>/<picture>"

logger = logging.getLogger(__name__)


def class_names(split: Path) -> tuple[str, ...]:
    """The sorted class folders of `split`; a `UserError` where there is none."""
    if not split.is_dir():
        problem = "is not a folder" if split.exists() else "does not exist"
        raise UserError(str(split), problem, LAYOUT)
    try:
        names = sorted(entry.name for entry in split.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        _refuse(error)
    for name in names:
        if not name.isprintable():  # it would stand in weights files and on terminals
            raise UserError(str(split / name), "is no name for a class: it holds what cannot be printed", "rename it")
    classes = tuple(name for name in names if not _leads_back(split / name))
    if not classes:
        raise UserError(str(split), "holds no class folders", LAYOUT)
    return classes


def read_folder(split: Path, classes: tuple[str, ...], *, complete: bool) -> FilePictures:
    """All pictures under `split/<class>/`, the label being the class's place in `classes`.

    A class folder that `classes` lacks is a `UserError`; so is, when `complete`, a class without pictures.
    """
    unknown = sorted(set(class_names(split)) - set(classes))
    if unknown:
        raise UserError(str(split / unknown[0]), "is a class that train/ lacks", "add it there or remove it here")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _pictures_under(split / name) if (split / name).is_dir() else []
        if not found and complete:
            raise UserError(str(split / name), "holds no pictures", f"known endings: {' '.join(EXTENSIONS)}")
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise UserError(str(split), "holds no pictures", f"known endings: {' '.join(EXTENSIONS)}")
    return FilePictures(tuple(paths), torch.tensor(labels, dtype=torch.int64))


def read_list(file: str, root: str) -> FilePictures:
    """Read the pictures of a list file.

    Args:
        file: the list, lines `relative/path label`.
        root: the folder that the paths start from.

    Returns:
        The pictures sorted by label and path, as a folder of classes gives them, whatever the order of the lines.

    Raises:
        UserError: the file cannot be read, a line has another form, or the first picture is not there.
    """
    try:
        if not Path(file).is_file():
            raise FileNotFoundError("it is no file")
        lines = Path(file).read_text(encoding="utf-8").split("\n")  # splitlines would part names, at U+2028 too
    except PermissionError as error:
        raise unreadable(file, error) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(file, f"cannot be read ({error})", "give a text file, lines 'path label'") from error
    rows = [_list_line(f"{file}:{number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(file, "lists no pictures", "give lines 'path label'")
    # one look finds a wrong root at once; a file missing further down is a broken picture like any other
    first = os.path.join(root, rows[0][0])
    if not os.path.exists(first):
        raise UserError(file, f"its first picture {first} does not exist", "check train_path / valid_path")
    rows.sort(key=lambda row: (row[1], row[0]))
    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    return FilePictures(tuple(os.path.join(root, path) for path, _ in rows), labels)


def _list_line(place: str, line: str) -> tuple[str, int]:
    path, _, label = line.strip().replace("\t", " ").rpartition(" ")
    if not path or not label.isdecimal() or len(label) > _DIGITS or int(label) > MAX_LABEL:
        raise UserError(place, f"{line.strip()!r} is not 'path label'", f"labels are integers 0..{MAX_LABEL}")
    return path.strip(), int(label)


def _pictures_under(folder: Path) -> list[str]:
    # os.walk does not enter symlinked folders, so that a loop of links ends; linked files and classes are fine
    found: list[str] = []
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in files
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise UserError(str(error.filename), f"cannot be read: {error.strerror}", "make it readable, or remove it")


def _leads_back(folder: Path) -> bool:
    """Whether a class folder is a link to its own split or above, which would hold every picture once more."""
    back = folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
    if back:
        there = printable(str(folder.resolve()))
        logger.warning("%s: a link back to %s is no class, left out", printable(str(folder)), there)
    return back
