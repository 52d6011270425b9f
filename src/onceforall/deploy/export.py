"""Export: a sub-network's folder gets a file for another runtime, which is verified before it is called done."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from onceforall.data import DataSet
from onceforall.deploy import classify
from onceforall.deploy.blocks import check_names
from onceforall.deploy.card import write_card
from onceforall.deploy.description import Description, Export, Int8, Precision, Verification, sha256
from onceforall.deploy.ends import Ends, Fed
from onceforall.deploy.folder import open_subnet
from onceforall.deploy.job import INPUT, Infer, Job
from onceforall.deploy.selftest import write_selftest
from onceforall.deploy.targets import Target, target_named
from onceforall.deploy.verify import Verifier, check, prepared
from onceforall.errors import UserError
from onceforall.files import unwritable
from onceforall.functions import Listener
from onceforall.nn import Subnet
from onceforall.nn.folding import fold

REJECTED = "rejected"
WITHOUT_VNNI = "x86 processors without VNNI (AVX2, and AVX-512 without avx512_vnni)"
_CALIBRATION_BATCH = 25


class RejectedError(UserError):
    """An export that answers otherwise than it may.

    Attributes:
        found: how it answers.
        size: of its files, in bytes.
    """

    def __init__(self, error: UserError, found: Verification, size: int) -> None:
        super().__init__(error.place, error.problem, error.remedy)
        self.found, self.size = found, size


@dataclass(frozen=True)
class Request:
    """What to write.

    Args:
        target: the name of the form, as `ofa export --to` takes it.
        precision: fp32, fp16 or int8.
        batch: pictures of one inference; 0: any number; None: what suits the target.
        threads: threads of one forward pass when latency is measured.
        calibration_images: training pictures that int8 is calibrated with.
        max_loss: points of top-1 that fp16 and int8 may lose.
        full_range: whether int8 weights have 8 bits, for processors with VNNI, and not 7, which suits all.
        keep: layers, blocks and stages that int8 leaves in float.
        pixels: whether the file takes RGB bytes (batch, height, width, 3), and normalises them itself.
        softmax: whether it gives probabilities, and not logits.
    """

    target: str
    precision: Precision = "fp32"
    batch: int | None = None
    threads: int = 1
    calibration_images: int = 300
    max_loss: float = 1.0
    full_range: bool = False
    keep: tuple[str, ...] = ()
    pixels: bool = False
    softmax: bool = False

    def check(self) -> Target:
        """The target; raises UserError where a value is none, or what it needs is not installed."""
        target = target_named(self.target, self.precision)
        limits = {"batch": (self.batch or 0, 0, 4096), "threads": (self.threads, 1, 16 * (os.cpu_count() or 1)),
                  "calibration-images": (self.calibration_images, 1, 1_000_000), "max-loss": (self.max_loss, 0, 100)}
        for name, (value, least, most) in limits.items():
            if not least <= value <= most:
                raise UserError(f"--{name}", f"{value} is not a number from {least} to {most:,}")
        for name, given in (("--full-range", self.full_range), ("--keep", bool(self.keep))):
            if given and self.precision != "int8":
                raise UserError(name, f"has no effect in {self.precision}", "it belongs to --int8")
        if self.full_range and not target.full_range:
            raise UserError("--full-range", f"is not possible: {self.target} has one form of int8, which saturates "
                            "on no processor", "leave it out")
        for name, given, able in (("--input", self.pixels, target.pixels), ("--softmax", self.softmax, target.softmax)):
            if given and not able:
                raise UserError(name, f"is not possible with {self.target}", "leave it out; model.json says what the "
                                "app has to do")
        target.batch(self.precision, self.batch)
        target.module()
        return target

    def file(self, target: Target) -> str:
        """The name of the file."""
        precision = "" if self.precision == "fp32" else f"_{self.precision}"
        return (f"model{precision}{'_full' * self.full_range}{'_uint8' * self.pixels}{'_softmax' * self.softmax}"
                f"{target.suffix}")

    def ends(self, about: Description) -> Ends:
        """What the file takes and gives."""
        return Ends(about.preprocessing.mean, about.preprocessing.std, self.pixels, self.softmax)

    @property
    def int8(self) -> Int8 | None:
        """What model.json says of its int8; None in another precision."""
        if self.precision != "int8":
            return None
        return Int8(form="full-range" if self.full_range else "portable", keep=list(self.keep),
                    may_lose_on=[WITHOUT_VNNI] if self.full_range else [])


def export(folder: Path, request: Request, data: DataSet | None = None, *,
           listener: Listener | None = None) -> dict[str, Export]:
    """Write one file into a sub-network's folder, verify it, and note it in model.json.

    Args:
        folder: an extracted sub-network's.
        request: what to write.
        data: calibrates int8 with its training pictures, and verifies with its test pictures; None: random inputs
            verify.
        listener: hears of progress.

    Returns:
        What model.json says of the file, by its name.

    Raises:
        RejectedError: the file answers otherwise than torch, and is kept in the subfolder `rejected`.
        UserError: it cannot be written; or int8 has no data; or there is no such layer to keep.
    """
    target = request.check()
    net, about = opened_subnet(folder, request)
    batch = target.batch(request.precision, request.batch)
    ends = request.ends(about)
    job = Job(fold(net), about, request.precision, batch, ends, calibration(request, data, about, batch),
              request.full_range, request.keep)
    name, rejected = request.file(target), folder / REJECTED
    with TemporaryDirectory(prefix=".export-", dir=_writable(folder)) as place, \
            TemporaryDirectory(prefix=".export-", dir=folder) as beside:
        fp32 = None
        if request.precision != "fp32":
            single = Job(fold(net), about, batch=batch, ends=ends)
            _, fp32 = _written(target, single, Path(beside) / f"model{target.suffix}", folder, request.threads)
        facts, infer = _written(target, job, Path(place) / name, folder, request.threads)
        found = Verifier(net, about, data, ends, batch, request.threads, listener)(infer, fp32)
        files = sorted(Path(place).iterdir())
        size = sum(file.stat().st_size for file in files)
        try:
            check(found, request.precision, rejected / name, max_loss=request.max_loss, full_range=request.full_range)
        except UserError as error:
            _moved(files, rejected)
            raise RejectedError(error, found, size) from None
        made = Export(
            target=request.target, precision=request.precision, batch=batch, input=INPUT, output=ends.output,
            type=ends.kind, size=size, sha256={file.name: sha256(file) for file in files},
            calibration_images=sum(map(len, job.calibration)) or None, int8=request.int8, verification=found,
            versions=target.versions(), **{"layout": ends.layout, **facts})
        _moved(files, folder)
    if target.suffix in classify.FORMS:
        copyfile(classify.__file__, folder / "classify.py")
    about = about.model_copy(update={"exports": {**about.exports, name: made}})
    about.write(folder)
    write_card(about, folder)
    if data is not None:
        write_selftest(folder, net, about, data)
    return {name: made}


def opened_subnet(folder: Path, request: Request) -> tuple[Subnet, Description]:
    """The sub-network in a folder, and what is said of it; raises UserError where it lacks a layer to be kept."""
    net, about = open_subnet(folder)
    check_names(net.plan, request.keep)
    return net, about


def _written(target: Target, job: Job, path: Path, folder: Path, threads: int) -> tuple[dict[str, Any], Infer]:
    """Write the file and open it. Returns what model.json says of it, and its function from images to logits."""
    try:
        facts: dict[str, Any] = target.module().write(job, path)
    except OSError as error:
        raise unwritable(folder, error) from None
    return facts, target.module().opened(path, threads)


def calibration(request: Request, data: DataSet | None, about: Description, batch: int) -> list[Fed]:
    """Batches of one size of training pictures for int8, as the file takes them; none for other precisions.

    Raises UserError where there are too few.
    """
    if request.precision != "int8":
        return []
    if data is None:
        raise UserError("--int8", "needs training pictures to calibrate with, and there are none", "give --data")
    size = batch or _CALIBRATION_BATCH
    chosen = data.calibration(max(size, request.calibration_images))
    feed = request.ends(about).fed
    batches = [feed(images) for images, _ in prepared(chosen, data, about.resolution, size) if len(images) == size]
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
