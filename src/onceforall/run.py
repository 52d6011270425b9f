"""Run: the handle on a run's folder, with which the trained supernet is searched, extracted from and timed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from onceforall.data import BEFORE, Depth, Known
from onceforall.data.given import asked_for
from onceforall.deploy import export
from onceforall.deploy.description import Description, Export
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.errors import UserError
from onceforall.functions import Listener
from onceforall.latency.job import Job, Settings
from onceforall.latency.measure import profile
from onceforall.latency.table import LatencyTable
from onceforall.nn import Subnet, Supernet
from onceforall.searching.record import Record
from onceforall.searching.score import Scorer
from onceforall.searching.search import Request, search
from onceforall.space import Arch, SearchSpace
from onceforall.training.engine.output import check_same
from onceforall.training.engine.places import CONFIG, read_run
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.training.recipe import RECIPE, Recipe
from onceforall.training.setup import compute_of, data_of
from onceforall.training.stage import Training
from onceforall.weights.nets import Trained, open_weights, stages_in, weights_file

SEARCH = "search"


@dataclass(eq=False)
class Chosen:
    """One sub-network of a run, as plain torch layers, with its BN recalibrated; `folder`: where it was saved last."""

    scored: Scored
    source: Path
    folder: Path | None = None

    @property
    def net(self) -> Subnet:
        """The module: images (B, 3, R, R), normalised, to logits (B, K)."""
        return self.scored.net

    @property
    def arch(self) -> Arch:
        """Which sub-network it is."""
        return self.scored.arch

    @property
    def top1(self) -> float:
        """Its accuracy on the run's test pictures, in [0, 1]."""
        return self.scored.score.top1

    def save(self, folder: str | Path) -> Description:
        """Write weights, description and card into a folder, from which `onceforall.load_subnet` reads it.

        Returns:
            What model.json says.

        Raises:
            UserError: the folder cannot be written.
        """
        self.folder = Path(folder)
        return save_subnet(self.scored.extracted, self.folder, source=self.source)

    def export(self, to: Sequence[str] = ("onnx",), *, precision: str = "fp32", **changes: Any) -> dict[str, Export]:
        """Write files for other runtimes into the folder where it was saved; each is compared with torch first.

        Args:
            to: targets, as `ofa export --to` names them.
            precision: fp32, fp16 or int8.
            changes: further fields of `onceforall.deploy.export.Request`, such as `max_loss`.

        Returns:
            What model.json says of each file, by its name.

        Raises:
            UserError: it was not saved, a package is missing, or a file answers otherwise than torch.
        """
        if self.folder is None:
            raise UserError("export", "has no folder to write into", "save the sub-network first")
        check_known(changes, export.Request, "export")
        folder = self.folder
        requests = [export.Request(target, precision, **changes) for target in to]  # type: ignore[arg-type]
        for request in requests:
            request.check()
        return {name: made for request in requests
                for name, made in export.export(folder, request, self.scored.data).items()}


class Run:
    """What `fit` or `train` left in a folder.

        run = Run("runs/mine")
        front = run.search(max_macs=5e6)
        run.extract(front.best(macs=3e6).arch).save("subnet")
    """

    def __init__(self, folder: str | Path, *, data: Any = None, device: str = "auto",
                 threads: int | None = None) -> None:
        """Args:
            folder: a run's folder, or one stage's.
            data: other pictures than those of the run, as `fit` takes them; or those of the run, where they were given
                from Python to another process.
            device: cpu, cuda, or auto, the GPU where there is one.
            threads: of torch on a CPU; None: OMP_NUM_THREADS, else the free cores.

        Raises:
            UserError: the folder holds no trained weights.
        """
        self.folder = Path(folder)
        weights = weights_file(self.folder)
        last = self.folder / next(reversed(self.stages), "")  # of stages that are equally wide
        self.weights = weights_file(last) if self.stages and weights.parent != self.folder else weights
        self._data = None if data is None else asked_for(data)
        self._device, self._threads = device, threads

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def stages(self) -> dict[str, Training]:
        """What each stage trained, by its folder's name, in order of training."""
        if (self.folder / CONFIG).exists():
            return {self.folder.name: read_run(self.folder)}
        left = {path.parent.name: read_run(path.parent) for path in stages_in(self.folder)
                if (path.parent / CONFIG).exists()}
        out: dict[str, Training] = {}
        while left:  # next is a stage whose weights are of none that is left
            name = next((name for name, training in left.items()
                         if training.network.weights is None
                         or Path(training.network.weights).parent.name not in left), next(iter(left)))
            out[name] = left.pop(name)
        return out

    @property
    def recipe(self) -> Recipe:
        """What `fit` or `train` was asked for; raises UserError for a run of an older version, or of one stage."""
        return Recipe.read(self.folder / RECIPE)

    @cached_property
    def training(self) -> Training:
        """What the stage trained whose weights are used; raises UserError where nothing says."""
        if not (self.weights.parent / CONFIG).exists():
            raise UserError(str(self.folder), f"has no {CONFIG} beside {self.weights.name}", "give a run's folder")
        return read_run(self.weights.parent)

    @cached_property
    def _trained(self) -> Trained:
        trained = open_weights(self.weights)
        self._compute.place(trained.net)
        return trained

    @property
    def net(self) -> Supernet | Subnet:
        """The trained supernet; of a sub-network's own training that sub-network."""
        return self._trained.net

    @property
    def space(self) -> SearchSpace:
        """The supernet's search space."""
        return self._trained.space

    @cached_property
    def _compute(self) -> Compute:
        return compute_of(self._device, threads=self._threads)

    @cached_property
    def evaluator(self) -> Evaluator:
        """Scores sub-networks on the pictures of the run, after recalibrating their BN; see `Evaluator`."""
        facts, training = self._trained.pictures, self.training
        depth = Depth(**facts["depth"]) if "depth" in facts else BEFORE
        spec, given = training.data.labelled, self._data
        if given is not None:  # how they are split and read stays
            spec = spec.with_pictures_of(given)
        data = data_of(spec, Known(tuple(facts.get("classes", ())) or None, depth))
        if given is None:
            check_same(training, data, self.weights.parent)
        if "mean" in facts:  # as in training
            data = data.as_for(facts)
        return Evaluator(data, self._compute, calibration_images=training.stage.batches.calibration,
                         workers=training.data.workers, strict=training.data.strict)

    def search(self, *, max_macs: float | None = None, max_params: float | None = None,
               max_memory: float | None = None, max_latency_ms: float | None = None,
               listener: Listener | None = None, **changes: Any) -> Record:
        """The Pareto front of the supernet, found without training; front.json is written into the run's folder.

        Args:
            max_macs: limit on multiply-accumulates.
            max_params: limit on parameters.
            max_memory: limit on peak activation memory, bytes.
            max_latency_ms: limit on latency, with one table.
            listener: hears of progress.
            changes: further fields of `onceforall.searching.search.Request`: `tables`, by the device's name, as
                `profile` returns them; `objectives`, `resolutions`, `plan`, `evolution`, `measure` and others.

        Returns:
            The front, ascending by accuracy. What was measured is kept, and not measured again.

        Raises:
            UserError: nothing keeps the limits, or the run is of a single sub-network.
        """
        net = self.net
        if not isinstance(net, Supernet):
            raise UserError(str(self.folder), "holds a single sub-network: there is nothing to search",
                            "give a supernet's run")
        check_known(changes, Request, "search")
        limits = {"macs": max_macs, "params": max_params, "memory": max_memory, "latency_ms": max_latency_ms}
        request = Request(limits={name: most for name, most in limits.items() if most is not None}, **changes)
        scorer = Scorer(net, self.evaluator, self.folder / SEARCH, listener=listener)
        record = search(self.space, request, num_classes=net.num_classes, scorer=scorer, listener=listener)
        record.write(self.folder / SEARCH)
        return record

    def extract(self, arch: Arch | str = "largest") -> Chosen:
        """One sub-network as plain torch layers, its BN recalibrated on the run's training pictures, and scored.

        The network that a stage trained with fixed statistics (`bn` kept or measured) has those.

        Args:
            arch: which one; as text also largest, middle or smallest.

        Raises:
            UserError: the space has no such sub-network.
        """
        net, space = self.net, self.space
        if isinstance(net, Subnet):
            known = self._trained.arch
            assert known is not None  # a file of a sub-network says which
            return Chosen(Scored.of(self.evaluator, net, space, known), self.weights)
        found = space.free.check(Arch.parse(space, arch) if isinstance(arch, str) else arch)
        subnet = self.evaluator.subnet(net, found, kept=self.training.keeps(found))
        return Chosen(Scored.of(self.evaluator, subnet, space, found), self.weights)

    def profile(self, output: str | Path | None = None, *, backend: str = "onnxruntime",
                **changes: Any) -> LatencyTable:
        """Time every part of the space on this machine, and hold the sums to whole sub-networks.

        Args:
            output: the table's file, .json or .csv; latency-BACKEND.json in the run's folder by default.
            backend: onnxruntime, openvino or torch.
            changes: further fields of `onceforall.latency.job.Settings`, such as `threads`.

        Returns:
            The table; latency in ms.
        """
        check_known(changes, Settings, "profile")
        job = Job(self.space, self._trained.num_classes, Settings(backend, **changes))
        return profile(job, Path(output or self.folder / f"latency-{backend}.json"))


def check_known(changes: Mapping[str, Any], taken: Any, what: str) -> None:
    """Raise UserError for an argument that the dataclass does not take."""
    for name in changes:
        if name not in taken.__dataclass_fields__:
            raise UserError(name, f"is no argument of {what}", f"known: {', '.join(taken.__dataclass_fields__)}")
