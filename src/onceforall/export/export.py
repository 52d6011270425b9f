"""Export: a sub-network's folder gets a file for another runtime, which is verified before it is called done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from onceforall.data import DataSet
from onceforall.export import classify
from onceforall.export.card import write_card
from onceforall.export.description import Description, Export, Precision, sha256
from onceforall.export.folder import open_subnet
from onceforall.export.job import INPUT, OUTPUT, Images, Job
from onceforall.export.targets import Target, target_named
from onceforall.export.verify import Listener, Verifier, check, prepared
from onceforall.nn.folding import fold
from onceforall.space import UserError
from onceforall.space.files import unwritable

REJECTED = "rejected"
_CALIBRATION_BATCH = 25


@dataclass(frozen=True)
class Request:
    """What to write. `batch`: pictures of one inference, 0 for any, None for the target's best; `threads`: of one
    forward pass when latency is measured; `max_loss`: points of top-1 that fp16 and int8 may lose."""

    target: str
    precision: Precision = "fp32"
    batch: int | None = None
    threads: int = 1
    calibration_images: int = 300
    max_loss: float = 1.0

    def check(self) -> Target:
        """The target; raises UserError where a value is none, or what it needs is not installed."""
        target = target_named(self.target, self.precision)
        limits = {"batch": (self.batch or 0, 0, 4096), "threads": (self.threads, 1, 16 * (os.cpu_count() or 1)),
                  "calibration-images": (self.calibration_images, 1, 1_000_000), "max-loss": (self.max_loss, 0, 100)}
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise UserError(f"--{name}", f"{value} is not a number from {least} to {most:,}")
        target.batch(self.precision, self.batch)
        target.module()
        return target

    def file(self, target: Target) -> str:
        """The name of the file."""
        return f"model{'' if self.precision == 'fp32' else '_' + self.precision}{target.suffix}"


def export(folder: Path, request: Request, data: DataSet | None = None, *,
           listener: Listener | None = None) -> dict[str, Export]:
    """Write and verify one file in a sub-network's folder, note it in model.json, and give the note by its name.

    `data`: calibrates int8 with its training pictures, and verifies with its test pictures; without it random inputs
    alone verify. A file that answers otherwise than torch is kept in the subfolder `rejected`. Raises UserError for
    that, for what cannot be written, and for int8 without data.
    """
    target = request.check()
    net, about = open_subnet(folder)
    batch = target.batch(request.precision, request.batch)
    job = Job(fold(net), about, request.precision, batch, _calibration(request, data, about, batch))
    name, rejected = request.file(target), folder / REJECTED
    with TemporaryDirectory(prefix=".export-", dir=_writable(folder)) as place:
        facts = _written(target, job, Path(place) / name, folder)
        infer = target.module().opened(Path(place) / name, request.threads)
        found = Verifier(net, about, data, batch, request.threads, listener)(infer)
        files = sorted(Path(place).iterdir())
        try:
            check(found, request.precision, rejected / name, max_loss=request.max_loss)
        except UserError:
            _moved(files, rejected)
            raise
        made = Export(
            target=request.target, precision=request.precision, batch=batch, input=INPUT, output=OUTPUT,
            size=sum(file.stat().st_size for file in files), sha256={file.name: sha256(file) for file in files},
            calibration_images=sum(map(len, job.calibration)) or None, verification=found,
            versions={package: version(package) for package in target.packages or ("torch",)}, **facts)
        _moved(files, folder)
    if request.target == "onnx":
        copyfile(classify.__file__, folder / "classify.py")
    about = about.model_copy(update={"exports": {**about.exports, name: made}})
    about.write(folder)
    write_card(about, folder)
    return {name: made}


def _written(target: Target, job: Job, path: Path, folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = target.module().write(job, path)
    except OSError as error:
        raise unwritable(folder, error) from None
    return facts


def _calibration(request: Request, data: DataSet | None, about: Description, batch: int) -> list[Images]:
    """Batches of one size of training pictures, for int8."""
    if request.precision != "int8":
        return []
    if data is None:
        raise UserError("--int8", "needs training pictures to calibrate with, and there are none", "give --data")
    size = batch or _CALIBRATION_BATCH
    chosen = data.calibration(max(size, request.calibration_images))
    batches = [images for images, _ in prepared(chosen, data, about.resolution, size) if len(images) == size]
    if not batches:
        raise UserError("--int8", f"needs at least {size} training pictures to calibrate with", "give other --data")
    return batches


def _writable(folder: Path) -> Path:
    if not os.access(folder, os.W_OK):
        raise UserError(str(folder), "is not writable", "copy it elsewhere")
    return folder


def _moved(files: list[Path], folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for file in files:
        os.replace(file, folder / file.name)
