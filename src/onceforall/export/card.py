"""README.md in a sub-network's folder: the card that people and model hubs read, written from its description."""

from __future__ import annotations

import json
from pathlib import Path

from onceforall.export.description import ABOUT, WEIGHTS, Description, Export
from onceforall.space.errors import printable
from onceforall.space.files import unwritable

CARD = "README.md"


def write_card(about: Description, folder: Path) -> None:
    """Write the card; raises UserError where that cannot be."""
    try:
        (folder / CARD).write_text(card(about), encoding="utf-8")
    except OSError as error:
        raise unwritable(folder / CARD, error) from None


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
        f"| genotype | `{','.join(map(str, about.genotype))}` |",
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
        lines += ["", "## Exports", "", "Each was compared with torch before it was kept.", "",
                  "| file | largest relative error of logits | same top-1 | top-1 | ms, torch's ms | bytes |",
                  "|---|---|---|---|---|---|",
                  *(_row(name, export) for name, export in about.exports.items())]
    taken = "fine-tuned" if "finetuned" in about.provenance else "taken"
    lines += ["", "## Where it comes from", "",
              f"`{WEIGHTS}` was {taken} from `{_plain(about.provenance.get('source'))}` (SHA-256 "
              f"`{_plain(about.provenance.get('sha256'))}`) on `{_plain(about.provenance.get('date'))}` with "
              + ", ".join(f"`{_plain(name)} {_plain(found)}`" for name, found in about.versions.items()) + "."]
    return "\n".join(lines) + "\n"


def _row(name: str, export: Export) -> str:
    found = export.verification
    best = found.pictures or found.random
    top1 = "" if found.top1 is None else f"{100 * found.top1:.2f} %"
    return (f"| `{_plain(name)}` | {best.relative_error:.1e} | {best.same_top1:,} of {best.images:,} | {top1} | "
            f"{found.latency.ms:.2f}, {found.latency.torch_ms:.2f} | {export.size:,} |")


def _three(values: tuple[float, float, float]) -> str:
    return json.dumps([round(value, 4) for value in values])


def _plain(value: object) -> str:
    """Text of the user's on one line, without what ends a table's cell or a code span."""
    return printable(" ".join(str(value).split())).replace("|", "/").replace("`", "'")
