"""Proof that an export answers as the net it was made of: logits, accuracy and latency, against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onceforall.data import DataSet, Pictures, eval_batches, normalize
from onceforall.deploy.description import Comparison, Description, Latency, Verification
from onceforall.deploy.ends import PLAIN, Ends, Fed, Images
from onceforall.deploy.job import Infer
from onceforall.errors import UserError
from onceforall.functions import Listener, tell
from onceforall.latency import runner
from onceforall.latency.torch_cases import threads as torch_threads
from onceforall.nn import Subnet

EXACT = 1e-4  # of logits in float32, in relation to the largest of the picture; of a net that is so sensitive that
ROUNDING = 4  # torch's own rounding comes near this, so many times its error
HALF = 0.05  # of logits in float16, where there are no pictures to score
_REMEDIES = {"fp16": "fine-tune it, or allow more",
             "int8": "--explain shows what each block loses, --keep leaves blocks in float; or allow more"}
_INSTRUCTIONS = ("avx2", "avx512_f", "avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8", "neon", "dot", "i8mm",
                 "sve")
_RANDOM, _BATCH = 32, 50
_REPEAT = {"runs": 20, "seconds": 0.1}
_ROUNDS = 5


@dataclass
class _Tally:
    """Differences between two nets' logits, added up batch by batch."""

    images: int = 0
    max_error: float = 0.0
    relative_error: float = 0.0
    same: int = 0
    right: int = 0
    torch_right: int = 0

    def add(self, logits: Images, expected: Images, labels: Tensor | None = None) -> None:
        """Take the logits (B, classes) of the export and of torch."""
        error = np.abs(logits - expected).max(1)
        top, wanted = logits.argmax(1), expected.argmax(1)
        self.images += len(logits)
        # the errors of answers that are no numbers are infinite
        self.max_error = max(self.max_error, float(np.nan_to_num(error, nan=np.inf).max()))
        relative = error / np.maximum(np.abs(expected).max(1), np.finfo(np.float32).tiny)
        self.relative_error = max(self.relative_error, float(np.nan_to_num(relative, nan=np.inf).max()))
        self.same += int((top == wanted).sum())
        if labels is not None:
            self.right += int((top == labels.numpy()).sum())
            self.torch_right += int((wanted == labels.numpy()).sum())

    @property
    def comparison(self) -> Comparison:
        """The differences as model.json has them."""
        finite = float(np.finfo(np.float32).max)
        return Comparison(images=self.images, max_error=min(self.max_error, finite),
                          relative_error=min(self.relative_error, finite), same_top1=self.same)


@dataclass(frozen=True, eq=False)
class Verifier:
    """Compares exports of `net` with it, on random inputs and on the test pictures of `data` where there is some.

    `ends`: what they take and give. `batch`: pictures of one inference, 0 for any number. `threads`: of one forward
    pass, when latency is measured.
    """

    net: Subnet
    about: Description
    data: DataSet | None
    ends: Ends = PLAIN
    batch: int = 0
    threads: int = 1
    listener: Listener | None = None

    def __call__(self, infer: Infer, fp32: Infer | None = None) -> Verification:
        """What `infer` answers, beside the net; `fp32`: the net in float32 in the same runtime, to compare times."""
        with torch_threads(self.threads):
            random, rounding = self._on_random_inputs(infer)
            seen = self._on_pictures(infer)
            latency = self._latency(infer, fp32)
        made = Verification(random=random, torch_error=rounding, latency=latency, instructions=instructions())
        if not seen.images:
            return made
        return made.model_copy(update={"pictures": seen.comparison, "top1": seen.right / seen.images,
                                        "torch_top1": seen.torch_right / seen.images})

    def _on_random_inputs(self, infer: Infer) -> tuple[Comparison, float]:
        """How it answers them, and the relative error of torch's own answers."""
        found, rounded, exact = _Tally(), _Tally(), deepcopy(self.net).double()
        source, size = np.random.default_rng(0), self.about.resolution
        for _ in range(0, _RANDOM, self.batch or _BATCH):
            images = source.standard_normal((self.batch or _RANDOM, 3, size, size), dtype=np.float32)
            expected = self._torch(images)
            found.add(answered(infer, self.ends.fed(images), self.batch), expected)
            with torch.inference_mode():
                sharp = exact(torch.from_numpy(self.ends.seen(images)).double()).numpy()
            rounded.add(expected, self.ends.given(sharp))
        return found.comparison, rounded.comparison.relative_error

    def _on_pictures(self, infer: Infer) -> _Tally:
        found = _Tally()
        if self.data is None:
            return found
        for images, labels in prepared(self.data.test, self.data, self.about.resolution, self.batch or _BATCH):
            found.add(answered(infer, self.ends.fed(images), self.batch), self._torch(images), labels)
            tell(self.listener, "verify", done=found.images, of=len(self.data.test))
        return found

    def _torch(self, images: Images) -> Images:
        """What a file is to give for normalised images (B, 3, H, W)."""
        with torch.inference_mode():
            seen = torch.from_numpy(self.ends.seen(images)).to(memory_format=torch.channels_last)
            return self.ends.given(self.net(seen).numpy())

    def _latency(self, infer: Infer, fp32: Infer | None) -> Latency:
        """Medians over rounds. The nets take turns in a round, so that a change of the machine's load meets all of
        them."""
        size = self.about.resolution
        images = runner.pictures((self.batch or 1, 3, size, size))
        own, fed = torch.from_numpy(images).to(memory_format=torch.channels_last), self.ends.fed(images)
        machine = runner.machine(self.threads)

        def forward() -> object:
            with torch.inference_mode():
                return self.net(own)

        runs: dict[str, Callable[[], object]] = {"ms": lambda: infer(fed), "torch_ms": forward}
        if fp32 is not None:
            runs["fp32_ms"] = lambda: fp32(fed)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(_ROUNDS):
            for name, run in runs.items():
                times[name].append(runner.visit(run, _REPEAT, machine["clock"])[0])
        return Latency(**{name: float(np.median(values)) for name, values in times.items()}, batch=self.batch or 1,
                       threads=self.threads, rounds=_ROUNDS, device=machine["device"])


def answered(infer: Infer, images: Fed, batch: int) -> Images:
    """What the export gives; a last batch that is too small for it is filled up. `batch` 0 is any."""
    short = batch - len(images)
    if short <= 0:
        return infer(images)
    return infer(np.concatenate([images, np.zeros((short, *images.shape[1:]), images.dtype)]))[:len(images)]


def instructions() -> list[str]:
    """This processor's instruction sets that integer arithmetic depends on, such as `["avx2"]`."""
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 has only the coarse name
    return [name for name in _INSTRUCTIONS if found.get(name)] or [torch.backends.cpu.get_cpu_capability().lower()]


def prepared(pictures: Pictures, data: DataSet, resolution: int, batch: int) -> Iterator[tuple[Images, Tensor]]:
    """Pictures of `data`, ready for the net, in contiguous batches, with their labels."""
    for loaded in eval_batches(pictures, resolution, batch=batch, framing=data.framing):
        images = normalize(loaded.images, data.mean, data.std, torch.device("cpu"))
        yield np.ascontiguousarray(images.numpy()), loaded.labels


def check(found: Verification, precision: str, path: Path, *, max_loss: float, full_range: bool = False) -> None:
    """Raise UserError where an export answers otherwise than it may: in float32 by its logits, else by its accuracy.

    Args:
        found: how it answers.
        precision: of the export.
        path: where it is kept in that case.
        max_loss: percentage points of top-1 that float16 and int8 may lose.
        full_range: whether its int8 weights have 8 bits, which are wrong on some processors.
    """
    worst = max(found.random.relative_error, found.pictures.relative_error if found.pictures else 0.0)
    allowed = max(EXACT, ROUNDING * found.torch_error)
    if precision == "fp32" and not worst <= allowed:
        raise UserError(str(path), f"its logits differ from torch's by {worst:.1e} of the largest, more than "
                        f"{allowed:.2g}",
                        "this runtime does not compute what the net does: do not ship it")
    if found.top1 is None or found.torch_top1 is None:
        if not worst <= HALF:
            raise UserError(str(path), f"its logits differ from torch's by {worst:.1e} of the largest, more than "
                            f"{HALF:g}", "give --data, so that its accuracy can be measured")
        return
    loss = 100 * (found.torch_top1 - found.top1)
    if loss > max_loss:
        raise UserError(str(path), f"it loses {loss:.2f} points of top-1 ({100 * found.torch_top1:.2f} to "
                        f"{100 * found.top1:.2f} %), more than --max-loss {max_loss:g}",
                        "leave out --full-range" if full_range else _REMEDIES[precision])
