"""What several verbs share: their options, SOURCE and --arch as the user gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from onceforall.errors import UserError
from onceforall.space import CATALOG, Arch, SearchSpace

if TYPE_CHECKING:
    from onceforall.training.stage import Training
    from onceforall.weights.nets import Trained

T = TypeVar("T")

ArchText = Annotated[str | None, typer.Option(help="sub-network: 224:k5e4,.. or largest, middle, smallest")]
Genotype = Annotated[str | None, typer.Option(help='sub-network as NNablaNAS\'s genotype, "5,2,9,..."')]
Front = Annotated[Path | None, typer.Option(help="front of `ofa search`, its folder or front.json")]
FrontRow = Annotated[int | None, typer.Option("--row", help="row of --front, from 0")]
Resolution = Annotated[int | None, typer.Option(help="input size in pixels")]
DataName = Annotated[str | None, typer.Option(help="digits, fashion-mnist, cifar10 or a folder; the run's by default")]
Root = Annotated[str | None, typer.Option(help="where that data set's files are")]
SpaceName = Annotated[str | None, typer.Option("--space", help="search space of a weights file that does not say")]
Workers = Annotated[int | None, typer.Option(min=0, max=512, help="processes that read picture files; by default one "
                                             "a core but one, at most 16")]
Cache = Annotated[str | None, typer.Option(help="disk for shrunk copies of large training pictures, as 500M; 0 trains "
                                           "on the files themselves; 20G by default")]
Json = Annotated[bool, typer.Option("--json", help="print JSON only")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]


def sizes_of(text: str, option: str = "--resolutions") -> tuple[int, ...]:
    """The input sizes that an option lists."""
    return numbers_of(option, text, int, what="sizes", example="160,176")


def numbers_of(option: str, text: str, kind: Callable[[str], T], *, what: str, example: str) -> tuple[T, ...]:
    """The numbers that an option lists, with commas between; `what` and `example` are for its error."""
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        raise UserError(option, f"{text!r} is not a list of {what}", f"as {example}") from None


def bytes_of(option: str, text: str) -> int:
    """The bytes that an option gives as a number, with K, M or G behind it for powers of 1024."""
    number = text.upper().removesuffix("B")
    scale = 1024 ** ("KMG".find(number[-1:]) + 1) if number else 1
    try:
        value = float(number[:-1] if scale > 1 else number) * scale
    except ValueError:
        value = -1
    if not 0 <= value < 2**63:
        raise UserError(option, f"{text!r} is no size", "as 20G, 500M, or 0")
    return int(value)


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
            from onceforall.searching.record import front_arch
            found = front_arch(self.front, self.row, space)
        elif self.genotype is not None:
            words = [word.strip() for word in self.genotype.strip(" []").split(",")]
            if not all(word.isascii() and word.isdecimal() for word in words):
                raise UserError("--genotype", f"{self.genotype!r} is not a list of integers", 'as "5,2,9,9,..."')
            found = Arch.from_genotype(space, [int(word) for word in words])
        else:
            found = Arch.parse(space, self.arch or "largest")
        return found if self.resolution is None else space.free.check(found.at(self.resolution))


def arch_of(trained: Trained, which: Which) -> Arch:
    """The sub-network that the options name; raises UserError where SOURCE holds only another one."""
    if trained.arch is None:
        return which.of(trained.space)
    if not which.any:
        size = trained.arch.resolution if which.resolution is None else which.resolution
        return trained.space.check(trained.arch.at(size))
    if which.of(trained.space) != trained.arch:
        raise UserError("arch", f"{which.of(trained.space)} is asked for, and there is only {trained.arch}",
                        "leave --arch, --genotype and --front out")
    return trained.arch


def run_training(source: Path) -> Training | None:
    """What the run beside the weights of SOURCE trained; None where there is no run."""
    from onceforall.deploy.elastic_file import is_elastic
    from onceforall.training.engine.places import CONFIG, read_run
    from onceforall.weights.nets import stages_in, weights_file

    folder = weights_file(source).parent
    if is_elastic(source) and stages_in(folder):  # in a run's folder, of its widest stage
        folder = weights_file(folder).parent
    return read_run(folder) if (folder / CONFIG).exists() else None
