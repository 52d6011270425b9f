"""NNablaNAS's encodings: operators such as "MB6 7x7" and "XP0.8 3x3 2", and genotypes, integers that index them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from onceforall.errors import UserError
from onceforall.interop.mit import arch_dict
from onceforall.space.arch import Arch, Block, Value
from onceforall.space.rows import StageSpace
from onceforall.space.search_space import SearchSpace

_FORMS = {  # by the dimensions of a block: an operator's pattern, an example, and which counts slowest to fastest
    ("kernel", "expand"): (r"MB(?P<expand>[0-9]+) (?P<kernel>[0-9]+)x(?P=kernel)", "'MB6 7x7': expand 6, kernel 7",
                           ("expand", "kernel")),
    ("kernel", "layers", "expand"): (r"XP(?P<expand>[0-9.]+) (?P<kernel>[0-9]+)x(?P=kernel) (?P<layers>[0-9]+)",
                                     "'XP0.8 3x3 2': expand 0.8, kernel 3, two layers", ("kernel", "expand", "layers"))}


def has_operators(space: SearchSpace) -> bool:
    """Whether NNablaNAS has operators for its blocks, all of a stage alike, and nothing else is elastic but depth."""
    return space.dimensions in _FORMS and not space.widths and not any(stage.blocks for stage in space.stages)


def operators_of(space: SearchSpace) -> list[str]:
    """The space's operators, ascending, in NNablaNAS's order for MobileNetV3; an empty list where it has none."""
    if not has_operators(space):
        return []
    order = _FORMS[space.dimensions][2]
    return [_name(dict(zip(order, picks, strict=True))) for picks in product(*(_all(space, name) for name in order))]


def _all(space: SearchSpace, name: str) -> tuple[Value, ...]:
    """The choices of a dimension in the stages that have one."""
    return tuple(sorted({value for stage in space.stages for value in stage.choices.get(name, ())}))


def _name(picks: dict[str, Value]) -> str:
    word = f"{picks['expand']:g} {picks['kernel']}x{picks['kernel']}"
    return f"XP{word} {picks['layers']}" if "layers" in picks else f"MB{word}"


def parse_operator(space: SearchSpace, text: str, place: str = "operator") -> dict[str, Value]:
    """The choices that an operator's name stands for, by dimension."""
    pattern, form, _ = _FORMS[space.dimensions]
    match = re.fullmatch(pattern, text)
    if match is None:
        raise UserError(place, f"{text!r} is not an operator", f"the form is {form}")
    found: dict[str, Value] = {}
    for name in space.dimensions:
        allowed = _all(space, name)
        value = next((v for v in allowed if f"{v:g}" == match[name]), None)
        if value is None:
            raise UserError(place, f"{name} {match[name]} is not one of {', '.join(f'{v:g}' for v in allowed)}")
        found[name] = value
    return found


def restrict_to(space: SearchSpace, operators: Sequence[str], depths: Sequence[int] | None = None,
                place: str = "op_candidates") -> SearchSpace:
    """The part of `space` with these operators, which must be all combinations of some choices of each dimension."""
    if not has_operators(space):
        if operators or depths:
            raise UserError(place, f"{space.name} has no operators", "leave it out")
        return space
    blocks = [parse_operator(space, text, f"{place}[{i}]") for i, text in enumerate(operators)]
    if not blocks or any(block in blocks[:i] for i, block in enumerate(blocks)):
        raise UserError(place, "is empty or lists an operator twice")
    order = _FORMS[space.dimensions][2]
    found = {name: sorted({block[name] for block in blocks}) for name in order}
    for picks in product(*found.values()):
        wanted = dict(zip(order, picks, strict=True))
        if wanted not in blocks:
            raise UserError(place, f"lacks {_name(wanted)!r}: every kernel must come with every expand ratio"
                            + (" and number of layers" if "layers" in wanted else ""))
    return (space.restrict(depth=depths) if depths else space).restrict(**found)  # type: ignore[arg-type]


def decode(space: SearchSpace, genotype: Sequence[float] | Mapping[str, Any], *, resolution: int | None = None,
           operators: Sequence[str] | None = None, place: str = "genotype") -> Arch:
    """The sub-network of a genotype; raises UserError with the position of what is wrong.

    Of ResNet50D it may also be {"d", "e", "w"}, or a list of these three, each a value for all.
    """
    size = max(space.resolutions) if resolution is None else resolution
    if space.widths and space.dimensions == ("expand",) and (isinstance(genotype, Mapping) or len(genotype) == 3):
        values = genotype if isinstance(genotype, Mapping) else dict(zip("dew", genotype, strict=True))
        try:
            return arch_dict.decode(space, {**values, "image_size": size})
        except UserError as error:
            raise UserError(place + error.place.removeprefix("arch"), error.problem, error.remedy) from None
    if isinstance(genotype, Mapping):
        raise UserError(place, f"is an object, and {space.name} has none", "give a list of numbers")
    if not has_operators(space):
        return _of_genes(space, genotype, size, place)
    names = list(operators) if operators is not None else operators_of(space)
    blocks = [parse_operator(space, name) for name in names]
    skip = len(blocks)
    if len(genotype) != (slots := arch_dict.elastic_slots(space)):
        raise UserError(place, f"has {len(genotype)} entries; {space.name} has {slots} block slots")
    skips = "layers" not in space.dimensions  # a block of Xception is never skipped
    for i, gene in enumerate(genotype):
        if not isinstance(gene, int) or isinstance(gene, bool) or not 0 <= gene < skip + skips:
            shown = f"{skip} operators, {skip} = skip" if skips else f"{skip} operators"
            raise UserError(f"{place}[{i}]", f"{gene!r} is not an index of the operators ({shown})",
                            f"allowed: 0..{skip - 1 + skips}")
    stages, start = [], 0
    for s, stage in enumerate(space.stages):
        if not stage.elastic:
            stages.append(stage.end(-1))
            continue
        genes = genotype[start:start + max(stage.depth)]
        depth = next((i for i, gene in enumerate(genes) if gene == skip), len(genes))
        for i, gene in enumerate(genes[depth:], start=start + depth):
            if gene != skip:
                raise UserError(f"{place}[{i}]", f"{gene} follows a skip within stage {s + 1}",
                                "the skips of a stage come last")
        if depth not in stage.depth:
            raise UserError(f"{place}[{start}..{start + len(genes) - 1}]",
                            f"leaves {depth} blocks in stage {s + 1}; allowed: {', '.join(map(str, stage.depth))}")
        stages.append(tuple(stage.block(blocks[int(gene)]) for gene in genes[:depth]))
        start += len(genes)
    return space.free.check(Arch(size, tuple(stages)))


def encode(space: SearchSpace, arch: Arch, *, operators: Sequence[str] | None = None) -> list[int]:
    """The genotype of `arch`: an index of an operator for each block, len(operators) for a block that does not exist.

    Where NNablaNAS has no operators, these are the integers of `SearchSpace.encode` without the first, the resolution.
    """
    if not has_operators(space):
        return space.encode(arch)[1:]
    names = list(operators) if operators is not None else operators_of(space)
    known = [parse_operator(space, name) for name in names]
    genotype: list[int] = []
    for stage, blocks in zip(space.stages, space.free.check(arch).stages, strict=True):
        if stage.elastic:
            genotype += [_index(stage, known, block) for block in blocks]
            genotype += [len(names)] * (max(stage.depth) - len(blocks))
    return genotype


def _index(stage: StageSpace, known: Sequence[dict[str, Value]], block: Block) -> int:
    """The first operator that stands for the block."""
    for i, picks in enumerate(known):
        if stage.block(picks) == block:
            return i
    raise UserError("operators", f"none of them is {block}", "name those of the space")


def _of_genes(space: SearchSpace, genotype: Sequence[float], resolution: int, place: str) -> Arch:
    """The sub-network of indices into the space's choices, one for each but the resolution."""
    sizes = space.cardinalities[1:]
    if len(genotype) != len(sizes):
        raise UserError(place, f"has {len(genotype)} entries; {space.name} has {len(sizes)} choices")
    for i, (gene, size) in enumerate(zip(genotype, sizes, strict=True)):
        if not isinstance(gene, int) or isinstance(gene, bool) or not 0 <= gene < size:
            raise UserError(f"{place}[{i}]", f"{gene!r} is not an index of its choices", f"allowed: 0..{size - 1}")
    return space.check(space.decode([0, *map(int, genotype)]).at(resolution))
