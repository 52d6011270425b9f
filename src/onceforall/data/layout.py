"""Where the splits of a folder of pictures are, by the names that people give them."""

from dataclasses import dataclass
from pathlib import Path

from onceforall.data.folders import LAYOUT, class_folders, entries_of, hidden, is_dangling, is_picture, of_ending
from onceforall.data.found import LeftOut
from onceforall.errors import UserError

# The split that a folder of that name holds, whatever the case of its letters
NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """The folders of each split, None for one that is not there.

    `plain`: there are no splits, and `train` is the data's folder itself, which holds the class folders.
    """

    train: Path | None
    val: Path | None
    test: Path | None
    plain: bool = False


def layout_of(root: Path, left: LeftOut) -> Layout:
    """Find the splits of a folder of pictures.

    Args:
        root: the folder.
        left: counts what is left out: files beside the splits, a split that is empty, test pictures without labels.

    Returns:
        Where the splits are.

    Raises:
        UserError: two folders may be the same split; a split is a link to nothing; or the pictures of val/ are in no
            class folders.
    """
    splits: dict[str, Path] = {}
    others: list[Path] = []
    for entry in entries_of(root):
        role = NAMES.get(entry.name.casefold())
        if role is not None and is_dangling(entry):
            raise UserError(str(entry), "is a link to nothing", "mend the link, or remove it")
        if role is None or not entry.is_dir():
            others.append(entry)
        elif role in splits:
            raise UserError(str(root), f"holds {splits[role].name}/ and {entry.name}/, which mean the same split",
                            "keep one of them")
        else:
            splits[role] = entry
    if not splits:
        _check_plain(root)
        return Layout(root, None, None, plain=True)
    for entry in others:
        left.note(_reason(entry), entry)
    usable = {role: folder for role, folder in splits.items() if role == "train" or _usable(folder, role, left)}
    return Layout(usable.get("train"), usable.get("val"), usable.get("test"))


def _reason(entry: Path) -> str:
    """Why what lies beside the splits is left out."""
    if hidden(entry.name):
        return "hidden"
    if entry.is_dir():
        return "folders that no split is called by"
    return "pictures beside the splits" if is_picture(entry.name) else of_ending(entry.name)


def _usable(folder: Path, role: str, left: LeftOut) -> bool:
    """Whether a folder of pictures to evaluate on holds class folders."""
    entries = entries_of(folder)
    seen = [entry for entry in entries if not hidden(entry.name)]
    if any(entry.is_dir() or (is_dangling(entry) and not is_picture(entry.name)) for entry in seen):
        return True  # reading them says what is wrong with them
    pictures = sum(is_picture(entry.name) for entry in seen)
    if pictures and role == "val":
        raise UserError(str(folder), f"holds {pictures:,} pictures, but no class folders",
                        f"sort them into {folder.name}/<class>/, or move {folder.name}/ elsewhere")
    left.note("split without class folders", folder)
    for entry in entries:
        unlabelled = is_picture(entry.name) and not hidden(entry.name)
        left.note("pictures without a class folder" if unlabelled else _reason(entry), entry)
    return False


def _check_plain(root: Path) -> None:
    """Refuse a folder whose class folders are data sets of their own."""
    for folder in class_folders(root).values():
        inside = [entry.name for entry in entries_of(folder) if NAMES.get(entry.name.casefold()) == "train"]
        if inside and (folder / inside[0]).is_dir():
            raise UserError(str(root), f"holds no {inside[0]}/, but {folder.name}/{inside[0]}/ is there",
                            f"give {folder}; {LAYOUT}")
