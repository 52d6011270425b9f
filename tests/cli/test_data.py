"""`ofa data`, what the verbs say of the pictures they find, and folders without training pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from onceforall.cli import main
from onceforall.data import ArrayPictures, DataSpec, load_data
from onceforall.deploy.description import read_description
from onceforall.deploy.folder import Scored, open_subnet, save_subnet
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, save

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.15).restrict(resolutions=[12, 16])


def ofa(capsys, *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(list(map(str, arguments)))
    out = capsys.readouterr()
    return end.value.code, out.out, out.err


def write(pictures: ArrayPictures, root: Path, count: int) -> Path:
    """The first `count` pictures as <class>/<number>.png."""
    for i, (image, label) in enumerate(zip(pictures.images[:count], pictures.labels[:count].tolist(), strict=True)):
        path = root / str(label) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec("digits"))


@pytest.fixture(scope="module")
def place(tmp_path_factory, digits) -> Path:
    """A supernet with random weights, its smallest sub-network, extracted, and digits as PNG files."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "run").mkdir()
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()
    weights = folder / "run" / "weights.h5"
    save(Trained(net, SPACE, None, {"mean": digits.mean, "std": digits.std, "classes": digits.classes}), weights)
    evaluator = Evaluator(digits, calibration_images=200)
    subnet = evaluator.subnet(net, SPACE.smallest)
    found = Scored.of(evaluator, subnet, SPACE, SPACE.smallest)
    save_subnet(found.extracted, folder / "small", source=weights)
    write(digits.train, folder / "whole" / "train", 100)
    write(digits.test, folder / "whole" / "val", 80)
    write(digits.test, folder / "plain", 80)
    write(digits.test, folder / "only" / "validation", 80)
    return folder


@pytest.fixture
def root(tmp_path: Path, digits) -> Path:
    write(digits.train, tmp_path / "pictures" / "train", 100)
    write(digits.test, tmp_path / "pictures" / "val", 40)
    return tmp_path / "pictures"


def test_ofa_data(root: Path, capsys) -> None:
    (root / "train" / "3" / "0.txt").touch()
    (root / "val" / "3" / "broken.png").write_bytes(b"")
    one = next((root / "train" / "5").iterdir())
    (root / "val" / "6" / "again.png").write_bytes(one.read_bytes())
    code, out, err = ofa(capsys, "data", root, "--json")
    values = json.loads(out)
    assert (code, err) == (0, "")
    assert values["splits"]["test"]["pictures"] == 42
    assert sum(split["pictures"] for split in values["splits"].values()) == 142
    assert values["left_out"] == [{"reason": "ending in .txt", "count": 1, "example": "train/3/0.txt"}]
    assert [broken["file"] for broken in values["broken"]] == [str(root / "val" / "3" / "broken.png")]
    assert [(shared["count"], shared["example"][1]) for shared in values["shared"]] == [
        (1, str(root / "val" / "6" / "again.png"))]
    code, out, _ = ofa(capsys, "data", root)
    assert code == 0
    for words in ("142 pictures, 10 classes", "train/3/0.txt", "val/3/broken.png: ",
                  "val/6/again.png, which is train/5/"):
        assert words in out


def test_ofa_data_by_name_and_mistakes(capsys, tmp_path: Path) -> None:
    code, out, _ = ofa(capsys, "data", "digits", "--json")
    values = json.loads(out)
    assert code == 0
    assert [split["pictures"] for split in values["splits"].values()] == [1293, 145, 359]
    assert values["broken"] == []
    for words, message in (((tmp_path / "none",), "is not a folder"), (("digits", "--root", "x"), "--root"),
                           ((tmp_path,), "holds no class folders")):
        code, out, err = ofa(capsys, "data", *words)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def top1(capsys, *arguments: object) -> float:
    code, out, err = ofa(capsys, "evaluate", *arguments, "--json")
    assert code == 0, err
    values = json.loads(out)
    assert values["images"] == 80
    return values["top1"]


def test_an_extracted_net_needs_no_training_pictures(place: Path, capsys) -> None:
    """One number for the same pictures, whatever lies beside them."""
    net = place / "small"
    scores = [top1(capsys, net, "--data", place / name) for name in ("whole", "plain", "only")]
    assert len(set(scores)) == 1
    assert 0 < scores[0] < 1
    _, _, err = ofa(capsys, "evaluate", net, "--data", place / "plain")
    assert "80 pictures, 10 classes" in err


def test_some_classes_alone_keep_their_labels(place: Path, digits, capsys, tmp_path: Path) -> None:
    few = torch.isin(digits.test.labels, torch.tensor([3, 7]))
    chosen = digits.test.subset(few.nonzero().flatten().tolist())
    write(chosen, tmp_path / "few", len(chosen))
    net, _ = open_subnet(place / "small")
    expected = Evaluator(digits).score_net(net, 12, chosen)
    code, out, err = ofa(capsys, "evaluate", place / "small", "--data", tmp_path / "few", "--json")
    assert code == 0, err
    assert (json.loads(out)["top1"], json.loads(out)["loss"]) == pytest.approx((expected.top1, expected.loss))
    assert "3  37 test" in err


def test_a_supernet_needs_training_pictures(place: Path, capsys) -> None:
    code, _, err = ofa(capsys, "evaluate", place / "run", "--data", place / "only")
    assert code == 2
    assert "has no training pictures, which BN recalibration needs" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_a_supernet_is_recalibrated_on_the_pictures_of_its_run(place: Path, capsys, tmp_path: Path) -> None:
    """As long as these are there."""
    run, pictures = tmp_path / "run", tmp_path / "pictures"
    run.mkdir()
    (run / "weights.h5").write_bytes((place / "run" / "weights.h5").read_bytes())
    (place / "whole").rename(pictures)
    try:
        (run / "config.json").write_text(json.dumps({
            "dataloader": {"folder": {"root": str(pictures)}}, "network": {"ofa": {
                "space": "mobilenet_v3_large_32px", "width_mult": 0.15, "num_classes": 10}},
            "optimizer": {"train": {"lr": 0.1}}, "hparams": {"calibration_images": 50}}))
        assert top1(capsys, run, "--data", place / "plain") == top1(capsys, run)
    finally:
        pictures.rename(place / "whole")
    code, _, err = ofa(capsys, "evaluate", run, "--data", place / "plain")
    assert code == 2
    assert "the run's own cannot be read" in err


def test_a_net_is_not_scored_on_the_pictures_it_was_trained_on(place: Path, digits, capsys, tmp_path: Path) -> None:
    """A folder of classes without splits has a test split for the net that was trained on the rest of it."""
    plain = write(digits.test, tmp_path / "plain", 80)
    data = load_data(DataSpec("folder", root=str(plain)))
    net = Supernet(SPACE, 10, generator=torch.Generator().manual_seed(1)).eval()
    evaluator = Evaluator(data, calibration_images=50)
    subnet = evaluator.subnet(net, SPACE.smallest)
    own = tmp_path / "own"
    found = Scored.of(evaluator, subnet, SPACE, SPACE.smallest)
    save_subnet(found.extracted, own, source=place / "run" / "weights.h5")
    images = {}
    for words in ((own,), (own, "--data", plain), (own, "--data", f"{plain}/"), (own, "--data", place / "plain")):
        code, out, err = ofa(capsys, "evaluate", *words, "--json")
        assert code == 0, err
        images[words] = json.loads(out)["images"]
    assert list(images.values()) == [len(data.test)] * 3 + [80]
    assert len(data.test) < 20


def test_an_extracted_net_is_scored_again_as_its_description_says(place: Path, capsys, tmp_path: Path) -> None:
    code, _, err = ofa(capsys, "extract", place / "small", "--data", place / "plain", "-o", tmp_path / "again")
    assert code == 0, err
    about = read_description(tmp_path / "again")
    assert about.accuracy is not None
    assert about.accuracy.images == 80
    assert top1(capsys, tmp_path / "again") == about.accuracy.top1
