"""Reads every network of timm and torchvision as a supernet, and writes what came of it as a CSV file.

    python benchmarks/pretrained.py docs/pretrained_networks.csv [--only mobilenet] [--limit 90]

Each network has random weights and statistics, so that nothing is downloaded and a wrong mapping shows. Its largest
sub-network has to answer as the network does, and to have its MACs and parameters (`onceforall.testing.check_module`).
Networks of more than --limit million parameters are read, and not compared. Networks that have no convolution at the
start, such as vision transformers, are among the refused.
"""

from __future__ import annotations

import argparse
import csv
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torchvision import models

from onceforall.cost import macs, params
from onceforall.errors import UserError
from onceforall.pretrained.reading import table_of
from onceforall.pretrained.table import DEFAULT
from onceforall.testing import check_module

FIELDS = ("name", "state", "size", "params", "macs", "smallest_macs", "subnets", "reason")


def names(part: str) -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    """Every network by its name, what makes it, and the size that it is used at."""
    for name in sorted(models.list_models(module=models)):
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        if part in name:
            yield f"torchvision:{name}", lambda name=name: models.get_model(name, weights=None), transforms.crop_size[0]
    for name in timm.list_models(exclude_filters=["test_*"]):
        if part in name:
            size = timm.get_pretrained_cfg(name).input_size[-1]
            yield f"timm:{name}", lambda name=name: timm.create_model(name, pretrained=False), size


def without_weights(make: Callable[[], nn.Module]) -> nn.Module:
    """The network, with memory for its weights only where it needs their values to be made."""
    try:
        with torch.device("meta"):
            return make()
    except (NotImplementedError, RuntimeError):
        return make()


def row_of(name: str, make: Callable[[], nn.Module], size: int, limit: float) -> dict[str, Any]:
    """What became of a network: compared, read, or refused with the reason."""
    try:
        module = without_weights(make).eval()
        space, units = table_of(module, name, [size], DEFAULT)
        classes = units["head.classifier"].outputs
        count = params(space, space.largest, num_classes=classes)
        if count <= limit * 1e6:
            check_module(make())
    except (UserError, AssertionError) as error:
        problem = error.problem if isinstance(error, UserError) else error
        place = error.place.removeprefix(f"{name}: ") + ": " if isinstance(error, UserError) else ""
        return {"name": name, "state": "refused", "size": size, "reason": f"{place}{problem}"}
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:  # it cannot even be made here
        return {"name": name, "state": "refused", "size": size, "reason": " ".join(str(error).split())[:120]}
    return {"name": name, "state": "compared" if count <= limit * 1e6 else "read", "size": size, "params": count,
            "macs": macs(space, space.largest, num_classes=classes),
            "smallest_macs": macs(space, space.smallest, num_classes=classes), "subnets": f"{space.count:.3g}"}


def main() -> None:
    """Write a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--only", default="", help="part of the names")
    parser.add_argument("--limit", type=float, default=90, help="millions of parameters up to which it is compared")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: dict[str, int] = {}
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        for name, make, size in names(options.only):
            row = row_of(name, make, size, options.limit)
            writer.writerow(row)
            file.flush()
            counts[row["state"]] = counts.get(row["state"], 0) + 1
            print(name, row["state"], row.get("reason", ""), file=sys.stderr, flush=True)
    print(f"timm {timm.__version__}, torch {torch.__version__}: {counts}")


if __name__ == "__main__":
    main()
