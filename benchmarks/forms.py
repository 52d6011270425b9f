"""One trained run scored on the same pictures by name and as a folder of PNG files: the scores must be equal.

    python benchmarks/forms.py runs/digits digits
    python benchmarks/forms.py runs/fashion fashion-mnist --folder fashion-png

The folder is written first, and kept where --folder names it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from onceforall.cli.pictures import evaluator_of
from onceforall.data import ArrayPictures, DataSpec, load_data
from onceforall.nn import Supernet
from onceforall.training.evaluate import Compute, Score
from onceforall.weights.nets import open_weights


def write(name: str, folder: Path) -> None:
    """Write a data set by name as train/<class>/NNNNN.png and val/<class>/NNNNN.png.

    The numbers count the pictures of a split, so that the files of a class keep its order.
    """
    data = load_data(DataSpec(name, train_portion=1.0))
    for split, pictures in (("train", data.train), ("val", data.test)):
        assert isinstance(pictures, ArrayPictures)
        folders = [folder / split / name.replace("/", "_") for name in data.classes]
        for place in folders:
            place.mkdir(parents=True, exist_ok=True)
        for i, (image, label) in enumerate(zip(pictures.images, pictures.labels.tolist(), strict=True)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folders[label] / f"{i:05d}.png")


def scores(run: Path, data: str) -> dict[str, Score]:
    """The smallest, middle and largest sub-network of a run on the test pictures of `data`."""
    trained = open_weights(run)
    assert isinstance(trained.net, Supernet)
    evaluator = evaluator_of(run, trained, data=data, root=None, compute=Compute())
    space = trained.space
    archs = {"smallest": space.smallest, "middle": space.middle, "largest": space.largest}
    return {name: evaluator.score(trained.net, arch, evaluator.data.test) for name, arch in archs.items()}


def compare(run: Path, name: str, folder: Path) -> bool:
    """Print both scores of each sub-network, and say whether all are equal."""
    if not (folder / "train").exists():
        write(name, folder)
    by_name, in_folder = scores(run, name), scores(run, str(folder))
    print(f"{'':10} {name:>20} {'folder of PNG files':>20}")
    for which, one in by_name.items():
        print(f"{which:10} {100 * one.top1:18.4f} % {100 * in_folder[which].top1:18.4f} %  "
              f"of {one.images:,} and {in_folder[which].images:,} pictures")
    return all((one.top1, one.top5, one.images) == (other.top1, other.top5, other.images)
               for one, other in zip(by_name.values(), in_folder.values(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", choices=("digits", "fashion-mnist"))
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with TemporaryDirectory() as place:
        equal = compare(arguments.run, arguments.data, arguments.folder or Path(place))
    sys.exit(0 if equal else "the scores differ")


if __name__ == "__main__":
    main()
