"""Forms: the kinds of weights file there are, and which one a path holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from onceforall.errors import UserError
from onceforall.files import check_no_pointer, replacing, unreadable
from onceforall.interop import native_weights
from onceforall.interop.about import About
from onceforall.interop.entries import Content, Entry
from onceforall.interop.mit import weights as mit_weights
from onceforall.interop.nnabla import weights as nnabla_weights


@dataclass(frozen=True)
class Form:
    """One kind of weights file: the suffixes it is written under, its names and layout, reading and writing."""

    name: str
    suffixes: tuple[str, ...]
    key: Callable[[Entry], str]
    read: Callable[[Path], Content]
    read_about: Callable[[Path], About | None]
    write_to: Callable[[Path, Content], None]
    to_file: Callable[[Entry, Tensor], Tensor] = lambda entry, tensor: tensor
    to_ours: Callable[[Entry, Tensor], Tensor] = lambda entry, tensor: tensor

    def write(self, path: Path, content: Content) -> None:
        """Write the file atomically; raises UserError where it cannot be written, and leaves nothing then."""
        with replacing(path, causes=(OSError, RuntimeError, SafetensorError)) as partial:
            self.write_to(partial, content)


NATIVE = Form("native", (".safetensors",), lambda entry: entry.ours,
              native_weights.read, native_weights.read_about, native_weights.write)
NNABLA = Form("nnabla", (".h5", ".hdf5"), lambda entry: entry.theirs,
              nnabla_weights.read, nnabla_weights.read_about, nnabla_weights.write,
              nnabla_weights.to_file, nnabla_weights.to_ours)
MIT = Form("mit", (".pth", ".pt", ".tar"), lambda entry: mit_weights.key(entry.theirs),
           mit_weights.read, mit_weights.read_about, mit_weights.write)
FORMS = (NATIVE, NNABLA, MIT)


def form_named(name: str, *, place: str) -> Form:
    """The form of that name; raises UserError for another."""
    for form in FORMS:
        if form.name == name:
            return form
    raise UserError(place, f"{name!r} is not a form of weights file", f"known: {', '.join(f.name for f in FORMS)}")


def form_to_write(path: Path) -> Form:
    """The form that a path's suffix stands for."""
    for form in FORMS:
        if path.suffix.lower() in form.suffixes:
            return form
    raise UserError(str(path), "its name does not say which form of weights file to write",
                    "end the name in .safetensors (native), .h5 (nnabla) or .pth (mit), or give --to")


def form_of(path: Path) -> Form:
    """The form of an existing file, by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise unreadable(path, error) from None
    check_no_pointer(path)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return NNABLA
    if start[8:] == b"{":
        return NATIVE
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return MIT
    raise UserError(str(path), "is no weights file" if start else "is empty",
                    "give a weights.h5, a torch checkpoint (.pth) or a .safetensors file")
