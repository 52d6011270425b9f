"""Fashion-MNIST from its four idx files, wherever they lie."""

import gzip
import zlib
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onceforall.data.decode import error_line
from onceforall.data.pictures import ArrayPictures, from_grey
from onceforall.data.spec import DEFAULT_ROOT, DataSpec
from onceforall.errors import UserError
from onceforall.files import in_full, unreadable

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_MAX_BYTES = 16 + 60_000 * 28 * 28  # of the largest of the four files, unpacked
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


def fashion_mnist(spec: DataSpec) -> tuple[ArrayPictures, ArrayPictures]:
    """The 60,000 training and 10,000 test pictures, 28x28, grey as three equal channels."""
    folder = _fashion_folder(spec)
    return _read_idx_pair(folder, "train"), _read_idx_pair(folder, "t10k")


def _fashion_folder(spec: DataSpec) -> Path:
    """Where the four idx files lie: flat in root, as torchvision lays them, or in Debian's package."""
    root = Path(spec.root or DEFAULT_ROOT)
    places = [root, root / "FashionMNIST" / "raw", DEBIAN]
    if spec.download and not any(map(_has_idx, places)):
        from torchvision.datasets import FashionMNIST

        try:
            FashionMNIST(str(root), download=True)
        except (RuntimeError, OSError) as error:
            problem = f"Fashion-MNIST could not be downloaded ({error_line(error)})"
            raise UserError("--download", problem, "apt-get install dataset-fashion-mnist") from error
    for place in places:
        if _has_idx(place):
            return place
    remedy = "apt-get install dataset-fashion-mnist, or ofa fit --data fashion-mnist --download"
    raise UserError("data.root", f"no Fashion-MNIST under {root}{in_full(root)}", remedy)


def _idx_file(folder: Path, stem: str) -> Path | None:
    files = (folder / stem, folder / f"{stem}.gz")
    return next((file for file in files if file.is_file()), None)


def _has_idx(folder: Path) -> bool:
    return _idx_file(folder, "train-images-idx3-ubyte") is not None


def _read_idx_pair(folder: Path, part: str) -> ArrayPictures:
    images = _read_idx(folder, f"{part}-images-idx3-ubyte")
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte")
    if images.ndim != 3 or len(images) != len(labels):
        raise UserError(str(folder), f"{part}: {len(images)} pictures and {len(labels)} labels do not go together")
    return from_grey(torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64)))


def _read_idx(folder: Path, stem: str) -> NDArray[np.uint8]:
    """One idx file of bytes: two zeros, the type 8, the number of axes, each axis as big-endian int32, the data."""
    file = _idx_file(folder, stem)
    if file is None:
        raise UserError(str(folder), f"{stem} is missing", "get the data set anew")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except PermissionError as error:
        raise unreadable(file, error) from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(str(file), f"cannot be read ({error_line(error)})", "get the data set anew") from error
    axes = data[3] if data[:4] in (b"\0\0\x08\1", b"\0\0\x08\3") else 0
    shape = tuple(np.frombuffer(data, dtype=">u4", count=axes, offset=4).tolist()) if len(data) >= 4 + 4 * axes else ()
    if not shape or len(data) != 4 + 4 * axes + prod(shape):
        raise UserError(str(file), "is no complete idx file of bytes", "get the data set anew")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
