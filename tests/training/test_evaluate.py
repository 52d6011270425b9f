"""Evaluation: what is decoded once and kept, and that scoring leaves a net as it was."""

from __future__ import annotations

import random

import pytest
import torch
from PIL import Image

from onceforall.data import ArrayPictures, DataSet, DataSpec, FilePictures, load_data
from onceforall.nn import Supernet, extract
from onceforall.space import search_space
from onceforall.training import evaluate
from onceforall.training.engine.distributed import Processes
from onceforall.training.evaluate import Evaluator

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> FilePictures:
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for i in range(12):
        paths.append(str(folder / f"{i}.jpg"))
        Image.linear_gradient("L").rotate(20 * i).resize((50 + i, 40)).convert("RGB").save(paths[-1])
    return FilePictures(tuple(paths), torch.arange(12) % 3)


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The sizes that pictures were decoded at."""
    sizes: list[int] = []
    batches = evaluate.eval_batches

    def counted(pictures, resolution, **options):
        sizes.append(resolution)
        return batches(pictures, resolution, **options)

    monkeypatch.setattr(evaluate, "eval_batches", counted)
    return sizes


def evaluator(pictures: FilePictures | ArrayPictures, **options) -> Evaluator:
    nothing = pictures.subset([])
    return Evaluator(DataSet(pictures, nothing, pictures, ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3), batch=5, **options)


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_are_decoded_once_a_size(files, decoded, workers):
    scores = evaluator(files, workers=workers)
    net = extract(Supernet(SPACE, 3, generator=torch.Generator().manual_seed(0)), SPACE.smallest).eval()
    found = [scores.score_net(net, size, files) for size in (24, 32, 24, 32)]
    assert found[:2] == found[2:]
    assert decoded == [24, 32]
    scores.score_net(net, 24, files.subset(range(6)))  # others
    assert decoded == [24, 32, 24]
    assert not any(b.images.is_shared() for _, kept in scores._kept.values() for b in kept)


@pytest.mark.parametrize(("limit", "again"), [(12 * 3 * 32**2, []), (12 * 3 * 32**2 - 1, [32])])
def test_what_is_kept_is_bounded(files, decoded, monkeypatch, limit, again):
    monkeypatch.setattr(evaluate, "_KEPT_BYTES", limit)
    scores = evaluator(files)
    net = extract(Supernet(SPACE, 3), SPACE.smallest).eval()
    for _ in range(2):
        scores.score_net(net, 32, files)
    assert decoded == [32, *again]
    scores.score_net(net, 24, files)  # the older one makes room
    assert sum(b.images.nbytes for _, kept in scores._kept.values() for b in kept) <= limit


def test_scoring_leaves_the_net_as_it_was(files):
    net = extract(Supernet(SPACE, 3, generator=torch.Generator().manual_seed(0)), SPACE.smallest).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    scores = evaluator(files)
    scores.score_net(net, 32, files)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> dict[str, DataSet]:
    """The digits by name, as a folder of PNG files, and as shuffled lists of those files."""
    root = tmp_path_factory.mktemp("digits")
    whole = load_data(DataSpec("digits", train_portion=1.0))
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split, pictures in (("train", whole.train), ("val", whole.test)):
        for i, (image, label) in enumerate(zip(pictures.images, pictures.labels.tolist(), strict=True)):
            path = root / split / str(label) / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
            lines[split].append(f"{label}/{path.name} {label}")
    for split, found in lines.items():
        random.Random(0).shuffle(found)
        (root / f"{split}.txt").write_text("\n".join(found))
    listed = DataSpec("list", train_path=str(root / "train"), train_file=str(root / "train.txt"),
                      valid_path=str(root / "val"), valid_file=str(root / "val.txt"))
    return {"name": load_data(DataSpec("digits")), "folder": load_data(DataSpec("folder", root=str(root))),
            "list": load_data(listed)}


@pytest.mark.slow
@pytest.mark.parametrize("form", ["folder", "list"])
def test_one_net_scores_the_same_on_every_form_of_the_pictures(forms, form):
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(0)).eval()
    by_name, other = (Evaluator(forms[name], calibration_images=300) for name in ("name", form))
    for arch in (SPACE.smallest, SPACE.largest):
        for split in ("test", "held_out"):
            expected = by_name.score(net, arch, getattr(forms["name"], split))
            found = other.score(net, arch, getattr(forms[form], split))
            assert (found.top1, found.top5, found.images) == (expected.top1, expected.top5, expected.images)
            assert found.loss == pytest.approx(expected.loss, rel=1e-6)


def test_calibration_batches_hold_all_classes(forms):
    drawn = forms["folder"].calibration(500)
    assert min(len(labels.unique()) for labels in drawn.labels.split(evaluate.CALIBRATION_BATCH)) == 10


@pytest.mark.parametrize("world", [1, 2])
def test_confusion_counts_what_the_net_answers(forms, monkeypatch, world):
    """The counts agree with the net's answers one by one, alone and as the sum over processes."""
    data = forms["name"]
    net = extract(Supernet(SPACE, 10, generator=torch.Generator().manual_seed(0)), SPACE.smallest).eval()
    parts = []
    monkeypatch.setattr(evaluate, "summed", lambda tensor, _: parts.append(tensor) or sum(parts))
    for rank in range(world):
        scores = Evaluator(data, batch=50, processes=Processes(rank, world, rank, world))
        found = scores.confusion(net, 12, data.test)
    expected = torch.zeros(10, 10, dtype=torch.int64)
    with torch.inference_mode():
        for batch in Evaluator(data)._batches(data.test, 12, 40):
            answers = net(scores._prepared(batch.images)).argmax(1)
            for label, answer in zip(batch.labels.tolist(), answers.tolist(), strict=True):
                expected[label, answer] += 1
    assert torch.equal(found, expected)
    assert found.dtype == torch.int64
    assert int(found.sum()) == len(data.test)
