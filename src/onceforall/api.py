"""Training from Python: `fit`, the whole pipeline, and `train`, stages of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from onceforall.data import DataSpec, mirrored_classes
from onceforall.data.given import asked_for, give
from onceforall.functions import Listener
from onceforall.nn import Supernet
from onceforall.pretrained.reading import Pretrained, fitted
from onceforall.recipes import fit as pipeline
from onceforall.recipes.augmentation import say_augmentation
from onceforall.recipes.catalog import recipe_of
from onceforall.run import Run, check_known
from onceforall.space import SearchSpace, search_space
from onceforall.training.engine.distributed import Processes, detect, joined, wait
from onceforall.training.engine.output import check_output
from onceforall.training.engine.run import train as train_one
from onceforall.training.network import Network
from onceforall.training.recipe import RECIPE, START, Recipe
from onceforall.training.setup import Options, compute_of, data_of
from onceforall.training.stage import Stage
from onceforall.training.start import keep_start


def fit(data: Any = None, *, output: str | Path, device: str = "auto", threads: int | None = None,
        listener: Listener | None = None, **changes: Any) -> Run:
    """Train the recipe that suits some pictures, search the supernet, and save the best sub-networks.

        run = fit("pictures", output="runs/mine")

    Called again, it goes on where it stopped. It does what `ofa fit` does.

    Args:
        data: digits, fashion-mnist, cifar10, or a folder of pictures, with train/<class>/ and val/<class>/ or
            <class>/ alone; or (train, test), two map-style torch Datasets of (picture, label) without augmentation;
            or a function that returns these, as module:name; None: those of the file that `recipe` names, else the
            digits.
        output: the run's folder.
        device: cpu, cuda, or auto, the GPU where there is one.
        threads: of torch on a CPU; None: OMP_NUM_THREADS, else the free cores.
        listener: hears of progress, as mappings with a `kind`.
        changes: further fields of `onceforall.recipes.fit.Request`: root, recipe, epochs_scale, workers, budgets, seed,
            flip, balanced, and others.

    Returns:
        The handle on the run's folder.

    Raises:
        UserError: the pictures cannot be used, or the folder holds another run.
    """
    check_known(changes, pipeline.Request, "fit")
    named = data if data is None or isinstance(data, str | Path) else give(data).source
    if isinstance(changes.get("unlabelled"), Path):
        changes["unlabelled"] = str(changes["unlabelled"])
    request = pipeline.Request(None if named is None else str(named), **changes)
    with _options(device, threads, listener) as options:
        pipeline.fit(request, Path(output), options)
    return Run(output, device=device, threads=threads)


def train(net: Supernet | SearchSpace | Pretrained | str, data: Any, *,
          stages: Sequence[Stage] | Mapping[str, Stage], output: str | Path, device: str = "auto",
          threads: int | None = None, listener: Listener | None = None) -> Run:
    """Train a supernet stage by stage; each stage starts from the weights of the one before it.

        train("mobilenet_v3_large_32px?width_mult=0.5", "digits", output="runs/mine", stages={
            "full": Stage(choices={"kernel": [7], "expand": [6], "depth": [4]}, epochs=10, optimizer=Optimizer(lr=0.1)),
            "all": Stage(epochs=20, optimizer=Optimizer(lr=0.03), teacher="full", loss=Loss(kd_weight=1))})

    Called again, it goes on where it stopped.

    Args:
        net: a supernet, whose weights are the start; or what `from_pretrained` returns, which gets a new classifier for
            the pictures' classes; or a search space, or a catalogue's name of one, for random
            weights. Of a space each stage's supernet has the stage's choices only.
        data: as for `fit`, augmented as its recipe does, but not mirrored where a class may become another one, as
            digits do; or a `DataSpec`, which says it itself.
        stages: in order; of a sequence they are called stage1, stage2, and so on. A stage's teacher may be the name of
            a stage before it.
        output: the run's folder; each stage has a folder in it.
        device: cpu, cuda, or auto, the GPU where there is one.
        threads: of torch on a CPU; None: OMP_NUM_THREADS, else the free cores.
        listener: hears of progress, as mappings with a `kind`.

    Returns:
        The handle on the run's folder.

    Raises:
        UserError: the pictures cannot be used, the space lacks a choice, or the folder holds another run.
    """
    spec = data if isinstance(data, DataSpec) else _augmented(asked_for(data))
    if isinstance(stages, Stage):
        stages = [stages]
    named = dict(stages) if isinstance(stages, Mapping) else {f"stage{i}": stage for i, stage in enumerate(stages, 1)}
    folder = Path(output)
    with _options(device, threads, listener) as options:
        if isinstance(net, Pretrained):
            spec = replace(spec, mean=net.mean, std=net.std, framing=net.framing)
            net = fitted(net.net, net.net.space, max(2, len(data_of(spec).classes)))
        recipe = Recipe(data=spec, network=_first(net, spec, folder, options.processes), stages=named)
        trainings = recipe.trainings(folder)
        for name, training in trainings.items():
            check_output(training, folder / name, options)
        if options.processes.first:
            recipe.write(folder / RECIPE)
        say_augmentation(next(iter(trainings.values())), options)
        for name, training in trainings.items():
            train_one(training, folder / name, options)
    return Run(output, device=device, threads=threads)


def _first(net: Supernet | SearchSpace | str, spec: DataSpec, folder: Path, processes: Processes) -> Network:
    """The network that the first stage begins with."""
    if not isinstance(net, Supernet):
        space = search_space(net) if isinstance(net, str) else net
        return Network(space=space, num_classes=max(2, len(data_of(spec).classes)))
    if processes.first:
        keep_start(net, folder)
    wait(processes)
    norm = next(module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))
    return Network(space=net.space, num_classes=net.num_classes, dropout=net.dropout, bn_momentum=norm.momentum or 0.1,
                   bn_eps=norm.eps, weights=str(folder / START))


def _augmented(spec: DataSpec) -> DataSpec:
    """The pictures, augmented as their recipe does. They are not mirrored where that would change the class."""
    data = data_of(spec)
    augment = recipe_of(data, small=True).augment
    return replace(spec, augment=replace(augment, flip=augment.flip and not mirrored_classes(data.classes)))


@contextmanager
def _options(device: str, threads: int | None, listener: Listener | None) -> Iterator[Options]:
    """How to run: on which device, and with all processes of a launcher such as torchrun."""
    me = detect(os.environ)
    compute = compute_of(device, processes=me, threads=threads)
    with joined(me, compute.device) as together:
        yield Options(compute=compute, processes=together, listener=listener, threads=threads)
