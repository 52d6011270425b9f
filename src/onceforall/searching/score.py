"""Measured accuracies of a supernet's sub-networks, each measured once, by all processes side by side."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from onceforall.errors import UserError
from onceforall.files import unwritable
from onceforall.functions import Listener, tell
from onceforall.nn import Supernet
from onceforall.space import Arch
from onceforall.training.engine.distributed import Processes, gathered, told
from onceforall.training.evaluate import CALIBRATION, Evaluator


class Scorer:
    """Extracts, recalibrates and scores sub-networks on the held-out pictures, to choose by, or on the test pictures.

    What was measured is kept in `folder`, in held_out.jsonl and test.jsonl, rows `{"arch", "top1", "of"}`. `of` is a
    digest of the weights, of the pictures that score, and of how BN is recalibrated and on which pictures. Rows with
    another digest stay in the file unused. `evaluator` works alone; `processes` share the work. Raises UserError for a
    file that holds something else.
    """

    def __init__(self, net: Supernet, evaluator: Evaluator, folder: Path, *, processes: Processes | None = None,
                 listener: Listener | None = None) -> None:
        self.net, self.processes = net, processes or Processes()
        self._evaluator, self._folder, self._listener = evaluator, folder, listener
        data = evaluator.data
        self._pictures = {"held_out": data.held_out, "test": data.test}
        self.choosing = "held_out" if len(data.held_out) else "test"
        self._known: dict[str, dict[Arch, float]] = {}
        common = hashlib.sha256()
        for tensor in net.state_dict().values():
            common.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        calibration = CALIBRATION, data.calibration(evaluator.calibration_images).identity()
        common.update(repr((data.mean, data.std, data.framing, data.depth, *calibration)).encode())
        self._of = {}
        for split, pictures in self._pictures.items():
            whole = common.copy()
            whole.update(pictures.identity().encode())
            self._of[split] = whole.hexdigest()[:16]
        if self.processes.first:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._known = {split: self._read(split) for split in self._pictures}
            except OSError as error:
                raise unwritable(error.filename or folder, error) from None

    def scores(self, archs: Sequence[Arch], *, split: str) -> list[float]:
        """Top-1 of each in [0, 1] on the pictures of `split`; those not known are measured and written one by one."""
        known = self._known[split]
        wanted = [arch for arch in dict.fromkeys(archs) if arch not in known]
        for start in range(0, len(wanted), self.processes.world):
            self._hear(start, len(wanted))
            part = wanted[start:start + self.processes.world]
            with self._path(split).open("a", encoding="utf-8") as file:
                for arch, top1 in zip(part, self._together(split, part), strict=True):
                    known[arch] = top1
                    file.write(json.dumps({"arch": str(arch), "top1": top1, "of": self._of[split]}) + "\n")
        self._hear(len(wanted), len(wanted))
        return [known[arch] for arch in archs]

    def _path(self, split: str) -> Path:
        return self._folder / f"{split}.jsonl"

    def _hear(self, done: int, of: int) -> None:
        if of:
            tell(self._listener, "score", done=done, of=of)

    def _together(self, split: str, part: Sequence[Arch]) -> list[float]:
        """Measure these archs at the same time, one in each process."""
        told((split, part), self.processes)
        return gathered(self._measured(split, part), self.processes)[:len(part)]

    def _measured(self, split: str, part: Sequence[Arch]) -> float:
        """The top-1 of the arch of this process; 0 where it has none."""
        if self.processes.rank >= len(part):
            return 0.0
        return self._evaluator.score(self.net, part[self.processes.rank], self._pictures[split]).top1

    def _follow(self) -> None:
        """What the other processes do: they measure what the first one asks for, until it asks for nothing."""
        nothing: tuple[str, Sequence[Arch]] | None = None
        while (asked := told(nothing, self.processes)) is not None:
            gathered(self._measured(*asked), self.processes)

    def _read(self, split: str) -> dict[Arch, float]:
        """The rows that are of this net and these pictures. A last line that a stop has torn is cut off."""
        path, out = self._path(split), dict[Arch, float]()
        if not path.exists():
            return out
        text = path.read_text(encoding="utf-8", errors="replace")
        if text and not text.endswith("\n"):
            text = text[:text.rfind("\n") + 1]
            path.write_text(text, encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(line or "null")
                if row is not None and row["of"] == self._of[split]:
                    top1 = row["top1"]
                    if not (isinstance(top1, int | float) and 0 <= top1 <= 1):
                        raise ValueError(f"top1 {top1!r} is not within 0..1")
                    out[Arch.parse(self.net.space, str(row["arch"]))] = float(top1)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise UserError(f"{path}:{number}", f"is no measured row ({error})", "delete the line") from None
        return out


@contextmanager
def shared(scorer: Scorer) -> Iterator[bool]:
    """Let the first process ask for scores while inside.

    It gets True. The other processes get False, after they have measured what it asked for.
    """
    if not scorer.processes.first:
        scorer._follow()
        yield False
        return
    try:
        yield True
    finally:
        told(None, scorer.processes)
