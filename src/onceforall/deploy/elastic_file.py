"""elastic.safetensors: a supernet's weights, and beside them which sub-networks are stored and their BN statistics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from onceforall.deploy.description import Channels
from onceforall.errors import UserError
from onceforall.files import check_no_pointer
from onceforall.nn import Subnet, Supernet
from onceforall.problems import first_of
from onceforall.searching.front import Row
from onceforall.searching.record import RowValues, rows_of
from onceforall.space import Arch, Layer, Plan, SearchSpace
from onceforall.training.evaluate import CALIBRATION
from onceforall.weights import native
from onceforall.weights.content import COUNT, MEAN, Content, Stored
from onceforall.weights.forms import NATIVE
from onceforall.weights.nets import Trained, trained_of

_log = logging.getLogger(__name__)
ELASTIC = "elastic.safetensors"
REMEDY = "`ofa export RUN --to elastic` writes one"
VARIANCE = "running_var"


class _StoredRow(RowValues):
    """A row of a front. `batches`: how many batches its BN was recalibrated on."""

    model_config = ConfigDict(allow_inf_nan=False)

    batches: Annotated[int, Field(ge=0)]


class _Values(BaseModel):
    """The form of the header's entry; row N's statistics are array N.

    `calibration`: how the statistics were measured, as `training.evaluate.CALIBRATION` numbers it. Files without it
    are of the first way.
    """

    format: Literal[1] = 1
    calibration: Annotated[int, Field(ge=1)] = 1
    rows: Annotated[list[_StoredRow], Field(min_length=1)]
    preprocessing: Channels


@dataclass(frozen=True, eq=False)
class ElasticContent:
    """A supernet, the sub-networks stored with it, and of each its BN buffers by their names in the extracted net."""

    trained: Trained
    rows: tuple[Row, ...]
    channels: Channels
    buffers: Mapping[Arch, Mapping[str, Tensor]]


def norms(plan: Plan) -> list[Layer]:
    """The layers that have a batch normalisation, in the order of the forward pass."""
    return [layer for layer in plan.layers() if layer.norm]


def statistics_of(net: Subnet) -> Tensor:
    """Means and variances (2, channels) of all batch normalisations, on CPU."""
    state = net.state_dict()
    return torch.stack([torch.cat([state[f"{layer.name}.norm.{name}"] for layer in norms(net.plan)])
                        for name in (MEAN, VARIANCE)]).cpu()


def stored_of(rows: Sequence[Row], nets: Mapping[Arch, tuple[Tensor, int]], *, space: SearchSpace,
              channels: Channels) -> Stored:
    """Sub-networks as the file holds them. `nets`: the statistics of each, and how many batches they come from."""
    values: dict[str, Any] = {"calibration": CALIBRATION, "preprocessing": channels,
                              "rows": [{**row.to_dict(space), "batches": nets[row.arch][1]} for row in rows]}
    return Stored(_Values(**values).model_dump_json(), {str(i): nets[row.arch][0] for i, row in enumerate(rows)})


def is_elastic(path: Path) -> bool:
    """Whether the file stores sub-networks beside a supernet."""
    return path.is_file() and path.suffix == ".safetensors" and native.stores(path)


def read_elastic(path: Path) -> ElasticContent:
    """Read the file; raises UserError where it is missing or damaged, or has no sub-networks beside its supernet."""
    if not path.is_file():
        raise UserError(str(path), "is not there", REMEDY)
    check_no_pointer(path)
    content = NATIVE.code.read(path)
    if content.stored is None:
        raise UserError(str(path), "has no sub-networks stored beside the weights", REMEDY)
    trained = trained_of(path, NATIVE, content)
    if not isinstance(trained.net, Supernet):
        raise UserError(str(path), "is damaged: it stores sub-networks of a sub-network", REMEDY)
    values = _values(path, content.stored)
    if values.calibration < CALIBRATION:
        _log.warning("%s: its BN statistics are old: they were measured on pictures in the order of the data set, "
                     "which may cost accuracy; `ofa export RUN --to elastic` measures them again", path)
    rows = tuple(rows_of(path, values.rows, trained.space))
    if len({row.arch for row in rows}) < len(rows) or len({frozenset(row.costs) for row in rows}) > 1:
        raise UserError(str(path), "is damaged: its rows repeat a sub-network, or have different costs", REMEDY)
    return ElasticContent(trained, rows, values.preprocessing, _all_buffers(path, content, values, trained.net, rows))


def _values(path: Path, stored: Stored) -> _Values:
    try:
        return _Values.model_validate_json(stored.text)
    except ValidationError as error:
        raise UserError(str(path), f"has a damaged `elastic` entry ({first_of(error)})", REMEDY) from None


def _all_buffers(path: Path, content: Content, values: _Values, net: Supernet,
                 rows: Sequence[Row]) -> dict[Arch, dict[str, Tensor]]:
    arrays = content.stored.statistics if content.stored else {}
    if arrays.keys() != {str(i) for i in range(len(rows))}:
        raise UserError(str(path), f"is damaged: statistics of {len(arrays)} sub-networks for {len(rows)} rows", REMEDY)
    out = {}
    for number, row in enumerate(rows):
        # a copy, since what comes from the file keeps all of it in memory
        plan, array = net.plan(row.arch), arrays[str(number)].clone()
        shape = (2, sum(layer.outputs for layer in norms(plan)))
        if array.shape != shape or not bool(array.isfinite().all()) or bool((array[1] < 0).any()):
            raise UserError(f"{path}:statistics.{number}", f"is damaged: {shape} finite numbers are needed, no "
                            "variance below 0", REMEDY)
        out[row.arch] = dict(_buffers(plan, array, torch.tensor(values.rows[number].batches)))
    return out


def _buffers(plan: Plan, statistics: Tensor, batches: Tensor) -> Iterator[tuple[str, Tensor]]:
    layers = norms(plan)
    for name, row in ((MEAN, statistics[0]), (VARIANCE, statistics[1])):
        for layer, values in zip(layers, torch.split(row, [layer.outputs for layer in layers]), strict=True):
            yield f"{layer.name}.norm.{name}", values
    for layer in layers:
        yield f"{layer.name}.norm.{COUNT}", batches
