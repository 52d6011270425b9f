"""What several verbs share: their options, SOURCE and --arch as the user gives them, the compute device, the log."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onceforall.space import CATALOG, Arch, SearchSpace, UserError
from onceforall.space.errors import printable

if TYPE_CHECKING:
    from onceforall.interop.config import Config
    from onceforall.interop.weights import Trained
    from onceforall.train.distributed import Processes
    from onceforall.train.evaluate import Compute
    from onceforall.train.stop import Stop


ArchText = Annotated[str | None, typer.Option(help="sub-network: 224:k5e4,.. or largest, middle, smallest")]
Genotype = Annotated[str | None, typer.Option(help='sub-network as NNablaNAS\'s genotype, "5,2,9,..."')]
Front = Annotated[Path | None, typer.Option(help="front of `ofa search`, its folder or front.json")]
FrontRow = Annotated[int | None, typer.Option("--row", help="row of --front, from 0")]
Resolution = Annotated[int | None, typer.Option(help="input size in pixels")]
DataName = Annotated[str | None, typer.Option(help="digits, fashion-mnist, cifar10 or a folder; the run's by default")]
Root = Annotated[str | None, typer.Option(help="where that data set's files are")]
SpaceName = Annotated[str | None, typer.Option("--space", help="search space of a weights file that does not say")]
Profile = Annotated[bool, typer.Option("--profile", help="trace a few steps and time their parts, into profile/ of the "
                                       "output folder (of each stage's)")]
Every = Annotated[str | None, typer.Option("--checkpoint-every", help="minutes from one checkpoint to the next, as 10, "
                                           "or steps, as 200steps; the configuration's by default")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]


def is_space(source: str) -> bool:
    """Whether SOURCE names a search space of the catalogue."""
    return source.partition("?")[0] in CATALOG and not Path(source).exists()


@dataclass(frozen=True)
class Which:
    """The sub-network that --arch, --genotype, --front with --row, and --resolution name; the largest where they name
    none."""

    arch: str | None
    genotype: str | None
    resolution: int | None
    front: Path | None = None
    row: int | None = None

    @property
    def any(self) -> bool:
        """Whether a sub-network is named."""
        return any(value is not None for value in (self.arch, self.genotype, self.front))

    def of(self, space: SearchSpace) -> Arch:
        """The sub-network of that space. Raises UserError where the options name none."""
        given = {"--arch": self.arch, "--genotype": self.genotype, "--front": self.front}
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise UserError(names[1], f"stands beside {names[0]}", "give one of them")
        if (self.front is None) != (self.row is None):
            raise UserError("--row" if self.front is None else "--front", "is given alone", "give --front and --row")
        if self.front is not None and self.row is not None:
            from onceforall.search.record import front_arch
            found = front_arch(self.front, self.row, space)
        elif self.genotype is not None:
            try:
                genes = [int(word) for word in self.genotype.replace("[", "").replace("]", "").split(",")]
            except ValueError:
                raise UserError("--genotype", f"{self.genotype!r} is not a list of integers",
                                'as "5,2,9,9,..."') from None
            found = Arch.from_genotype(space, genes)
        else:
            found = Arch.parse(space, self.arch or "largest")
        return found if self.resolution is None else space.check(found.at(self.resolution))


def arch_of(trained: Trained, which: Which) -> Arch:
    """The sub-network that the options name; raises UserError where there is only another."""
    if trained.arch is None:
        return which.of(trained.space)
    if not which.any:
        size = trained.arch.resolution if which.resolution is None else which.resolution
        return trained.space.check(trained.arch.at(size))
    if which.of(trained.space) != trained.arch:
        raise UserError("arch", f"{which.of(trained.space)} is asked for, and there is only {trained.arch}",
                        "leave --arch, --genotype and --front out")
    return trained.arch


def run_config(source: Path) -> tuple[Config | None, bool]:
    """The configuration beside the weights of SOURCE (None where there is none), and whether --search was given."""
    from onceforall.export.elastic_file import is_elastic
    from onceforall.interop.config import Config
    from onceforall.interop.weights import weights_file
    from onceforall.train import checkpoint
    from onceforall.train.output import CONFIG, WEIGHTS

    folder = weights_file(source).parent
    if is_elastic(source) and any(folder.glob(f"*/{WEIGHTS}")):  # in a run's folder, of its widest stage
        folder = weights_file(folder).parent
    search = checkpoint.read_extra(folder).get("options", {}).get("search", True) if checkpoint.exists(folder) else True
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


def every_of(text: str | None) -> tuple[float | None, int | None] | None:
    """Minutes and steps that --checkpoint-every gives; None where it is not given."""
    if text is None:
        return None
    number = text.removesuffix("steps")
    try:
        value = int(number) if number != text else float(number)
    except ValueError:
        value = 0
    if not 0 < value <= 1e6:
        raise UserError("--checkpoint-every", f"{text!r} is neither minutes nor steps above 0", "as 10, or 200steps")
    return (None, int(value)) if number != text else (value, None)


@contextmanager
def stoppable(processes: Processes) -> Iterator[Stop]:
    """SIGTERM and Ctrl-C let what is inside save first; then the command ends with a line that says how to go on, and
    with 128 and the signal's number, as a shell has it."""
    from onceforall.train.stop import Stop, Stopped

    with Stop() as stop:
        try:
            yield stop
        except Stopped as stopped:
            if processes.first:
                typer.echo(f"ofa: {stopped}; the same command goes on from there", err=True)
            raise typer.Exit(128 + (stop.asked or signal.SIGTERM)) from None


class _Harmless(logging.Formatter):
    """Messages that no terminal obeys: names in them may come from files."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def log_to_stderr(processes: Processes, *, quiet: bool = False) -> None:
    """Show the library's log lines: all of the first process, warnings of the others."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Harmless("%(message)s"))
    logger = logging.getLogger("onceforall")
    handler.setLevel(logging.INFO if processes.first and not quiet else logging.WARNING)
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [handler]
