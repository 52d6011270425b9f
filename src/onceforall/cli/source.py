"""What several verbs share: their options, SOURCE and --arch as the user gives them, the compute device, the log."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onceforall.space import CATALOG, Arch, SearchSpace, UserError

if TYPE_CHECKING:
    from onceforall.interop.config import Config
    from onceforall.nn import Subnet, Supernet
    from onceforall.train.distributed import Processes
    from onceforall.train.evaluate import Compute


ArchText = Annotated[str | None, typer.Option(help="sub-network: 224:k5e4,.. or largest, middle, smallest")]
Genotype = Annotated[str | None, typer.Option(help='sub-network as NNablaNAS\'s genotype, "5,2,9,..."')]
Resolution = Annotated[int | None, typer.Option(help="input size in pixels")]
DataName = Annotated[str | None, typer.Option(help="digits, fashion-mnist, cifar10 or a folder; the run's by default")]
Root = Annotated[str | None, typer.Option(help="where that data set's files are")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]


def is_space(source: str) -> bool:
    """Whether SOURCE names a search space of the catalogue."""
    return source.partition("?")[0] in CATALOG and not Path(source).exists()


@dataclass(frozen=True)
class Which:
    """The sub-network that --arch, --genotype and --resolution name; the largest where they name none."""

    arch: str | None
    genotype: str | None
    resolution: int | None

    def of(self, space: SearchSpace) -> Arch:
        """The sub-network of that space. Raises UserError where the options name none."""
        if self.arch is not None and self.genotype is not None:
            raise UserError("--genotype", "stands beside --arch", "give one of them")
        if self.genotype is not None:
            try:
                genes = [int(word) for word in self.genotype.replace("[", "").replace("]", "").split(",")]
            except ValueError:
                raise UserError("--genotype", f"{self.genotype!r} is not a list of integers",
                                'as "5,2,9,9,..."') from None
            found = Arch.from_genotype(space, genes)
        else:
            found = Arch.parse(space, self.arch or "largest")
        return found if self.resolution is None else space.check(found.at(self.resolution))


@dataclass(frozen=True, eq=False)
class Opened:
    """What SOURCE holds: a supernet, or one sub-network (`only`) by itself; `pictures`: what it was trained on, as
    far as it says (`mean`, `std`, `classes`)."""

    net: Supernet | Subnet
    space: SearchSpace
    only: Arch | None
    num_classes: int
    pictures: Mapping[str, Any]

    def arch(self, which: Which) -> Arch:
        """The sub-network that the options name. Raises UserError where it is not the one there is."""
        if self.only is None:
            return which.of(self.space)
        if which != Which(None, None, None) and which.of(self.space) != self.only:
            raise UserError("arch", f"{which.of(self.space)} is asked for, and there is only {self.only}",
                            "leave --arch, --genotype and --resolution out")
        return self.only


def opened(source: str) -> Opened:
    """The net in a run folder, a weights file or the folder of an extracted sub-network."""
    from onceforall.export.folder import ABOUT, load_subnet, read_about
    from onceforall.interop.weights import load, load_subnet_weights, read_attribute, weights_file

    folder = Path(source)
    if (folder / ABOUT).is_file():
        about = read_about(folder)
        space, only = SearchSpace.from_dict(about["space"]), about["arch"]
        return Opened(load_subnet(folder), space, Arch.parse(space, only), about["num_classes"],
                      about.get("preprocessing", {}))
    path = weights_file(folder)
    about = read_attribute(path)
    if about.get("kind") == "subnet":
        subnet, space, arch = load_subnet_weights(path)
        return Opened(subnet, space, arch, about["num_classes"], about["pictures"])
    net = load(path)
    return Opened(net, net.space, None, net.num_classes, about.get("pictures", {}))


def run_config(source: Path) -> tuple[Config | None, bool]:
    """The configuration beside the weights of SOURCE (None where there is none), and whether --search was given."""
    from onceforall.export.folder import ABOUT
    from onceforall.interop.config import Config
    from onceforall.interop.weights import weights_file
    from onceforall.train.checkpoint import read_extra
    from onceforall.train.run import CHECKPOINT, CONFIG

    folder = source if (source / ABOUT).is_file() else weights_file(source).parent
    search = read_extra(folder / CHECKPOINT)["options"]["search"] if (folder / CHECKPOINT).exists() else True
    return (Config.read(folder / CONFIG) if (folder / CONFIG).exists() else None), search


def compute_of(context: str, device_id: int, type_config: str, processes: Processes, *,
               option: str = "--device") -> Compute:
    """Device and precision as asked for by `option`; `auto` is the GPU where there is one."""
    import torch

    from onceforall.train.evaluate import Compute
    from onceforall.train.memory import keep_large_blocks

    types = {"float": torch.float32, "half": torch.float16, "bfloat16": torch.bfloat16}
    if type_config not in types:
        raise UserError("--type-config", f"{type_config!r} is not one of {', '.join(types)}")
    names = {"cpu": "cpu", "cudnn": "cuda", "cuda": "cuda", "auto": "cuda" if torch.cuda.is_available() else "cpu"}
    if context not in names:
        raise UserError(option, f"{context!r} is not one of {', '.join(names)}")
    if names[context] == "cpu":
        keep_large_blocks()
        if processes.local_world > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes.local_world))
        return Compute(torch.device("cpu"), types[type_config])
    if not torch.cuda.is_available():
        raise UserError(option, f"{context!r} needs a GPU, and torch sees none", f"take {option} cpu")
    # srun may show each process a single GPU of its own
    index = processes.local_rank % torch.cuda.device_count() if processes.local_world > 1 else device_id
    if index >= torch.cuda.device_count():
        raise UserError("--device-id", f"{index} is not one of the {torch.cuda.device_count()} GPUs")
    torch.cuda.set_device(index)
    return Compute(torch.device("cuda", index), types[type_config])


def log_to_stderr(processes: Processes, *, quiet: bool = False) -> None:
    """Show the library's log lines: all of the first process, warnings of the others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("onceforall")
    handler.setLevel(logging.INFO if processes.first and not quiet else logging.WARNING)
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [handler]
