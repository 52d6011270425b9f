"""Live progress of `ofa fit`, and its closing table."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from onceforall.cli.shipped import shipped_table
from onceforall.cli.tables import show, table
from onceforall.searching.front import percent

_COUNTED = {"search": "looking for better ones", "score": "measuring sub-networks", "elastic": "storing sub-networks",
            "check": "reading pictures", "verify": "comparing with torch", "explain": "blocks alone in int8"}
_ENDS = ("smallest", "middle", "largest")
_FLOAT = 4  # bytes
_TUNED = "\ntuned-: the full network as it was before shrinking\n"


class Progress:
    """Listens to a run and shows how far it is: stage, epoch, images a second, wait for data, time left, and
    accuracies.

    On a terminal each stage is a moving bar. Elsewhere each validation is a line.
    """

    def __init__(self, *, shown: bool) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._shown, self._live = shown, shown and sys.stderr.isatty()
        self._bars = Bars(
            TextColumn("{task.description:<14}", markup=False), BarColumn(bar_width=12),
            TextColumn("{task.fields[where]:<36}"), TimeRemainingColumn(),
            TextColumn("{task.fields[scores]}"), console=self._console)
        self._task = TaskID(0)
        self._name, self._epochs, self._images, self._seconds, self._waited = "", 0, 0, 0.0, 0.0
        self._scores: list[float] = []
        self._done = 0

    def __enter__(self) -> Progress:
        if self._live:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._live:
            self._bars.stop()

    def hear(self, record: Mapping[str, Any]) -> None:
        """Take one record of the run's journal."""
        if not self._shown:
            return
        match record["kind"]:
            case "note":
                self._console.print(record["text"])
            case "stage":
                self._stage(record)
            case "step":
                self._step(record)
            case "valid" | "start":
                self._valid(record)
            case "setback":
                self._console.print(f"{self._name}: {record['reason']}; going back to epoch {record['back_to'] + 1} at "
                                    f"{record['rate']:.3g} of the learning rate")
            case "profile":
                self._console.print(f"{self._name}: {record['table']}\ntrace: {record['trace']}")
            case kind if kind in _COUNTED:
                self._count(kind, _COUNTED[kind], record)

    def _stage(self, record: Mapping[str, Any]) -> None:
        self._name, self._epochs = Path(record["output"]).name, record["epochs"]
        self._images, self._seconds, self._waited, self._scores = 0, 0.0, 0.0, []
        if record["epoch"] or record["step"]:
            self._console.print(f"{self._name}: resuming at epoch {record['epoch'] + 1}, step {record['step'] + 1}")
        if self._live:
            self._task = self._bars.add_task(
                self._name, total=self._epochs * record["steps"], where="", scores="",
                completed=record["epoch"] * record["steps"] + record["step"])

    def _step(self, record: Mapping[str, Any]) -> None:
        self._images += record["images"]
        self._seconds += record["seconds"]
        self._waited += record["waited"]
        if record["step"] == 0:
            self._scores = []
        if self._live:
            where = f"epoch {record['epoch'] + 1}/{self._epochs}  {self._rate()}"
            self._bars.update(self._task, advance=1, where=where)

    def _valid(self, record: Mapping[str, Any]) -> None:
        self._scores.append(record["top1"])
        if record["of"] != len(self._scores):
            return
        names = ("top-1",) if len(self._scores) == 1 else ("smallest", "middle", "largest")
        ends = (self._scores[0], self._scores[len(self._scores) // 2], self._scores[-1])[-len(names):]
        scores = "  ".join(f"{name} {100 * top1:.1f} %" for name, top1 in zip(names, ends, strict=True))
        if self._live:
            self._bars.update(self._task, scores=scores)
        else:
            where = "before the first step"
            if record["kind"] == "valid":
                where = f"epoch {record['epoch'] + 1}/{self._epochs}  {self._rate()}"
            self._console.print(f"{self._name:<14} {where}  {scores}")

    def _rate(self) -> str:
        """Images a second, and the share of time spent waiting, over the steps of the stage so far in this process."""
        seconds = max(self._seconds, 1e-9)
        return f"{self._images / seconds:.0f} images/s  wait {100 * self._waited / seconds:.0f} %"

    def _count(self, name: str, where: str, record: Mapping[str, Any]) -> None:
        """Show how many are done: a bar on a terminal, elsewhere a line for each tenth."""
        done, of = record["done"], record["of"]
        if self._name != name or done < self._done:
            self._done = 0
            if self._live:
                self._task = self._bars.add_task(name, total=of, where=where, scores="")
        if self._live:
            self._bars.update(self._task, completed=done)
        elif name != "search" and done * 10 // of > (self._done * 10 // of if self._name == name else 0):
            self._console.print(f"{where}: {done} of {of}")
        self._name, self._done = name, done


def closing_table(summary: Mapping[str, Any], folder: Path) -> None:
    """Print what a finished fit reached, stage by stage, its best sub-networks, and the commands to go on with."""
    stages = table(("stage", "epochs", "time", *_ENDS), (
        (row["name"], str(row["epochs"]), time.strftime("%H:%M:%S", time.gmtime(row["seconds"])), *_percent(row))
        for row in summary["stages"]))
    polished = any("polished" in row for row in summary["subnets"])
    heads = ("MACs", "parameters", "flash", "RAM", "top-1", *["polished"] * polished, "pixels", "saved in", "arch")
    rows = sorted([*summary["subnets"], *summary.get("tuned", [])], key=itemgetter("macs"))
    subnets = table(heads, (_subnet(row, folder, polished=polished) for row in rows))
    held_out = summary.get("chosen_on", "held-out") == "held-out"
    pictures = "held-out training" if held_out else "the test"
    chosen = "" if held_out else ", which chose them too, as no pictures are held out: it is too high"
    middle = summary["subnets"][len(summary["subnets"]) // 2]
    saved, run = str(_saved(middle, folder)), str(folder)
    commands = (["ofa", "inspect", saved], ["ofa", "evaluate", saved], ["ofa", "export", saved, "--to", "onnx"],
                ["ofa", "search", run, "--max-macs", f"{middle['macs'] / 1e6:.2f}M"], ["tensorboard", "--logdir", run])
    show(f"\nStages: top-1 on {pictures} pictures, of the smallest, middle and largest they train\n", stages,
         *_curves(summary["stages"]),
         f"\nSub-networks: the best found for each budget, top-1 on the test pictures{chosen}\n", subnets,
         *[_TUNED] * bool(summary.get("tuned")), *shipped_table(summary.get("shipped", [])),
         "\nflash: bytes of the weights; RAM: peak activations of one picture; both in float32, in int8 a quarter\n",
         "\nNext:\n" + "".join(f"  {shlex.join(words)}\n" for words in commands))


def _subnet(row: Mapping[str, Any], folder: Path, *, polished: bool) -> list[str]:
    """A saved sub-network in the closing table."""
    memory = f"{row['memory'] / 1e6:.2f} MB" if "memory" in row else ""  # summaries of earlier versions have none
    top1 = [row["top1"], row.get("polished", {}).get("top1")] if polished else [row["top1"]]
    return [f"{row['macs'] / 1e6:.2f} M", f"{row['params'] / 1e6:.2f} M", f"{row['params'] * _FLOAT / 1e6:.2f} MB",
            memory, *map(percent, top1), str(row["resolution"]), str(_saved(row, folder)),
            row["arch"]]


def _curves(stages: Sequence[Mapping[str, Any]]) -> list[Table | str]:
    """What each stage made of the weights that it began with, where that was measured."""
    out: list[Table | str] = []
    for stage in stages:
        curve = stage.get("curve", [])
        if len(curve) > 1 and curve[0]["epoch"] == 0:
            rows = {"before the first step": curve[0], "after the first epoch": curve[1], "at the end": curve[-1]}
            out += [f"\nTop-1 of stage {stage['name']} before, during and after training, on the same pictures\n",
                    table(("", *_ENDS), ((when, *_percent(row)) for when, row in rows.items()))]
    return out


def _percent(row: Mapping[str, Any]) -> list[str]:
    return [f"{100 * row[name]:.1f} %" for name in _ENDS]


def _saved(row: Mapping[str, Any], folder: Path) -> Path:
    """Where a sub-network of the summary is saved; the summaries of earlier versions have it from where they ran."""
    if "polished" in row:
        return folder / str(row["polished"]["path"])
    return folder / "subnets" / Path(row["path"]).name
