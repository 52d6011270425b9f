"""Forms: the kinds of weights file there are, and which one a path holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from torch import Tensor

from onceforall.errors import UserError
from onceforall.files import replacing, start_of
from onceforall.nn import Subnet, Supernet
from onceforall.weights.about import About
from onceforall.weights.content import Content


class Foreign(Protocol):
    """A file that does not say which net it holds."""

    @property
    def elastic(self) -> bool:
        """Whether it holds a supernet."""

    def about(self, space: str | None) -> About:
        """What its arrays tell of the net. `space`: the search space that it is said to be of."""


class Code(Protocol):
    """The functions of the module that reads and writes one form."""

    def names(self, net: Supernet | Subnet) -> dict[str, str]:
        """The file's name of each array of a net, by our name.

        Raises:
            UserError: for a family of networks that has no names in this form.
        """

    def to_file(self, name: str, tensor: Tensor) -> Tensor:
        """An array, known by our name, in the file's layout."""

    def to_ours(self, name: str, tensor: Tensor) -> Tensor:
        """An array of a file in our layout."""

    def read(self, path: Path) -> Content:
        """What a file holds; raises UserError for a damaged one."""

    def read_about(self, path: Path) -> About | None:
        """What this project wrote about the file's net; None for a foreign file."""

    def write(self, path: Path, content: Content) -> None:
        """Write a file."""

    def foreign(self, path: Path, content: Content) -> Foreign:
        """What tells the net of a file that does not say which one it holds."""


@dataclass(frozen=True)
class Form:
    """One kind of weights file.

    Args:
        name: as `--to` takes it.
        suffixes: under which it is written; lower case.
        start: what a file of this form begins with.
        module: the dotted name of the module with the functions of `Code`, imported when it is used.
    """

    name: str
    suffixes: tuple[str, ...]
    start: re.Pattern[bytes]
    module: str

    @property
    def code(self) -> Code:
        """The functions that read and write it."""
        return cast(Code, import_module(self.module))

    def has(self, net: Supernet | Subnet) -> bool:
        """Whether the form has names for the arrays of such a net."""
        try:
            self.code.names(net)
        except UserError:
            return False
        return True

    def write(self, path: Path, content: Content) -> None:
        """Write the file as a whole or not at all; raises UserError where it cannot be written."""
        with replacing(path, causes=(OSError, RuntimeError)) as partial:
            self.code.write(partial, content)


NATIVE = Form("native", (".safetensors",), re.compile(rb".{8}\{", re.DOTALL), "onceforall.weights.native")
FORMS = {form.name: form for form in (
    NATIVE,
    Form("nnabla", (".h5", ".hdf5"), re.compile(rb"\x89HDF\r\n\x1a\n"), "onceforall.interop.nnabla.weights"),
    Form("mit", (".pth", ".pt", ".tar"), re.compile(rb"PK\x03\x04|\x80[\x02-\x05]"), "onceforall.interop.mit.weights"),
)}


def form_named(name: str, *, place: str) -> Form:
    """The form of that name; raises UserError for another."""
    if name not in FORMS:
        raise UserError(place, f"{name!r} is not a form of weights file", f"known: {', '.join(FORMS)}")
    return FORMS[name]


def form_to_write(path: Path) -> Form:
    """The form that a path's suffix stands for."""
    for form in FORMS.values():
        if path.suffix.lower() in form.suffixes:
            return form
    raise UserError(str(path), "its name does not say which form of weights file to write",
                    "end the name in .safetensors (native), .h5 (nnabla) or .pth (mit), or give --to")


def form_of(path: Path) -> Form:
    """The form of an existing file, by its first bytes."""
    start = start_of(path, 9)
    for form in FORMS.values():
        if form.start.match(start):
            return form
    raise UserError(str(path), "is no weights file" if start else "is empty",
                    "give a weights.h5, a torch checkpoint (.pth) or a .safetensors file")
