"""Picture files with labels from a class-folder tree or from a list file."""

import os
import unicodedata
from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import NoReturn

import torch

from onceforall.data.decode import FORMATS
from onceforall.data.found import LeftOut
from onceforall.data.pictures import FilePictures
from onceforall.errors import UserError
from onceforall.files import unreadable

ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "PNG": (".png",), "BMP": (".bmp",), "WEBP": (".webp",),
    "GIF": (".gif",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"), "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}  # fmt: skip
EXTENSIONS = tuple(ending for form in FORMATS for ending in ENDINGS[form])  # of the forms that are read
MAX_LABEL = 999_999  # a slip of the pen must not become a million classes
_DIGITS = 20  # int() takes no more than some thousands
_MAX_NAMED = 5
_STRAY = "pictures beside the class folders"
LAYOUT = "expected train/<class>/<picture> and val/<class>/<picture>, or <class>/<picture>"


def class_names(split: Path) -> tuple[str, ...]:
    """The sorted class folders of `split`, in Unicode's form NFC; a `UserError` where there is none."""
    return tuple(class_folders(split))


def class_folders(
    split: Path, left: LeftOut | None = None, *, classes: Container[str] | None = None
) -> dict[str, Path]:
    """The class folders of a split by name.

    Args:
        split: the folder that holds them.
        left: counts what is left out.
        classes: the names that are known; None where these folders say which classes there are.

    Returns:
        The folders by their names in Unicode's form NFC, sorted by name.

    Raises:
        UserError: `split` is no folder or holds no class folders; two names are the same, or cannot be printed; or a
            class is a link to nothing, so that it would be missing and the labels of others would move.
    """
    if not split.is_dir():
        problem = "is not a folder" if split.exists() else "does not exist"
        raise UserError(str(split), problem, LAYOUT)
    found: dict[str, Path] = {}
    pictures = 0
    for entry in entries_of(split):
        name = unicodedata.normalize("NFC", entry.name)
        if (reason := _no_class(entry, name, classes)) is not None:
            pictures += reason == _STRAY
            if left is not None:
                left.note(reason, entry)
            continue
        if not name.isprintable():  # it would stand in weights files and on terminals
            raise UserError(str(entry), "is no name for a class: it holds what cannot be printed", "rename it")
        if name in found:
            raise UserError(str(entry), "is a second folder of that name, in another Unicode form",
                            "put their pictures into one folder")
        found[name] = entry
    if not found:
        problem = f"holds no class folders, but {pictures} pictures" if pictures else "holds no class folders"
        raise UserError(str(split), problem, LAYOUT)
    return dict(sorted(found.items()))


def read_folder(
    split: Path, classes: tuple[str, ...], *, complete: bool, left: LeftOut | None = None
) -> FilePictures:
    """All pictures under `split/<class>/`, the label being the class's place in `classes`.

    A class folder that `classes` lacks is a `UserError`; so is, when `complete`, a class without pictures. `left`
    counts what is left out.
    """
    folders = class_folders(split, left, classes=None if complete else classes)
    unknown = sorted(set(folders) - set(classes))
    if unknown:
        raise UserError(str(folders[unknown[0]]), "is a class that train/ lacks", "add it there or remove it here")
    paths: list[str] = []
    labels: list[int] = []
    others: Counter[str] = Counter()
    for label, name in enumerate(classes):
        found, others = pictures_under(folders[name], left) if name in folders else ([], Counter())
        if not found and complete:
            _refuse_empty(folders.get(name, split / name), others)
        paths += found
        labels += [label] * len(found)
    if not paths:
        _refuse_empty(split, others)
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
        lines = Path(file).read_text(encoding="utf-8-sig").split("\n")  # splitlines would part names, at U+2028 too
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


def _no_class(entry: Path, name: str, classes: Container[str] | None) -> str | None:
    """Why an entry of a split is no class, None for one that is; a `UserError` for one that may be meant."""
    if hidden(entry.name):
        return "hidden"
    if entry.is_dir():
        return "that leads back, a link" if _leads_back(entry) else None
    if is_picture(entry.name):
        return _STRAY
    if not is_dangling(entry):
        return of_ending(entry.name)
    if classes is None or name in classes:
        raise UserError(str(entry), "may be a class, but is a link to nothing", "mend the link, or remove it")
    return "linked to nothing"


def pictures_under(folder: Path, left: LeftOut | None = None) -> tuple[list[str], Counter[str]]:
    """The sorted pictures in a class folder, and how many other files there are of each ending."""
    # os.walk does not enter symlinked folders, so that a loop of links ends; linked files and classes are fine
    found: list[str] = []
    others: Counter[str] = Counter()
    for parent, folders, files in os.walk(folder, onerror=_refuse):
        for name in files:
            path = os.path.join(parent, name)
            if not hidden(name) and is_picture(name):
                found.append(path)
                continue
            reason = "hidden" if hidden(name) else of_ending(name)
            others.update([reason])
            if left is not None:
                left.note(reason, Path(path))
        for name in folders:
            path = os.path.join(parent, name)
            if left is not None and (hidden(name) or os.path.islink(path)):
                left.note("hidden" if hidden(name) else "linked to a folder", Path(path))
        folders[:] = [name for name in folders if not hidden(name)]
    return sorted(found), others


def is_picture(name: str) -> bool:
    """Whether a file has the ending of a picture that can be read."""
    return name.lower().endswith(EXTENSIONS)


def hidden(name: str) -> bool:
    """Whether a file or folder of that name is left out everywhere."""
    return name.startswith(".")


def is_dangling(path: Path) -> bool:
    """Whether it is a link to nothing, or to itself."""
    return path.is_symlink() and not os.path.exists(path)


def of_ending(name: str) -> str:
    """Why a file of that name is left out."""
    ending = os.path.splitext(name)[1].lower()
    return f"ending in {ending}" if ending else "without an ending"


def entries_of(folder: Path) -> list[Path]:
    """What is in a folder, sorted; a `UserError` where it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        _refuse(error)


def _refuse_empty(folder: Path, others: Counter[str]) -> NoReturn:
    named = ", ".join(f"{count:,} {reason}" for reason, count in others.most_common(_MAX_NAMED))
    problem = f"holds no pictures, only {named}" if named else "holds no pictures"
    raise UserError(str(folder), problem, f"known endings: {' '.join(EXTENSIONS)}")


def _refuse(error: OSError) -> NoReturn:
    raise UserError(str(error.filename), f"cannot be read: {error.strerror}", "make it readable, or remove it")


def _leads_back(folder: Path) -> bool:
    """Whether a class folder is a link to its own split or above, which would hold every picture once more."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
