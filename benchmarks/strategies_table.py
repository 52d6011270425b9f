"""The tables of docs/strategies.md, from the records of `strategies.py`.

    python benchmarks/strategies_table.py [FILE] [--pair WAY BASE]

Accuracies are top-1 in per cent, mean and standard deviation over the seeds. How far a way is above shrinking is the
difference of their populations' medians, seed by seed. The rank correlation (Spearman's) is between a supernet's
accuracies and those of the same sub-networks trained alone. What was spent is in epochs of the largest sub-network, as
the budget is; minutes are those of one processor, with those of measuring for a predictor, where the record has them.
--pair prints by how many points one way is above another, seed by seed, instead: in the median and at the four levels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import spearmanr

RECORDS = Path(__file__).with_name("strategies.jsonl")
LEVELS = ("smallest", "lower", "upper", "largest")
ALONE, BASE = "alone ", "shrinking"
Record = Mapping[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a file; none where it is not there."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def levels_of(record: Record) -> dict[str, float]:
    """Accuracies of the sub-networks that every way is asked for, by name."""
    way: str = record["way"]
    return {way.removeprefix(ALONE): record["top1"]} if way.startswith(ALONE) else dict(record["levels"])


def tables(records: Sequence[Record]) -> dict[str, str]:
    """Markdown by setting: accuracies at four levels of MACs, then the population and what each way took."""
    return {title: "\n\n".join(map(_table, _rows(found))) for title, found in by_setting(records).items()}


def by_setting(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records of the same pictures, budget and space, by a title that says which."""
    settings: dict[str, list[Record]] = {}
    for record in records:
        low, high = record["sizes"]
        title = (f"{record['data']}, {100 * record['portion']:g} % of the training pictures, budget "
                 f"{record['budget']:g}, width {record['width']:g}, sizes {low} to {high}")
        settings.setdefault(title, []).append(record)
    return settings


def _rows(records: Sequence[Record]) -> tuple[list[list[str]], list[list[str]]]:
    """The rows of the two tables of one setting, the way with the best median first."""
    ways, own = grouped(records, alone=False), grouped(records, alone=True)
    accuracy = [["way", "seeds", *LEVELS],
                ["*trained alone*", "/".join(str(len(own.get(level, []))) for level in LEVELS),
                 *(_spread(own.get(level, []), lambda r: r["top1"]) for level in LEVELS)]]
    took = [["way", "minimum", "median", "maximum", "above shrinking", "rank correlation", "epochs", "spent",
             "minutes"]]
    for way, found in sorted(ways.items(), key=lambda item: -mean(median(r["population"]) for r in item[1])):
        accuracy.append([way, str(len(found)),
                         *(_spread(found, lambda r, level=level: r["levels"][level]) for level in LEVELS)])
        took.append([way, *(_spread(found, lambda r, pick=pick: pick(r["population"])) for pick in (min, median, max)),
                     "" if way == BASE else _mean(_above(ways.get(BASE, []), found)), _rank_correlation(own, found),
                     *_effort(found)])
    took += [[f"*{level} alone*", "", "", "", "", "", *_effort(own[level])] for level in LEVELS if level in own]
    return accuracy, took


def grouped(records: Sequence[Record], *, alone: bool) -> dict[str, list[Record]]:
    """Records by way, or those of sub-networks trained alone by their name."""
    out: dict[str, list[Record]] = {}
    for record in records:
        if record["way"].startswith(ALONE) == alone:
            out.setdefault(record["way"].removeprefix(ALONE), []).append(record)
    return out


def _spread(records: Sequence[Record], value: Callable[[Record], float]) -> str:
    """Mean of a share in per cent, and its standard deviation where there is more than one."""
    return _mean([100 * value(record) for record in records])


def _mean(points: Sequence[float]) -> str:
    if len(points) < 2:
        return f"{points[0]:.1f}" if points else "-"
    return f"{mean(points):.1f} ± {stdev(points):.1f}"


def _median(record: Record) -> float:
    return float(median(record["population"]))


def _above(base: Sequence[Record], found: Sequence[Record],
           value: Callable[[Record], float] = _median) -> list[float]:
    """By how many points a value is above that of `base` with the same seed, in the order of the seeds."""
    others = {record["seed"]: value(record) for record in base}
    return [100 * (value(r) - others[r["seed"]]) for r in sorted(found, key=lambda r: r["seed"]) if r["seed"] in others]


def pair(records: Sequence[Record], way: str, base: str) -> list[str]:
    """A line a setting and value: by how many points `way` is above `base`, seed by seed."""
    values = {"median": _median, **{level: lambda r, level=level: r["levels"][level] for level in LEVELS}}
    lines = []
    for title, found in by_setting(records).items():
        ways = grouped(found, alone=False)
        for name, value in values.items():
            points = _above(ways.get(base, []), ways.get(way, []), value)
            lines.append(f"{title.partition(',')[0]}, {name}: {' '.join(f'{x:+.1f}' for x in points) or '-'}")
    return lines


def _rank_correlation(own: Mapping[str, Sequence[Record]], found: Sequence[Record]) -> str:
    names = [name for name in found[0]["levels"] if name in own]
    if len(names) < len(found[0]["levels"]):
        return "-"
    alone = [mean(record["top1"] for record in own[name]) for name in names]
    return f"{mean(spearmanr(alone, [r['levels'][name] for name in names]).statistic for r in found):.2f}"


def _effort(records: Sequence[Record]) -> list[str]:
    """Epochs of each stage, what was spent of the budget, and minutes of those runs that went through."""
    first, seconds = records[0], [r["seconds"] for r in records if r["seconds"] is not None]
    return [" + ".join(map(str, first["epochs"])), f"{first['spent']:.1f}",
            f"{mean(seconds) / 60:.1f}" if seconds else "-"]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|---" * len(rows[0]) + "|", *rest])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="?", default=RECORDS, metavar="FILE")
    parser.add_argument("--pair", nargs=2, metavar=("WAY", "BASE"))
    arguments = parser.parse_args()
    records = read(arguments.records)
    if arguments.pair:
        print("\n".join(pair(records, *arguments.pair)))
        return
    for title, text in tables(records).items():
        print(f"### {title}\n\n{text}\n")


if __name__ == "__main__":
    main()
