"""Journal: what a run writes down as it goes: its log, metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from onceforall.errors import UserError, printable
from onceforall.files import unreadable, unwritable, write_text
from onceforall.functions import Listener
from onceforall.space import Arch

METRICS = "metrics.jsonl"
UNTRAINED = -1  # the epoch of scores before the first step


class _Record(BaseModel):
    """What is read back of a line of metrics.jsonl."""

    kind: str
    epoch: Annotated[int, Field(ge=UNTRAINED, lt=10_000_000)]
    seconds: float = 0.0
    loss: float | None = None
    top1: float | None = None


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records in a metrics.jsonl; raises UserError for a line that is none. A stop may have torn the last line."""
    out = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise unreadable(path, error) from None
    for number, line in enumerate(lines, 1):
        try:
            out.append(_Record.model_validate_json(line).model_dump())
        except ValidationError as error:
            if number < len(lines):
                raise UserError(f"{path}:{number}", f"is no record of a run ({error.errors()[0]['msg']})",
                                "delete the line") from None
    return out


class Harmless(logging.Formatter):
    """Formats messages so that no terminal obeys them: names in them may come from files."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


class _LogFile(logging.FileHandler):
    """A log that stays silent when the disk is full. The run itself says what it cannot write."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's name
        """Nothing is printed."""


class Journal:
    """Records of one run folder. Only the first process writes; `listener` hears every record, for live progress.

    A record is a JSON object with `kind` ("train", "valid", "start", "step", "stage", "setback", "profile"); the first
    three are written. Raises UserError where a record cannot be written.
    """

    def __init__(self, folder: Path, *, writes: bool, listener: Listener | None = None) -> None:
        self._folder, self._writes, self._listener = folder, writes, listener
        self._board: Any = None
        self._handler: logging.Handler | None = None
        self._level = logging.NOTSET

    def __enter__(self) -> Journal:
        if self._writes:
            self._handler = _LogFile(self._folder / "log.txt", encoding="utf-8", errors="backslashreplace")
            self._handler.setFormatter(Harmless("%(asctime)s %(levelname)s %(message)s"))
            logger = logging.getLogger("onceforall")
            logger.addHandler(self._handler)
            self._level = logger.level
            logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))  # a program's is WARNING by default
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._handler is not None:
            logger = logging.getLogger("onceforall")
            logger.removeHandler(self._handler)
            logger.setLevel(self._level)
            with suppress(OSError):  # of a full disk, which was said before
                self._handler.close()
        self._close_board()

    def _close_board(self) -> None:
        if self._board is not None:
            with suppress(OSError):
                self._board.close()

    def hear(self, record: Mapping[str, Any]) -> None:
        """Pass a record to the listener only."""
        if self._listener is not None:
            self._listener(record)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record to metrics.jsonl and its numbers to TensorBoard, and pass it on."""
        self.hear(record)
        if not self._writes:
            return
        try:
            self._write(record)
        except OSError as error:
            raise unwritable(self._folder, error, then="the same command goes on from the last checkpoint") from None

    def _write(self, record: Mapping[str, Any]) -> None:
        with open(self._folder / METRICS, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if record["kind"] == "valid":
            self._board.add_scalar(f"valid_top1/{record['tag']}", record["top1"], record["epoch"])
        elif record["kind"] == "train":
            for name in ("loss", "lr", "images_per_second"):
                self._board.add_scalar(f"train/{name}", record[name], record["epoch"])

    def start(self, epoch: int) -> None:
        """Begin to write at `epoch`, dropping records of it and later ones, which a resumed run writes again."""
        if not self._writes:
            return
        from torch.utils.tensorboard import SummaryWriter
        self._close_board()
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=epoch)
        path = self._folder / METRICS
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if _epoch(line) < epoch]
        write_text(path, "".join(kept))


def _epoch(line: str) -> float:
    """The epoch of a line of metrics.jsonl; infinite for a line that a stop has torn."""
    try:
        return float(json.loads(line)["epoch"]) if line.endswith("\n") else math.inf
    except (json.JSONDecodeError, KeyError, TypeError, ValueError):
        return math.inf


def tag(arch: Arch) -> str:
    """A short name for charts: `224px_k7e6_d4` where all blocks and depths are equal, else the whole arch."""
    kinds = {block for stage in arch.stages for block in stage}
    if len(kinds) == 1 and len(set(arch.depths)) == 1:
        return f"{arch.resolution}px_{next(iter(kinds))}_d{arch.depths[0]}"
    widths = "_w" + "-".join(map(str, arch.widths)) if arch.widths else ""
    blocks = str(arch).rpartition(":")[2]
    return f"{arch.resolution}px{widths}_" + blocks.replace("/", "_").replace(",", "")
