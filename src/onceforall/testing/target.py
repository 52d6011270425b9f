"""What every export target has to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from onceforall.data import ArrayPictures, DataSet
from onceforall.deploy.description import WEIGHTS, read_description
from onceforall.deploy.export import Request, export
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.deploy.targets import TARGETS
from onceforall.nn import Supernet
from onceforall.space import search_space
from onceforall.space.rows import Padding
from onceforall.training.evaluate import Evaluator
from onceforall.weights.nets import Trained, save

PICTURES = 60


def check_target(name: str, *, precisions: Sequence[str] | None = None) -> None:
    """Check a target that is registered in `TARGETS`.

    A small sub-network with random weights is exported, opened again, and verified against torch on random inputs and
    pictures. In the first precision so is one with TensorFlow's padding, at an odd size, which takes bytes and gives
    probabilities where the target can. int8 is calibrated on random pictures. What a precision loses in accuracy is not
    judged.

    Args:
        name: of the target.
        precisions: those to check; by default all that it has.

    Raises:
        UserError: a package is missing, or a file answers otherwise than torch.
        AssertionError: another rule does not hold; the message says which.
    """
    target = TARGETS[name]
    assert target.precisions, "a target has at least one precision"
    wanted = precisions or target.precisions
    for padding, size, some, ends in (("centre", 16, wanted, False), ("same", 21, wanted[:1], True)):
        with TemporaryDirectory() as place:
            folder = Path(place) / "subnet"
            data = _small(folder, padding, size)  # type: ignore[arg-type]
            for precision in some:
                request = Request(name, precision, max_loss=100, calibration_images=PICTURES,  # type: ignore[arg-type]
                                  pixels=ends and target.pixels, softmax=ends and target.softmax)
                made = export(folder, request, data)
                file = request.file(target)
                assert list(made) == [file], "an export is known by its file's name"
                assert (folder / file).exists(), "`write` writes the file that it is given"
                assert read_description(folder).exports[file] == made[file], "model.json says what was exported"
                found = made[file].verification
                assert found.pictures is not None, "the test pictures verify"
                assert found.pictures.images == len(data.test), "all test pictures verify"


def _small(folder: Path, padding: Padding, size: int) -> DataSet:
    """A sub-network of two blocks in a folder, and random pictures that go with it, of `size` pixels."""
    table = search_space("mobilenet_v3_large_32px", width_mult=0.25)
    space = replace(table, name="two_blocks", resolutions=(size,), padding=padding, stages=tuple(
        replace(table.stages[i], depth=(1, 2)) for i in (0, 1)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (PICTURES, 3, size, size), dtype=torch.uint8, generator=generator)
    pictures = ArrayPictures(images, torch.arange(PICTURES) % 3)
    data = DataSet(pictures, pictures.subset([]), pictures, ("a", "b", "c"), (0.5,) * 3, (0.25,) * 3)
    net = Supernet(space, num_classes=3, generator=generator).eval()
    source = folder.parent / WEIGHTS
    save(Trained(net, space), source)
    evaluator = Evaluator(data)
    subnet = evaluator.subnet(net, space.smallest)
    save_subnet(Scored.of(evaluator, subnet, space, space.smallest).extracted, folder, source=source)
    return data
