"""Specs check themselves; pictures, statistics and normalisation are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from onceforall.data import ArrayPictures, Augment, DataSpec, FilePictures, Loader, normalize, sample
from onceforall.data.dataset import IMAGENET_MEAN, IMAGENET_STD, colour_statistics
from onceforall.data.serve import workers_for
from onceforall.data.spec import default_workers
from onceforall.errors import UserError


@pytest.mark.parametrize(
    ("make", "values", "place"),
    [
        (Augment, {"crop_scale": (0.0, 1.0)}, "crop_scale"),
        (Augment, {"crop_scale": (0.5, 1.5)}, "crop_scale"),
        (Augment, {"ratio": (2.0, 1.0)}, "ratio"),
        (Augment, {"saturation": -0.1}, "saturation"),
        (DataSpec, {"name": "digits", "train_portion": 0.0}, "train_portion"),
        (DataSpec, {"name": "digits", "train_portion": 1.1}, "train_portion"),
        (DataSpec, {"name": "digits", "workers": -1}, "workers"),
        (Loader, {"batch": 0}, "batch"),
        (Loader, {"batch": 1, "rank": 2, "world": 2}, "rank"),
        (Loader, {"batch": 1, "prefetch": 0}, "prefetch"),
    ],
)
def test_a_wrong_value_is_named(make: Any, values: dict[str, Any], place: str) -> None:
    with pytest.raises(UserError, match=place):
        make(**values)


def test_specs_are_hashable() -> None:
    assert len({DataSpec("digits"), DataSpec("digits"), DataSpec("folder", root="x")}) == 2


def test_default_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onceforall.data.spec._cores", lambda: 12)
    assert [default_workers(world) for world in (1, 2, 4, 100)] == [11, 5, 2, 0]
    monkeypatch.setattr("onceforall.data.spec._cores", lambda: 500)
    assert default_workers(1) == 16


def test_pictures_in_memory_need_no_workers(array_pictures: ArrayPictures, file_pictures: FilePictures) -> None:
    loader = Loader(batch=1)
    assert (workers_for(array_pictures, loader), workers_for(file_pictures, loader)) == (0, default_workers(1))
    assert workers_for(array_pictures, Loader(batch=1, workers=3)) == 3


def test_subset_keeps_order(array_pictures: ArrayPictures, file_pictures: FilePictures) -> None:
    chosen = array_pictures.subset([5, 2])
    assert chosen.labels.tolist() == [5, 2]
    assert torch.equal(chosen.images[1], array_pictures.images[2])
    files = file_pictures.subset([5, 2])
    assert files.paths == (file_pictures.paths[5], file_pictures.paths[2])
    assert len(array_pictures.subset([])) == 0 == len(file_pictures.subset([]))


NAMES = tuple(f"class {i}" for i in range(30))


def test_sample_is_fixed_by_its_seed(array_pictures: ArrayPictures) -> None:
    first = sample(array_pictures, 10, classes=NAMES, seed=3)
    assert first.labels.tolist() == sample(array_pictures, 10, classes=NAMES, seed=3).labels.tolist()
    assert first.labels.tolist() != sample(array_pictures, 10, classes=NAMES, seed=4).labels.tolist()
    assert len(set(first.labels.tolist())) == 10
    assert len(sample(array_pictures, 99, classes=NAMES, seed=0)) == 30


def sorted_pictures(classes: int, each: int) -> ArrayPictures:
    """Pictures listed class by class; all pixels of picture i are i."""
    count = classes * each
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return ArrayPictures(images, torch.arange(classes).repeat_interleave(each))


def test_a_sample_of_pictures_listed_by_class_is_mixed() -> None:
    labels = sample(sorted_pictures(6, 40), 240, classes=NAMES, seed=0).labels
    assert labels.tolist() != sorted(labels.tolist())
    assert min(len(part.unique()) for part in labels.split(40)) == 6
    drawn = sample(sorted_pictures(6, 40), 120, classes=NAMES, seed=0).labels.bincount(minlength=6)
    assert 10 < int(drawn.min()) <= int(drawn.max()) < 30


@pytest.mark.parametrize("order", ["interleaved", "classes backwards", "at random"])
def test_a_sample_does_not_depend_on_how_pictures_are_listed(order: str) -> None:
    pictures = sorted_pictures(5, 8)
    if order == "at random":  # each class keeps the order of its own pictures
        slots = torch.randperm(40, generator=torch.Generator().manual_seed(1)).view(5, 8).sort(dim=1).values
        listed = torch.empty(40, dtype=torch.int64)
        listed[slots.flatten()] = torch.arange(40)
    else:
        rows = torch.arange(40).view(5, 8)
        listed = (rows.T if order == "interleaved" else rows.flip(0)).flatten()
    assert listed.tolist() != list(range(40))
    one = sample(pictures, 17, classes=NAMES, seed=0)
    other = sample(pictures.subset(listed.tolist()), 17, classes=NAMES, seed=0)
    assert torch.equal(one.images, other.images)
    assert torch.equal(one.labels, other.labels)


def test_a_sample_goes_by_the_names_of_classes() -> None:
    """Another number for a class changes nothing, another name does."""
    pictures, swap = sorted_pictures(5, 8), torch.tensor([4, 3, 2, 1, 0])
    renumbered = ArrayPictures(pictures.images, swap[pictures.labels])
    one = sample(pictures, 17, classes=NAMES[:5], seed=0).images
    assert torch.equal(one, sample(renumbered, 17, classes=NAMES[:5][::-1], seed=0).images)
    assert not torch.equal(one, sample(pictures, 17, classes=NAMES[5:10], seed=0).images)


def test_settings_with_other_pictures() -> None:
    listed = DataSpec("list", train_file="a.txt", train_path="a", strict=True, train_portion=0.5)
    folder, given = DataSpec("folder", root="b"), DataSpec("python", source="mine:splits")
    assert listed.with_pictures_of(folder) == DataSpec("folder", root="b", strict=True, train_portion=0.5)
    assert folder.with_pictures_of(given) == given
    assert given.with_pictures_of(listed) == DataSpec("list", train_file="a.txt", train_path="a")


def test_a_digest_tells_pictures_and_labels_apart(array_pictures: ArrayPictures, file_pictures: FilePictures) -> None:
    relabelled = ArrayPictures(array_pictures.images, array_pictures.labels.flip(0))
    changed = ArrayPictures(255 - array_pictures.images, array_pictures.labels)
    assert len({p.identity() for p in (array_pictures, relabelled, changed, file_pictures,
                                    file_pictures.subset(range(12)))}) == 5
    moved = FilePictures(tuple(f"/elsewhere/{'/'.join(path.split('/')[-2:])}" for path in file_pictures.paths),
                         file_pictures.labels)
    assert moved.identity() == file_pictures.identity()


def test_colour_statistics(array_pictures: ArrayPictures, file_pictures: FilePictures) -> None:
    scaled = array_pictures.images.double() / 255
    mean, std = colour_statistics(array_pictures)
    assert mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist())
    assert colour_statistics(file_pictures) == (IMAGENET_MEAN, IMAGENET_STD)
    plain = ArrayPictures(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert min(colour_statistics(plain)[1]) > 0


def test_normalize_takes_bytes_and_floats(array_pictures: ArrayPictures) -> None:
    images = array_pictures.images
    expected = (images.float() / 255 - 0.5) / torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1)
    floats = images.float() / 255
    for given in (images, floats, floats.contiguous(memory_format=torch.channels_last)):
        before = given.clone()
        result = normalize(given, mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.4))
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(result, expected)
        assert torch.equal(given, before)
