"""Config: one training configuration as a value, read from and written to NNablaNAS's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from onceforall.errors import UserError
from onceforall.files import check_plain, read_object, write_text
from onceforall.interop.nnabla.config_data import Data, Dataloader
from onceforall.interop.nnabla.config_hparams import Hparams
from onceforall.interop.nnabla.config_ignored import ignored, table_widths
from onceforall.interop.nnabla.config_sections import FIXED_KERNELS, Network, NetworkChoice, Optimizer, Section
from onceforall.problems import as_user_error
from onceforall.space import search_space
from onceforall.space.rows import listed

Algorithm = Literal["OFASearcher", "OFATrainer"]


class Config(Section):
    """What one run trains, on which data, and how."""

    dataloader: Dataloader = Field(description="the data set: one key, its name")
    network_choice: NetworkChoice = Field(alias="network", description="the supernet: one key, ofa or ofa_mbv3")
    optimizer: Optimizer = Field(description="how parameters are updated")
    hparams: Hparams = Field(description="schedule, batches, resolutions, validation, distillation")
    regularizer: dict[str, Any] | None = Field(None, description="NNablaNAS's latency or memory term")

    @property
    def data(self) -> Data:
        """The chosen data set's settings; `data.name` is its name."""
        return self.dataloader.section

    @property
    def network(self) -> Network:
        """The network's settings, whichever of its two names the file uses."""
        return self.network_choice.section

    @property
    def teacher(self) -> Network | None:
        """The teacher's settings, None where nothing is distilled."""
        choice = self.hparams.teacher_network
        return choice.section if choice is not None and self.hparams.lambda_kd > 0 else None

    @property
    def data_place(self) -> str:
        """Where the data set's settings stand, such as `dataloader.imagenet`."""
        return f"dataloader.{self.dataloader.name}"

    @property
    def network_place(self) -> str:
        """Where the network's settings stand, such as `network.ofa`."""
        return f"network.{self.network_choice.name}"

    @property
    def teacher_place(self) -> str:
        """Where the teacher's settings stand, such as `hparams.teacher_network.ofa`."""
        choice = self.hparams.teacher_network
        return "hparams.teacher_network" + (f".{choice.name}" if choice is not None else "")

    @staticmethod
    def read(path: str | Path) -> Config:
        """The configuration in a JSON file; raises UserError for a missing file and for what is wrong in it."""
        return Config.from_dict(read_object(path, remedy="see ofa train --print-schema"))

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Config:
        """The configuration of a JSON-like mapping; raises UserError for the first problem, which also names the places
        of the others."""
        if not isinstance(values, Mapping):
            raise UserError("configuration", f"a value of type {type(values).__name__} is not a mapping")
        check_plain(values)
        try:
            return Config.model_validate(values)
        except ValidationError as error:
            raise as_user_error(error, Config) from None

    def to_dict(self) -> dict[str, Any]:
        """All keys that have a value, defaults included, in NNablaNAS's shape; `from_dict` gives an equal Config."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def write(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, all of it or nothing; makes the folder; raises UserError where it cannot."""
        write_text(Path(path), json_text(self.to_dict()) + "\n")

    def ignored(self, for_algorithm: str | None = None) -> list[str]:
        """Keys that are given and have no effect, a line each: dotted path and why."""
        return [f"{place} has no effect: {why}" for place, why in ignored(self, for_algorithm)]

    def unsupported(self) -> list[str]:
        """What the file asks for and this version cannot do, a line each: dotted path and why."""
        return [str(fault) for fault in self._unsupported()]

    def check_supported(self) -> None:
        """Raises UserError for the first of `unsupported`."""
        for fault in self._unsupported():
            raise fault

    def _unsupported(self) -> Iterator[UserError]:
        networks = [(self.network_place, self.network)]
        if self.teacher is not None:
            networks.append((self.teacher_place, self.teacher))
        for place, network in networks:
            yield from (UserError(f"{place}.{key}", *why) for key, *why in _unsupported(network))


def json_text(value: Any, indent: str = "") -> str:
    """JSON with a key a line, and lists on one line unless there are lists or objects in them."""
    inner = indent + "    "
    if isinstance(value, dict) and value:
        lines = [f"{inner}{json.dumps(key)}: {json_text(entry, inner)}" for key, entry in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
        return "[\n" + ",\n".join(inner + json_text(entry, inner) for entry in value) + f"\n{indent}]"
    return json.dumps(value)


def _unsupported(network: Network) -> Iterator[tuple[str, str, str]]:
    """What a network asks for that is not possible: the key, the problem and the remedy."""
    space = search_space(network.space)
    if network.compound:
        try:
            space.compound()
        except UserError as error:
            yield "compound", f"is true, and {error.place} {error.problem}", "leave it out"
    if network.fixed_kernel:
        kernels = [stage.choices.get("kernel", ()) for stage in network.part(space).stages]
        if len(kernels) != len(FIXED_KERNELS) or space.dimensions != ("kernel", "expand"):
            yield "fixed_kernel", f"is for spaces of {len(FIXED_KERNELS)} stages; {space.name} has {len(kernels)}", ""
        for kernel, own in zip(FIXED_KERNELS, kernels, strict=False):
            if kernel not in own:
                yield ("fixed_kernel", f"{kernel} is not one of {listed(own)}", "list its operators in op_candidates")
    if network.weight_init != "he_fout":
        yield "weight_init", f"{network.weight_init!r} comes later", 'take "he_fout", the default'
    widths = table_widths(network.space)
    if network.base_stage_width is not None and list(network.base_stage_width) != widths:
        yield "base_stage_width", f"the widths of {network.space} are {widths}", "leave it out, or set width_mult"


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    return Config.model_json_schema(by_alias=True)
