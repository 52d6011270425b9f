"""Every data set by its name: where its files may lie, its splits, and what is said when they are missing."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from onceforall.data import ArrayPictures, DataSpec, FilePictures, load_data
from onceforall.errors import UserError


def keys(pictures: ArrayPictures) -> set[bytes]:
    return {image.numpy().tobytes() for image in pictures.images}


def test_digits() -> None:
    data = load_data(DataSpec("digits"))
    assert [len(split) for split in (data.train, data.held_out, data.test)] == [1293, 145, 359]
    assert isinstance(data.train, ArrayPictures)
    assert data.train.images.shape[1:] == (3, 8, 8)
    assert data.train.images.dtype == torch.uint8
    assert (int(data.train.images.min()), int(data.train.images.max())) == (0, 255)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])
    assert torch.bincount(data.test.labels).min() >= 34
    assert data.classes == tuple("0123456789")
    assert torch.equal(data.train.images, load_data(DataSpec("digits")).train.images)


def test_the_held_out_part_leaves_test_and_statistics_alone() -> None:
    small, large = (load_data(DataSpec("digits", train_portion=portion)) for portion in (0.5, 1.0))
    assert (small.mean, small.std) == (large.mean, large.std)
    assert torch.equal(small.test.labels, large.test.labels)
    assert len(large.held_out) == 0
    assert len(small.train) + len(small.held_out) == len(large.train)
    assert not keys(small.train) & keys(small.held_out)


def test_an_unknown_name() -> None:
    with pytest.raises(UserError, match=r"data\.name: 'mnist' is no data set; known: digits"):
        load_data(DataSpec("mnist"))


@pytest.fixture
def tree(tmp_path: Path, write_picture) -> Path:
    seed = 0
    for split, count in (("train", 20), ("val", 3), ("test", 2)):
        for name in ("cat", "dog"):
            for i in range(count):
                seed += 1
                write_picture(tmp_path / split / name / f"{i}.png", (12, 12), seed=seed)
    return tmp_path


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("absent", "sizes"),
    [((), [40, 6, 4]), (("val",), [36, 4, 4]), (("test",), [36, 4, 6]), (("val", "test"), [28, 4, 8])],
)
def test_folder_splits(tree: Path, absent: tuple[str, ...], sizes: list[int]) -> None:
    for name in absent:
        remove(tree / name)
    data = load_data(DataSpec("folder", root=str(tree)))
    assert [len(split) for split in (data.train, data.held_out, data.test)] == sizes
    assert data.classes == ("cat", "dog")
    assert not keys(data.train) & (keys(data.held_out) | keys(data.test))
    assert not keys(data.held_out) & keys(data.test)


def test_valid_is_val_and_cifar10_takes_a_folder(tree: Path) -> None:
    (tree / "val").rename(tree / "valid")
    assert [len(load_data(DataSpec(name, root=str(tree))).held_out) for name in ("imagenet", "cifar10")] == [6, 6]


def test_folder_mistakes(tree: Path, write_picture) -> None:
    with pytest.raises(UserError, match=r"data\.root: is missing for 'folder'"):
        load_data(DataSpec("folder"))
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_data(DataSpec("folder", root=str(tree / "nowhere")))
    write_picture(tree / "val" / "cow" / "1.png")
    with pytest.raises(UserError, match="cow: is a class that train/ lacks"):
        load_data(DataSpec("folder", root=str(tree)))
    remove(tree / "train")
    with pytest.raises(UserError, match="train: does not exist; expected train/<class>/<picture>"):
        load_data(DataSpec("folder", root=str(tree)))


def test_strict_stops_at_a_broken_picture(tree: Path) -> None:
    (tree / "train" / "cat" / "3.png").write_bytes(b"")
    assert len(load_data(DataSpec("folder", root=str(tree))).train) == 39
    with pytest.raises(UserError, match=r"3\.png: broken"):
        load_data(DataSpec("folder", root=str(tree), strict=True))


def list_spec(tree: Path, **changes: object) -> DataSpec:
    (tree / "t.txt").write_text("".join(f"{c}/{i}.png {k}\n" for k, c in enumerate(("cat", "dog")) for i in range(20)))
    (tree / "v.txt").write_text("cat/0.png 0\ndog/1.png 1\n")
    fields = {"train_path": tree / "train", "train_file": tree / "t.txt",
              "valid_path": tree / "val", "valid_file": tree / "v.txt"} | changes  # fmt: skip
    return DataSpec("list", **{k: None if v is None else str(v) for k, v in fields.items()})  # type: ignore[arg-type]


def test_lists(tree: Path) -> None:
    data = load_data(list_spec(tree))
    assert [len(split) for split in (data.train, data.held_out, data.test)] == [36, 4, 2]
    assert data.classes == ("0", "1")
    carved = load_data(list_spec(tree, valid_file=None, valid_path=None))
    assert [len(split) for split in (carved.train, carved.held_out, carved.test)] == [28, 4, 8]


def test_list_mistakes(tree: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train_path: is missing"):
        load_data(list_spec(tree, train_path=None))
    with pytest.raises(UserError, match=r"data\.valid_path: is missing"):
        load_data(list_spec(tree, valid_path=None))
    spec = list_spec(tree)
    (tree / "v.txt").write_text("cat/0.png 2\n")
    with pytest.raises(UserError, match=r"label 2 is not in .*t\.txt \(0\.\.1\)"):
        load_data(spec)


def relabelled(tree: Path, labels: dict[str, str]) -> DataSpec:
    """The lists with other labels."""
    spec = list_spec(tree)
    for name in ("t.txt", "v.txt"):
        lines = [line.split() for line in (tree / name).read_text().splitlines()]
        (tree / name).write_text("".join(f"{path} {labels[label]}\n" for path, label in lines))
    return spec


def test_labels_that_start_at_one_are_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"t\.txt: its labels are 1\.\.2, and labels start at 0; subtract 1"):
        load_data(relabelled(tree, {"0": "1", "1": "2"}))


def test_gaps_between_labels_are_named(tree: Path) -> None:
    """They may be meant: a part of ImageNet keeps its labels."""
    spec = relabelled(tree, {"0": "1", "1": "4"})
    (tree / "v.txt").write_text("cat/0.png 1\ndog/1.png 3\n")
    data = load_data(spec)
    assert data.found is not None
    (note,) = data.found.origin.notes
    assert "3 of 5 labels have no training picture: 0, 2, 3; 1 test pictures" in note
    assert data.found.splits[0].counts == (0, 18, 0, 0, 18)
    assert not load_data(list_spec(tree)).found.origin.notes


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes() + array.tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_fashion(folder: Path, ending: str) -> None:
    for part, count in (("train", 50), ("t10k", 20)):
        pixels = np.arange(count * 784, dtype=np.int64).reshape(count, 28, 28).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{ending}", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte{ending}", (np.arange(count) % 10).astype(np.uint8))


@pytest.mark.parametrize(("place", "ending"), [("", ".gz"), ("", ""), ("FashionMNIST/raw", "")])
def test_fashion_mnist_wherever_it_lies(tmp_path: Path, place: str, ending: str) -> None:
    write_fashion(tmp_path / place, ending)
    data = load_data(DataSpec("fashion-mnist", root=str(tmp_path), train_portion=1.0))
    assert (len(data.train), len(data.test)) == (50, 20)
    assert data.train.images[1, 2].flatten()[:3].tolist() == [16, 17, 18]
    assert data.train.labels[13] == 3
    assert data.classes[9] == "Ankle boot"


def test_debians_fashion_mnist_is_found_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion(tmp_path / "debian", ".gz")
    monkeypatch.setattr("onceforall.data.fashion.DEBIAN", tmp_path / "debian")
    assert len(load_data(DataSpec("fashion-mnist")).test) == 20


def test_damaged_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceforall.data.fashion.DEBIAN", tmp_path / "debian")
    spec = DataSpec("fashion-mnist", root=str(tmp_path))
    with pytest.raises(UserError, match="no Fashion-MNIST under .*; apt-get install dataset-fashion-mnist, or ofa fit"):
        load_data(spec)
    write_fashion(tmp_path, ".gz")
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:20])
    with pytest.raises(UserError, match="cannot be read"):
        load_data(spec)
    file.write_bytes(whole[:10] + b"\xff" * 30)
    with pytest.raises(UserError, match="cannot be read"):
        load_data(spec)
    for content in (b"", b"\0\0\x08", b"\0\0\x08\x01\0\0", b"\0\0\x08\x01\0\0\0\x05abc", b"\1\0\x08\x01\0\0\0\x01a"):
        file.write_bytes(gzip.compress(content))
        with pytest.raises(UserError, match="no complete idx file"):
            load_data(spec)
    file.unlink()
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is missing"):
        load_data(spec)


def test_missing_cifar10_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no CIFAR-10 under .*ofa fit --data cifar10 --download"):
        load_data(DataSpec("cifar10", root=str(tmp_path)))


def test_cifar10_through_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(root: str, train: bool, download: bool) -> SimpleNamespace:
        count = 50 if train else 20
        data = np.arange(count * 3072, dtype=np.int64).reshape(count, 32, 32, 3).astype(np.uint8)
        return SimpleNamespace(data=data, targets=[i % 10 for i in range(count)], classes=[str(i) for i in range(10)])

    monkeypatch.setattr("torchvision.datasets.CIFAR10", stand_in)
    data = load_data(DataSpec("cifar10", train_portion=0.8))
    assert [len(split) for split in (data.train, data.held_out, data.test)] == [40, 10, 20]
    assert data.test.images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert data.test.labels.dtype == torch.int64


def test_real_pictures_stay_files(tmp_path: Path, reference_data: Path) -> None:
    with tarfile.open(reference_data / "imagenet-sample.tar") as archive:
        for member in [member for member in archive if member.isfile()][:4]:
            target = tmp_path / "train" / Path(member.name).parent.name / Path(member.name).name
            target.parent.mkdir(parents=True)
            source = archive.extractfile(member)
            assert source is not None
            target.write_bytes(source.read())
    data = load_data(DataSpec("imagenet", root=str(tmp_path)))
    assert isinstance(data.train, FilePictures)
    assert (len(data.train), len(data.test), len(data.classes)) == (4, 0, 4)
