"""Setup: from the settings of a run to what the loop needs: data, net, teacher, optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from onceforall.data import NOTHING, Augment, DataSet, DataSpec, Known, load_data
from onceforall.data.given import given_now
from onceforall.data.labels import listed
from onceforall.errors import UserError
from onceforall.functions import Listener, function_of
from onceforall.nn import Subnet, Supernet, extract, sort_channels, take_norms
from onceforall.nn.folding import fold
from onceforall.space import SearchSpace
from onceforall.training.engine.distributed import Processes
from onceforall.training.engine.memory import keep_large_blocks
from onceforall.training.engine.stop import Stop
from onceforall.training.engine.threads import choose_threads
from onceforall.training.evaluate import Compute, Evaluator
from onceforall.training.loop import Learner
from onceforall.training.network import Network, Teacher
from onceforall.training.stage import Training
from onceforall.training.start import filled, subnet_of, supernet_of
from onceforall.weights.nets import classes_of, space_of


@dataclass(frozen=True)
class Options:
    """How to run, apart from what is trained.

    Args:
        compute: the device and the precision.
        processes: all processes of the run.
        listener: hears of progress.
        profile: whether a few steps are traced and timed.
        every: minutes, and steps, from one checkpoint to the next; None: as the settings say.
        stop: asks the run to save and end.
        threads: of torch, as the user asks; None: those that a run began with.
        notes: lines that the log begins with.
    """

    compute: Compute = field(default_factory=Compute)
    processes: Processes = field(default_factory=Processes)
    listener: Listener | None = None
    profile: bool = False
    every: tuple[float | None, int | None] | None = None
    stop: Stop = field(default_factory=Stop)
    threads: int | None = None
    notes: tuple[str, ...] = ()


def compute_of(device: str = "auto", *, device_id: int = 0, precision: str = "float",
               processes: Processes | None = None, option: str = "device", threads: int | None = None) -> Compute:
    """Where and how precisely to compute; torch's threads are set on the way.

    Args:
        device: cpu, cuda, or auto, the GPU where there is one.
        device_id: which GPU, of one process.
        precision: float, half or bfloat16.
        processes: the processes of the run.
        option: what an error calls `device`.
        threads: of torch on a CPU; None: OMP_NUM_THREADS, else this process's share of the free cores.

    Raises:
        UserError: there is no such device or precision.
    """
    me = processes or Processes()
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UserError("threads", f"{threads!r} is not a number from 1")
    types = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}
    if precision not in types:
        raise UserError("--type-config", f"{precision!r} is not one of {', '.join(types)}")
    names = {"cpu": "cpu", "cudnn": "cuda", "cuda": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}
    if device not in names:
        raise UserError(option, f"{device!r} is not one of {', '.join(names)}")
    if names[device] == "cpu" or threads is not None:
        choose_threads(threads, me)
    if names[device] == "cpu":
        keep_large_blocks()
        return Compute(torch.device("cpu"), types[precision])
    if not torch.cuda.is_available():
        raise UserError(option, f"{device!r} needs a GPU, and torch sees none", f"take {option} cpu")
    # srun may show each process a single GPU of its own
    index = me.local_rank % torch.cuda.device_count() if me.local_world > 1 else device_id
    if index >= torch.cuda.device_count():
        raise UserError("--device-id", f"{index} is not one of the {torch.cuda.device_count()} GPUs")
    torch.cuda.set_device(index)
    return Compute(torch.device("cuda", index), types[precision])


def data_of(spec: DataSpec, known: Known = NOTHING) -> DataSet:
    """`load_data`, which keeps the last data set asked for, so that one stage after another decodes it once."""
    spec = replace(spec, augment=Augment(), workers=None, cache=0)  # none matters before batches are made
    key = spec, given_now(spec)
    if key not in _kept:
        _kept.clear()
    kept = _kept.setdefault(key, {})
    if known not in kept:
        data = load_data(spec, known)
        kept |= {known: data, Known(known.classes, data.depth): data}
        if known.classes is None:
            kept |= {Known(data.classes, known.depth): data, Known(data.classes, data.depth): data}
    return kept[known]


_kept: dict[tuple[DataSpec, object], dict[Known, DataSet]] = {}  # of one specification


def check_classes(data: DataSet, num_classes: int) -> None:
    """Raise UserError where the data has more classes than the network tells apart."""
    if len(data.classes) > num_classes:
        raise UserError("network.num_classes", f"{num_classes} is fewer than the {len(data.classes)} classes of the "
                        "data", f"give {len(data.classes)}, or other data")


def announce(data: DataSet, options: Options) -> None:
    """Let the run's listener hear what was found of the data set."""
    if options.listener is not None and data.found is not None:
        options.listener({"kind": "note", "text": data.found.text()})


def check_trainable(data: DataSet) -> None:
    """Raise UserError for pictures that nothing can be learned from, or tested on, before anything is trained."""
    spec = data.spec
    place = "the pictures" if spec is None else spec.place
    labels = sorted(set(data.train.labels.tolist()))
    if len(labels) < 2:
        named = data.classes[labels[0]] if labels else "none"
        raise UserError(place, f"has pictures of one class only, {named}", "give at least two: a folder for each class")
    if not len(data.test):
        raise UserError(place, "has no more than one picture of each class, so that none is left to test on",
                        "add pictures: at least three of each class, or a folder val/")


def learner_of(training: Training, options: Options, evaluator: Evaluator) -> Learner:
    """The net at the start of a stage, a supernet or one sub-network, and what trains it."""
    compute = options.compute
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.dtype == torch.float16)
    teacher = teacher_of(training, compute, evaluator.data.classes)
    if training.network.subnet is None:
        supernet = supernet_of(training)
        _sort(training, supernet, evaluator)
        compute.place(supernet)
        if training.stage.bn == "measured":
            take_norms(supernet, evaluator.subnet(supernet, training.part.largest))
        optimizer = training.stage.optimizer.over(supernet)
        return Learner(supernet, supernet, optimizer, teacher, compute, scaler, options.processes)
    subnet = subnet_of(training, evaluator)
    optimizer = training.stage.optimizer.over(subnet)
    return Learner(subnet, lambda images, _: subnet(images), optimizer, teacher, compute, scaler,
                   options.processes)


def teacher_of(training: Training, compute: Compute, classes: tuple[str, ...]) -> nn.Module | None:
    """The trained network that teaches, without gradients; None where nothing is distilled.

    Raises:
        UserError: its weights name other `classes` than those of the pictures, or a module of the user's own does not
            give logits for them.
    """
    given = training.teacher
    if given is None:
        return None
    if given.network is not None:
        largest = _largest(given.network, classes)
        compute.place(largest)
        largest.requires_grad_(False).train(given.batch_statistics)
        return largest if given.batch_statistics else fold(largest)
    teacher = _own_teacher(given)
    compute.place(teacher)
    _check_logits(teacher.requires_grad_(False).eval(), training, compute)
    for module in teacher.modules():
        if isinstance(module, _BatchNorm):
            module.train(given.batch_statistics)
    return teacher


def _own_teacher(given: Teacher) -> nn.Module:
    assert given.module is not None  # of one of the two kinds
    made = function_of(given.module, {}, place="stage.teacher.module")
    module = made if isinstance(made, nn.Module) else made()
    if not isinstance(module, nn.Module):
        raise UserError("stage.teacher.module", f"returns a {type(module).__name__}", "return a torch.nn.Module")
    return module


def _check_logits(teacher: nn.Module, training: Training, compute: Compute) -> None:
    """Raise UserError where a module does not give logits (2, K) for two grey pictures; it is in evaluation mode."""
    size, place = min(training.part.resolutions), "stage.teacher.module"
    wanted = (2, training.network.num_classes)
    images = torch.zeros(2, training.network.space.in_channels, size, size, device=compute.device)
    try:
        with torch.no_grad():
            found: object = teacher(images)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(place, f"cannot take pictures of {size} pixels ({str(error).splitlines()[0]})",
                        "let it take every size that is trained at") from None
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != wanted:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
        raise UserError(place, f"gives {shape} for two pictures of {size} pixels", f"give logits {wanted}")


def _largest(network: Network, classes: tuple[str, ...]) -> Subnet:
    """The largest sub-network of a teacher's supernet."""
    place = "stage.teacher.network"
    told = classes_of(Path(network.weights)) if network.weights else None
    if told is not None and told != classes:
        raise UserError(f"{place}.weights", f"is of a network for {listed(told)}, and the pictures are "
                        f"of {listed(classes)}", "teacher and student need the same classes in the same order")
    net = filled(network, network.space, place=place)
    return extract(net, net.space.largest)


def _sort(training: Training, supernet: Supernet, evaluator: Evaluator) -> None:
    """Sort channels where the stage asks for it."""
    weights, sort, space = training.network.weights, training.stage.sort, supernet.space
    if not weights or sort == "none":
        return
    if sort == "all":
        sort_channels(supernet, space.top)
        return
    if sort == "pictures":
        evaluator.compute.place(supernet)
        largest = space.free.largest
        spread = evaluator.input_spread(evaluator.subnet(supernet, largest), largest.resolution)
        sort_channels(supernet, space.top, spread=spread)
        return
    before = space_of(Path(weights))
    sort_channels(supernet, _phase_before(space) if before is None else space.common(before),
                  keep_squeeze=sort == "bands")


def _phase_before(space: SearchSpace) -> SearchSpace:
    """What weights that do not say it are taken to be trained in: all expand ratios but the smallest."""
    ratios = [stage.choices.get("expand", ()) for stage in space.stages]
    return space.each("expand", [values[1:] or values for values in ratios])
