"""README.md in a sub-network's folder: the card that people and model hubs read, written from its description."""

from __future__ import annotations

import json
from pathlib import Path

from onceforall.deploy.description import ABOUT, WEIGHTS, Description, Export
from onceforall.errors import printable
from onceforall.files import write_text
from onceforall.searching.front import percent
from onceforall.space.arch import foreign_words

CARD = "README.md"


def write_card(about: Description, folder: Path) -> None:
    """Write the card; raises UserError where that cannot be."""
    write_text(folder / CARD, card(about))


def card(about: Description) -> str:
    """The card as Markdown, under the header that model hubs look for."""
    pre, data = about.preprocessing, (about.data or {}).get("name", "other pictures")
    lines = [
        "---", "library_name: onceforall", "pipeline_tag: image-classification",
        "tags: [once-for-all, image-classification]", "---", "",
        "# A Once-for-All sub-network", "",
        f"One sub-network of `{_plain(about.space.get('name'))}`, cut out of a supernet (Cai et al., ICLR 2020) and "
        "usable without it.", "",
        "| | |", "|---|---|",
        f"| sub-network | `{_plain(about.arch)}` |",
        *(f"| {_plain(name)} | `{_plain(text)}` |" for name, text in foreign_words(about.foreign).items()),
        f"| input | RGB, {about.resolution} x {about.resolution} pixels |",
        f"| classes | {about.num_classes:,} |",
        f"| MACs, parameters | {about.macs:,}, {about.params:,} |"]
    if about.accuracy is not None:
        lines.append(f"| top-1 | {100 * about.accuracy.top1:.2f} % on {about.accuracy.images:,} {about.accuracy.split} "
                     f"pictures of `{_plain(data)}` |")
    lines += ["", "## How to feed it", "",
              f"Scale the shorter side to {pre.resize_shorter_side} pixels ({pre.interpolation}), cut the central "
              f"{pre.crop} x {pre.crop}, bring values to [0, 1], subtract {_three(pre.mean)} and divide by "
              f"{_three(pre.std)}. `{ABOUT}` has the exact numbers, the class names and every layer.", "",
              "```python", "import onceforall", "", "net = onceforall.load_subnet(\".\")  # a torch.nn.Module",
              "```", "", "```console", "ofa predict . picture.jpg", "```"]
    if about.exports:
        lines += ["", "## Exports", "", "Each was compared with torch before it was kept. The milliseconds of "
                  "float32 are those of the same runtime.", "",
                  "| file | largest relative error of logits | same top-1 | top-1 | ms | float32's ms | torch's ms "
                  "| bytes |",
                  "|---|---|---|---|---|---|---|---|",
                  *(_row(name, export) for name, export in about.exports.items()), "",
                  *(_verified_on(name, export) for name, export in about.exports.items())]
    taken = "fine-tuned" if "finetuned" in about.provenance else "taken"
    lines += ["", "## Where it comes from", "",
              f"`{WEIGHTS}` was {taken} from `{_plain(about.provenance.get('source'))}` (SHA-256 "
              f"`{_plain(about.provenance.get('sha256'))}`) on `{_plain(about.provenance.get('date'))}` with "
              + ", ".join(f"`{_plain(name)} {_plain(found)}`" for name, found in about.versions.items()) + "."]
    return "\n".join(lines) + "\n"


def _row(name: str, export: Export) -> str:
    found = export.verification
    best = found.pictures or found.random
    return (f"| `{_plain(name)}` | {best.relative_error:.1e} | {best.same_top1:,} of {best.images:,} | "
            f"{percent(found.top1)} | {found.latency.ms:.2f} | {milliseconds(found.latency.fp32_ms)} | "
            f"{found.latency.torch_ms:.2f} | {export.size:,} |")


def milliseconds(value: float | None) -> str:
    """A time that may not have been measured, for a table."""
    return "" if value is None else f"{value:.2f}"


def _verified_on(name: str, export: Export) -> str:
    """The processor that a file was verified on, and those that it may answer otherwise on."""
    found = export.verification
    text = f"- `{_plain(name)}` was verified on {_plain(found.latency.device)}"
    if found.instructions:
        text += f" ({_plain(', '.join(found.instructions))})"
    if export.may_lose_on:
        text += f"; it may lose accuracy on {_plain(export.may_lose_on)}"
    elif export.int8 is not None:
        text += "; its integers do not saturate on other processors either"
    if export.int8 is not None and export.int8.keep:
        text += f"; in float: `{_plain(', '.join(export.int8.keep))}`"
    return f"{text}."


def _three(values: tuple[float, float, float]) -> str:
    return json.dumps([round(value, 4) for value in values])


def _plain(value: object) -> str:
    """A text on one line, without characters that end a table's cell or a code span."""
    return printable(" ".join(str(value).split())).replace("|", "/").replace("`", "'")
