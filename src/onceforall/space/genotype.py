"""NNablaNAS's encodings: operators such as "MB6 7x7" and genotypes, integers that index them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from onceforall.space.arch import Arch, Block
from onceforall.space.errors import UserError
from onceforall.space.search_space import SearchSpace


def operator_name(block: Block) -> str:
    """`MB6 7x7` for kernel 7, expand 6."""
    return f"MB{block['expand']:g} {block['kernel']}x{block['kernel']}"


def parse_operator(text: str, place: str = "operator") -> Block:
    """The block choices that an operator's name stands for."""
    match = re.fullmatch(r"MB([0-9]+) ([0-9]+)x\2", text)
    if match is None:
        raise UserError(place, f"{text!r} is not an operator", "the form is 'MB6 7x7': expand 6, kernel 7")
    return Block((("kernel", int(match[2])), ("expand", int(match[1]))))


def operators_of(space: SearchSpace) -> list[str]:
    """The space's operators as NNablaNAS lists them: expand slowest, kernel fastest, ascending."""
    choices = space.stages[0].choices
    return [f"MB{e:g} {k}x{k}" for e in choices["expand"] for k in choices["kernel"]]


def restrict_to(space: SearchSpace, operators: Sequence[str], depths: Sequence[int] | None = None,
                place: str = "op_candidates") -> SearchSpace:
    """The part of `space` with these operators, which must be all pairs of some kernels and some expands."""
    blocks = [parse_operator(text, f"{place}[{i}]") for i, text in enumerate(operators)]
    if len(set(blocks)) != len(blocks) or not blocks:
        raise UserError(place, "is empty or lists an operator twice")
    kernels, expands = ({block[name] for block in blocks} for name in ("kernel", "expand"))
    for name, found in (("kernel", kernels), ("expand", expands)):
        allowed = space.stages[0].choices[name]
        wrong = sorted(found - set(allowed))
        if wrong:
            raise UserError(place, f"{name} {wrong[0]} is not one of {', '.join(map(str, allowed))}")
    if len(blocks) != len(kernels) * len(expands):
        missing = next(f"MB{e} {k}x{k}" for e in sorted(expands) for k in sorted(kernels)
                       if Block((("kernel", k), ("expand", e))) not in blocks)
        raise UserError(place, f"lacks {missing!r}: every kernel must come with every expand ratio")
    return space.restrict(depth=depths, kernel=tuple(kernels), expand=tuple(expands))


def decode(space: SearchSpace, genotype: Sequence[int], *, resolution: int | None = None,
           operators: Sequence[str] | None = None, place: str = "genotype") -> Arch:
    """The sub-network of a genotype; raises UserError with the position of what is wrong."""
    names = list(operators) if operators is not None else operators_of(space)
    blocks = [parse_operator(name) for name in names]
    skip = len(blocks)
    if len(genotype) != space.slots:
        raise UserError(place, f"has {len(genotype)} entries; {space.name} has {space.slots} block slots")
    for i, gene in enumerate(genotype):
        if not isinstance(gene, int) or isinstance(gene, bool) or not 0 <= gene <= skip:
            raise UserError(f"{place}[{i}]", f"{gene!r} is not an index of the operators ({skip} operators, "
                            f"{skip} = skip)", f"allowed: 0..{skip}")
    stages, start = [], 0
    for s, stage in enumerate(space.stages):
        slots = genotype[start:start + max(stage.depth)]
        depth = next((i for i, gene in enumerate(slots) if gene == skip), len(slots))
        for i, gene in enumerate(slots[depth:], start=start + depth):
            if gene != skip:
                raise UserError(f"{place}[{i}]", f"{gene} follows a skip within stage {s + 1}",
                                "the skips of a stage come last")
        if depth not in stage.depth:
            raise UserError(f"{place}[{start}..{start + len(slots) - 1}]",
                            f"leaves {depth} blocks in stage {s + 1}; allowed: {', '.join(map(str, stage.depth))}")
        stages.append(tuple(blocks[gene] for gene in slots[:depth]))
        start += len(slots)
    return space.check(Arch(max(space.resolutions) if resolution is None else resolution, tuple(stages)))


def encode(space: SearchSpace, arch: Arch, *, operators: Sequence[str] | None = None) -> list[int]:
    """The genotype of `arch`: operator indices, len(operators) for a block that does not exist."""
    names = list(operators) if operators is not None else operators_of(space)
    genotype: list[int] = []
    for stage, blocks in zip(space.stages, space.check(arch).stages, strict=True):
        genotype += [names.index(operator_name(block)) for block in blocks]
        genotype += [len(names)] * (max(stage.depth) - len(blocks))
    return genotype
