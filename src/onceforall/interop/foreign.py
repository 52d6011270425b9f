"""A sub-network in the forms of other projects, as fronts and descriptions carry them in their field `foreign`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onceforall.errors import UserError
from onceforall.interop.nnabla import genotype
from onceforall.space.arch import Arch
from onceforall.space.search_space import SearchSpace

NNABLA, GENOTYPE = "nnablanas", "genotype"


def forms(space: SearchSpace, arch: Arch) -> dict[str, dict[str, Any]]:
    """The forms of the projects that have a word for every choice of the space, by the project's name."""
    return {NNABLA: {GENOTYPE: genotype.encode(space, arch)}} if genotype.has_operators(space) else {}


def check(space: SearchSpace, arch: Arch, values: Mapping[str, Any]) -> None:
    """Raise UserError where one of the `forms` that are given is of another sub-network."""
    said = values.get(NNABLA, {})
    if isinstance(said, Mapping) and said.get(GENOTYPE, wanted := genotype.encode(space, arch)) != wanted:
        raise UserError("arch", f"{arch} is not what the genotype beside it says")


def renewed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an older version in today's form. They had the genotype as a key of their own."""
    if GENOTYPE not in values:
        return dict(values)
    others = {key: value for key, value in values.items() if key != GENOTYPE}
    return {**others, "foreign": {NNABLA: {GENOTYPE: values[GENOTYPE]}}}
