"""Pictures given from Python: torch Datasets, functions that return them, and classes of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder

from onceforall.data import ArrayPictures, DataSpec, FilePictures, Known, load_data
from onceforall.data.dataset_pictures import DatasetPictures
from onceforall.data.given import asked_for, give, given_now
from onceforall.errors import UserError
from onceforall.testing import check_pictures
from onceforall.training.setup import data_of


class Coloured(Dataset):
    """Pictures of one colour: `form` makes them of pixels (H, W, 3)."""

    def __init__(self, count: int = 12, side: int = 80, form=lambda pixels: pixels, classes: int = 3) -> None:
        self.count, self.side, self.form, self.kinds = count, side, form, classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if not 0 <= index < self.count:
            raise IndexError(index)
        pixels = np.full((self.side, self.side + 4, 3), index * 9 % 256, dtype=np.uint8)
        pixels[index % self.side] = 255
        return self.form(pixels), index % self.kinds


def tensor(pixels):
    return torch.from_numpy(pixels).permute(2, 0, 1)


def floats(pixels):
    return tensor(pixels) / 255


@pytest.mark.parametrize("form", [lambda p: p, Image.fromarray, tensor, floats, lambda p: (p / 255).astype(np.float32)])
def test_every_form_of_a_picture(form):
    plain, other = (DatasetPictures.of(Coloured(form=f), place="data") for f in (lambda p: p, form))
    for index in (0, 5, 11):
        assert np.array_equal(plain.read(index), other.read(index))
    assert other.identity() == plain.identity()


def test_grey_pictures_have_three_equal_channels():
    for form in (lambda p: p[..., 0], lambda p: p[..., :1], lambda p: tensor(p)[0], lambda p: tensor(p)[:1],
                 lambda p: Image.fromarray(p[..., 0])):
        pixels = DatasetPictures.of(Coloured(form=form), place="data").read(3)
        assert pixels.shape == (80, 84, 3) and (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("pictures", [
    DatasetPictures.of(Coloured(form=np.copy), place="data"),
    ArrayPictures(torch.arange(4 * 3 * 8 * 6, dtype=torch.uint8).view(4, 3, 8, 6), torch.tensor([0, 1, 1, 2])),
], ids=["dataset", "array"])
def test_what_every_source_has_to_do(pictures):
    check_pictures(pictures)
    check_pictures(pictures.subset([1, 2, 3]))


def test_files_do_it_too(file_pictures: FilePictures):
    check_pictures(file_pictures)


FAULTS = [
    ({"read": lambda self, i, aim=None: np.zeros((4, 4, 3), np.float32)}, "uint8"),
    ({"read": lambda self, i, aim=None: np.random.default_rng().integers(0, 9, (4, 4, 3)).astype(np.uint8)}, "same"),
    ({"size": lambda self, i: (4, 99)}, "width, height"),
    ({"name": lambda self, i: "picture"}, "name of its own"),
    ({"subset": lambda self, indices, subset=ArrayPictures.subset: subset(self, sorted(indices))}, "keeps the"),
    ({"labelled": lambda self, labels: self}, "new labels"),
    ({"identity": lambda self: "x"}, "covers the labels"),
    ({"identity": lambda self: str(self.labels.tolist())}, "covers the order"),
    ({"rounded": True}, "uint8"),
    ({"__reduce__": lambda self: 1 / 0}, "handed to a worker"),
]


@pytest.mark.parametrize(("changes", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_the_suite_finds_faults(changes, message, monkeypatch):
    images = torch.arange(4 * 3 * 8 * 6, dtype=torch.uint8).view(4, 3, 8, 6)
    pictures = ArrayPictures(images, torch.tensor([0, 0, 0, 0]))
    for name, value in changes.items():
        monkeypatch.setattr(ArrayPictures, name, value)
    with pytest.raises(AssertionError, match=message):
        check_pictures(pictures)


def test_splits_and_classes():
    train, test = Coloured(20), Coloured(6)
    train.classes = ["red", "green", "blue"]
    test.classes = ["blue", "green", "red"]
    data = load_data(give((train, test)))
    assert data.classes == ("red", "green", "blue")
    assert data.test.labels.tolist() == [2, 1, 0, 2, 1, 0]  # by name
    assert len(data.train) + len(data.held_out) == 20
    assert data.found.text().splitlines()[0] == "pictures given from Python: 26 pictures, 3 classes"
    assert "its test pictures" in data.found.text()
    three = load_data(give((train, Coloured(4), test)))
    assert (len(three.train), len(three.held_out), len(three.test)) == (20, 4, 6)
    alone = load_data(give(train))
    assert len(alone.train) + len(alone.held_out) + len(alone.test) == 20 and "seed" in alone.found.text()
    assert load_data(give((train, test)), Known(("blue", "red", "green"))).test.labels.tolist() == [0, 2, 1, 0, 2, 1]


def test_small_pictures_are_kept_in_memory():
    data = load_data(give((Coloured(20, side=28), Coloured(6, side=28))))
    assert isinstance(data.train, ArrayPictures) and isinstance(data.test, ArrayPictures)
    assert data.test.images.shape == (6, 3, 28, 32)
    assert isinstance(load_data(give(Coloured(20))).train, DatasetPictures)


def test_labels_without_reading_pictures():
    class Counted(Coloured):
        read = 0

        def __getitem__(self, index):
            Counted.read += 1
            return super().__getitem__(index)

    dataset = Counted(200)
    dataset.targets = [i % 3 for i in range(200)]
    found = DatasetPictures.of(Subset(dataset, range(100, 200)), place="data")
    assert Counted.read < 60 and found.labels.tolist() == [i % 3 for i in range(100, 200)]
    dataset.targets = [2 - i % 3 for i in range(200)]  # not what its items say, as with torchvision's target_transform
    assert DatasetPictures.of(dataset, place="data").labels.tolist() == [i % 3 for i in range(200)]


def test_torchvisions_folder_is_our_folder(tmp_path: Path, write_picture):
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            for i in range(count):
                write_picture(tmp_path / split / name / f"{i}.png", (90, 70), seed=i + 10 * (name == "dog"))
    ours = load_data(DataSpec("folder", root=str(tmp_path)))
    theirs = load_data(give((ImageFolder(tmp_path / "train"), ImageFolder(tmp_path / "val"))))
    assert theirs.classes == ours.classes
    for a, b in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert a.labels.tolist() == b.labels.tolist()
        assert all(np.array_equal(a.read(i), b.read(i)) for i in range(len(a)))


def test_a_function_that_returns_them(tmp_path: Path, monkeypatch):
    (tmp_path / "my_pictures.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\n"
        "def both():\n    images = torch.rand(30, 3, 70, 70)\n    labels = torch.arange(30) % 2\n"
        "    return TensorDataset(images, labels), TensorDataset(images, labels)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = asked_for("my_pictures:both")
    assert spec == DataSpec("python", source="my_pictures:both") and spec.place == "my_pictures:both"
    assert len(load_data(spec).test) == 30
    sys.modules.pop("my_pictures")
    with pytest.raises(UserError, match="data.source: 'my_pictures:none' is no function that can be imported"):
        load_data(asked_for("my_pictures:none"))


def test_broken_pictures_are_left_out():
    def form(pixels):
        if pixels[0, 0, 0] == 45:
            raise OSError("no such picture")
        return pixels

    dataset = Coloured(form=form)
    with pytest.raises(UserError, match=r"data: its item 5 cannot be read \(OSError: no such picture\); mend it"):
        DatasetPictures.of(dataset, place="data")
    dataset.targets = [i % 3 for i in range(12)]
    pictures = DatasetPictures.of(dataset, place="data")
    found = pictures.read(5)
    assert (found.path, found.reason) == ("picture 5", "no such picture")
    assert pictures.size(5) is None and pictures.subset([4, 5]).read(1).path == "picture 5"


random = np.random.default_rng(0)


def flipped(pixels):
    """As torchvision's RandomVerticalFlip: half of the time nothing is done."""
    return pixels[::-1].copy() if random.random() < 0.5 else pixels


@pytest.mark.parametrize(("data", "message"), [
    (7, "data: train: int is no map-style Dataset; give \\(train, test\\)"),
    ((Coloured(), None), "data: test: NoneType is no map-style Dataset"),
    ((Coloured(),) * 4, "data: has 4 parts; give"),
    (Coloured(0), "data: train: is empty"),
    (torch.zeros(3, 4, 4), "data: train: its items are no pairs \\(Tensor\\); give \\(picture, label\\)"),
    (Coloured(form=str), "data: train: its picture 0 is of the type str; give a PIL image"),
    (Coloured(form=lambda p: p[:, :, :2]), "its picture 0 has the shape \\(80, 84, 2\\)"),
    (Coloured(form=lambda p: p.astype(np.int32)), "its picture 0 has values of type int32"),
    (Coloured(form=lambda p: p / 1.0), "its picture 0 has values from 0 to 255; give"),
    (Coloured(form=flipped), "is another one each time"),
    (Coloured(form=lambda p: p + random.integers(0, 9, p.shape, dtype=np.uint8)), "another one each time; leave"),
    ({"train": Coloured()}, "data: train: dict is no map-style Dataset"),
    ([Coloured(), Coloured()], "data: train: is a list of Datasets; give them as a tuple: \\(train, test\\)"),
    (Coloured, "no map-style Dataset; give .*or name a function, as module:name"),
    (TensorDataset(torch.full((4, 3, 8, 8), torch.nan), torch.arange(4)), "has values from nan to nan"),
    (Coloured(form=lambda p: Image.fromarray(p[..., 0].astype(np.uint16) * 16)), "is of the mode I;16, with more than"),
    (TensorDataset(torch.rand(4, 3, 8, 8), torch.arange(4) * 10_000_000), "no whole numbers from 0 to 999,999"),
    (TensorDataset(torch.rand(4, 3, 8, 8), torch.rand(4)), "has labels that are no whole numbers from 0"),
    (TensorDataset(torch.rand(4, 3, 8, 8), torch.arange(4) - 1), "has labels that are no whole numbers from 0"),
])
def test_what_is_no_data_set(data, message):
    with pytest.raises(UserError, match=message) as error:
        give(data)
    assert "\n" not in str(error.value)


def test_labels_without_a_name():
    train, test = Coloured(), Coloured(classes=4)
    train.classes = ["a", "b", "c"]
    with pytest.raises(UserError, match="data: test: label 3 is none of its 3 classes"):
        give((train, test))
    test.classes = ["a", "b", "c", "d"]
    with pytest.raises(UserError, match="data: test: has the classes d, which train lacks; it has a, b, c"):
        give((train, test))


def test_subsets_and_joined_sets():
    one, other = Coloured(20), Coloured(20)
    one.classes, other.classes = ["a", "b", "c"], ["c", "b", "a"]
    inner = Subset(Subset(other, range(2, 20)), [1, 4])
    assert load_data(give((one, inner))).test.labels.tolist() == [2, 2]  # items 3 and 6 are of c
    joined = ConcatDataset([other, other])
    assert load_data(give((one, joined))).test.labels.tolist()[:3] == [2, 1, 0]
    with pytest.raises(UserError, match="data: test: joins Datasets with other classes, or with another order"):
        give((one, ConcatDataset([one, other])))


def test_targets_are_not_believed_where_items_say_otherwise():
    dataset = Coloured(99)
    dataset.targets = [1 if i == 37 else i % 3 for i in range(99)]
    dataset.kinds = 3
    assert DatasetPictures.of(dataset, place="data").labels.tolist()[:3] == [0, 1, 2]
    merged = Coloured(99, classes=10)
    merged.targets = [i % 10 for i in range(99)]
    merged.target_transform = lambda label: min(label, 5)
    assert DatasetPictures.of(merged, place="data").labels.max() == 9  # of the items, which apply it or do not


def test_the_pictures_given_last_count():
    """Two Datasets that no digest of some pictures tells apart are two all the same."""
    first, second = Coloured(3000, side=4), Coloured(3000, side=4, form=np.copy)
    specs = [give((first, first)), give((second, second))]
    assert specs[0] == specs[1] and given_now(specs[0]) is given_now(specs[1])
    before = data_of(give((first, first)))
    assert data_of(give((second, second))) is not before


def test_another_process_does_not_have_them():
    spec = give(Coloured())
    assert give(Coloured()) == spec != give(Coloured(11))
    with pytest.raises(UserError, match=r"data: the pictures are those that a program gave from Python; .*--data"):
        load_data(DataSpec("python", source="given:0123456789abcdef"))
    with pytest.raises(UserError, match=r"data.source: is missing for 'python'"):
        load_data(DataSpec("python"))
