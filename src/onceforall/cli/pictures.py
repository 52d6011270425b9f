"""What a verb scores, and on which pictures: those of --data, else those of the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from onceforall.cli.running import compute_of
from onceforall.cli.source import Which, arch_of, run_training
from onceforall.errors import UserError

if TYPE_CHECKING:
    from onceforall.data import DataSet, DataSpec, Known, Pictures
    from onceforall.deploy.folder import Scored
    from onceforall.space import Arch
    from onceforall.training.evaluate import Compute, Evaluator
    from onceforall.training.stage import Training
    from onceforall.weights.nets import Trained

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """SOURCE, its pictures, and how to compute, as the options of a verb name them."""

    source: str
    space: str | None = None
    data: str | None = None
    root: str | None = None
    device: str = "auto"
    workers: int | None = None
    threads: int | None = None


def scored(asked: Asked, which: Which) -> Scored:
    """Score the sub-network that `which` names.

    One of a supernet is extracted first, and its BN recalibrated, unless its stage trained it with fixed statistics.
    One that stands alone in SOURCE is left as it is.
    """
    from onceforall.deploy.folder import Scored
    from onceforall.nn import Supernet
    from onceforall.training.engine.distributed import Processes
    from onceforall.weights.nets import open_weights

    compute = compute_of(asked.device, 0, "float", Processes(), threads=asked.threads)
    trained = open_weights(asked.source, space=asked.space)
    arch, net = arch_of(trained, which), trained.net
    evaluator = evaluator_of(Path(asked.source), trained, data=asked.data, root=asked.root, compute=compute,
                             workers=asked.workers)
    show_found(evaluator.data)
    compute.place(net)
    if isinstance(net, Supernet):
        net = evaluator.subnet(net, arch, kept=_kept(Path(asked.source), arch))
    return Scored.of(evaluator, net, trained.space, arch)


def _kept(source: Path, arch: Arch) -> bool:
    """Whether SOURCE is a stage that trained the sub-network with fixed statistics."""
    try:
        training = run_training(source)
    except UserError:
        return False  # the --data given does without
    return training is not None and training.keeps(arch)


def evaluator_of(source: Path, trained: Trained, *, data: str | None, root: str | None,
                 compute: Compute, workers: int | None = None) -> Evaluator:
    """An evaluator on the data set that the options name, else on the one that SOURCE was trained on; `workers` instead
    of the processes that read pictures by default.

    Labels go by the names of the classes that the net knows. Raises UserError for a class that it does not know, and
    for a net without names that tells another number of classes apart.
    """
    from onceforall.data import BEFORE, NAMED, Depth, Known, spec_of
    from onceforall.nn import Supernet
    from onceforall.training.engine.output import check_same
    from onceforall.training.evaluate import Evaluator
    from onceforall.training.setup import data_of
    from onceforall.weights.nets import weights_file

    try:
        training = run_training(source)
    except UserError:
        if data is None:
            raise
        training = None  # the --data given does without
    if root is not None and data is None:
        raise UserError("--root", "is given without --data", f"say which data it holds: {', '.join(NAMED)}")
    if data is not None:
        spec = spec_of(data, root)
        if spec.name in ("folder", "imagenet"):
            spec = _folder(source, training, str(spec.root))
    elif training is not None:
        spec = training.data.labelled
    else:
        spec = _described(source)
    trained_on, depth = trained.pictures, None
    if "mean" in trained_on:  # what it was trained on wins; older files do not say how deep their pixels were
        depth = Depth(**trained_on["depth"]) if "depth" in trained_on else BEFORE
    known = Known(tuple(trained_on.get("classes", ())) or None, depth)
    pictures = data_of(spec, known)
    if training is not None and data is None:
        check_same(training, pictures, weights_file(source).parent)
    if isinstance(trained.net, Supernet) and (data is not None or not len(pictures.train)):
        pictures = _calibrated(pictures, source, training, known)
    _check_classes(pictures, trained, source)
    if training is None or "mean" in trained_on:  # as in training; a foreign file does not say: as both other codes do
        pictures = pictures.as_for(trained_on)
    images = 2000 if training is None else training.stage.batches.calibration
    return Evaluator(pictures, compute, calibration_images=images,
                     workers=spec.workers if workers is None else workers, strict=spec.strict)


def show_found(data: DataSet) -> None:
    """Print what was found of a data set, beside what the verb answers."""
    if data.found is not None:
        typer.echo(data.found.text(), err=True)


def _folder(source: Path, training: Training | None, folder: str) -> DataSpec:
    """The folder of --data as a data set.

    A folder without training pictures is scored alone. A folder without splits is scored as a whole, unless SOURCE was
    trained on it: then it has the test pictures of that training.
    """
    from onceforall.data import DataSpec
    from onceforall.data.sources import splits_of

    names = splits_of(folder)
    root = training.data.root if training is not None else _described_root(source)
    own = root is not None and Path(root).resolve() == Path(folder).resolve()
    return DataSpec("folder", root=folder, score_only="train" not in names and not (own and not names))


def _described_root(source: Path) -> str | None:
    try:
        return _described(source).root
    except UserError:
        return None  # nothing says


def _calibrated(pictures: DataSet, source: Path, training: Training | None, known: Known) -> DataSet:
    """The pictures, with training pictures that show all classes.

    BN is recalibrated on training pictures. Where those given lack a class that the network knows, its statistics would
    be others than in training. So the pictures of the supernet's own run take their place.
    """
    from onceforall.data.labels import absent, listed

    missing = absent(pictures.train, pictures.classes)
    if not missing:
        return pictures
    try:
        train = _calibration(source, training, known)
    except UserError:
        if not len(pictures.train):
            raise
        _log.warning("BN is recalibrated on training pictures that lack %d of the network's %d classes (%s), which "
                     "lowers its accuracy; give a folder whose train/ has all classes: the pictures of the network's "
                     "own run cannot be read", len(missing),
                     len(pictures.classes), listed(missing))
        return pictures
    if len(pictures.train):
        _log.warning("BN is recalibrated on the training pictures of the network's own run: those given lack %d of its "
                     "%d classes", len(missing), len(pictures.classes))
    return replace(pictures, train=train)


def _calibration(source: Path, training: Training | None, known: Known) -> Pictures:
    """The training pictures of a supernet's own run, to recalibrate BN on."""
    from onceforall.training.setup import data_of

    remedy = "put the pictures of the run back, or give a folder with train/"
    if training is None:
        raise UserError("--data", "has no training pictures, which BN recalibration needs, and no configuration beside "
                        "the weights names others", remedy)
    try:
        return data_of(training.data.labelled, known).train
    except UserError as error:
        raise UserError("--data", "has no training pictures, which BN recalibration needs, and the run's own cannot be "
                        f"read ({error})", remedy) from None


def _check_classes(pictures: DataSet, trained: Trained, source: Path) -> None:
    """Warn of classes without test pictures, and of a net that does not name its classes.

    Raises UserError where such a net has another number of classes than the pictures.
    """
    from onceforall.data.labels import absent, listed, warn_of_positions

    if not trained.pictures.get("classes"):
        if len(pictures.classes) != trained.num_classes:
            raise UserError(str(source), f"does not name the {trained.num_classes:,} classes that it tells apart, and "
                            f"there are pictures of {len(pictures.classes):,}", "give pictures of all its classes")
        warn_of_positions(str(source), pictures.classes)
    missing = absent(pictures.test, pictures.classes)
    if missing:
        _log.warning("no test pictures of %d of the network's %d classes: %s; the others are scored by the largest of "
                     "all its outputs", len(missing), len(pictures.classes), listed(missing))


def _described(source: Path) -> DataSpec:
    """The data set that an extracted sub-network's description names."""
    from onceforall.data import NAMED
    from onceforall.deploy.description import ABOUT, read_description
    from onceforall.weights.nets import weights_file

    folder = weights_file(source).parent
    spec = read_description(folder).data_spec() if (folder / ABOUT).exists() else None
    if spec is None:
        raise UserError("--data", f"is missing, and nothing in {folder} says which", f"give {', '.join(NAMED)} or a "
                        "folder")
    return spec
