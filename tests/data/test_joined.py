"""Pictures of several sources as one, and pictures without labels."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onceforall.data import Augment, DataSpec, Loader, TrainBatches
from onceforall.data.depth import USUAL
from onceforall.data.joined import UNLABELLED, JoinedPictures, unlabelled_pictures
from onceforall.data.pictures import ArrayPictures, Pictures
from onceforall.data.sources import load_data
from onceforall.errors import UserError
from onceforall.testing import check_pictures


def arrays(count: int, *, seed: int) -> ArrayPictures:
    images = torch.randint(0, 256, (count, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    return ArrayPictures(images, torch.arange(count) % 3)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Five pictures, some in a folder of the folder."""
    for i in range(5):
        path = tmp_path / "more" / ("deep" if i > 2 else "") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((14, 16, 3), 50 * i, np.uint8)).save(path)
    (tmp_path / "more" / "notes.txt").write_text("not a picture")
    return tmp_path / "more"


@pytest.fixture
def joined(files: Path) -> JoinedPictures:
    return JoinedPictures.of([arrays(4, seed=1), unlabelled_pictures(str(files), USUAL)])


def test_one_source_after_the_other(joined, files):
    assert joined.labels.tolist() == [0, 1, 2, 0, *[UNLABELLED] * 5]
    assert np.array_equal(joined.read(1), arrays(4, seed=1).read(1))
    assert joined.name(4) == str(files / "0.png") and joined.size(4) == (16, 14)
    assert (joined.read(8) == 200).all()


def test_a_subset_keeps_labels_and_pictures_together(joined):
    some = joined.subset([8, 0, 5])
    assert some.labels.tolist() == [UNLABELLED, 0, UNLABELLED]
    assert [np.array_equal(some.read(i), joined.read(j)) for i, j in enumerate((8, 0, 5))] == [True] * 3
    assert some.subset([1]).identity() == joined.subset([0]).identity() != joined.subset([1]).identity()


def test_they_are_pictures(files):
    more = unlabelled_pictures(str(files), USUAL)
    check_pictures(JoinedPictures.of([arrays(6, seed=1), more.labelled(torch.arange(5) % 2)]))
    assert isinstance(pickle.loads(pickle.dumps(JoinedPictures.of([arrays(2, seed=1)]))), Pictures)


def test_batches_hold_both(joined):
    batches = TrainBatches(joined, [8], augment=Augment(), loader=Loader(9), seed=0)
    (batch,) = batches.epoch(0)
    assert sorted(batch.labels.tolist()) == sorted(joined.labels.tolist())
    assert batch.images.shape == (9, 3, 8, 8)


def test_a_data_set_with_pictures_without_labels(files):
    plain = load_data(DataSpec("digits"))
    data = load_data(DataSpec("digits", unlabelled=str(files)))
    assert plain.unlabelled is None and plain.taught is plain.train
    assert len(data.train) == len(plain.train) and len(data.taught) == len(data.train) + 5
    assert "5 pictures without labels" in data.found.text()


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "is not a folder"), ("empty", "holds no pictures")])
def test_a_folder_without_pictures(tmp_path, folder, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"data.unlabelled: .*{folder}' {said}"):
        load_data(DataSpec("digits", unlabelled=str(tmp_path / folder)))
