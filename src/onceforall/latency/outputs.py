"""What benchmark tools of runtimes print about one graph, as a timing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onceforall.errors import UserError
from onceforall.files import read_text
from onceforall.latency.table import Timing

_NUMBER = r"([0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)"
_TIME = _NUMBER.replace("(", "(?P<time>", 1)
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_RANGE = 1.35 / 3.29  # the interquartile range of a normal distribution, of that from 5 to 95 %


@dataclass(frozen=True)
class Tool:
    """How a tool's output is read.

    Args:
        time: finds the time, the median where there is one, and its unit where that is printed, by these names.
        unit: of the time, where none is printed.
        runs: finds how many runs there were; empty: not said.
        ends: find the 5th and the 95th percentile in the same unit; empty: not said.
    """

    time: str
    unit: str = "ms"
    runs: str = ""
    ends: tuple[str, str] = ("", "")


_COUNT = "count=([0-9]+) first="
# the first two by their own output, the others by their source
TOOLS: Mapping[str, Tool] = {
    "benchmark_app": Tool(rf"Median:\s+{_TIME} (?P<unit>us|ms)", runs=r"Count:\s+([0-9]+) iterations"),
    "litert-benchmark": Tool(rf"Inference \(median\):\s+{_TIME} ms", runs=r"Inference \(avg\):.*\(([0-9]+) runs\)",
                             ends=(rf"Inference \(p5\):\s+{_NUMBER}", rf"Inference \(p95\):\s+{_NUMBER}")),
    "benchmark_model": Tool(rf"{_COUNT}[^\n]* median={_TIME}", "us", _COUNT, (rf" p5={_NUMBER}", rf" p95={_NUMBER}")),
    "benchmark_model (mean)": Tool(rf"Inference timings in us: .*Inference \(avg\): {_TIME}", "us", _COUNT),
    "onnxruntime_perf_test (P50)": Tool(rf"P50 Latency: {_TIME} s", "s", r"Total inference requests: ([0-9]+)"),
    "onnxruntime_perf_test": Tool(rf"Average inference time cost(?: total)?: {_TIME} ms",
                                  runs=r"Total inference requests: ([0-9]+)"),
    "benchncnn": Tool(rf"min = .* avg =\s*{_TIME}"),
}


def read_output(path: Path) -> tuple[str, Timing]:
    """The tool that printed a file, and what it says.

    Raises:
        UserError: no tool that is known printed it, or it was cut off before the time.
    """
    text = read_text(path, missing="give what a benchmark tool printed")
    for name, tool in TOOLS.items():
        for found in list(re.finditer(tool.time, text))[-1:]:
            scale = _UNITS[found.groupdict().get("unit", tool.unit)]
            low, high = (_last(pattern, text) for pattern in tool.ends)
            return name, Timing(scale * float(found["time"]), scale * _RANGE * (high - low),
                                int(_last(tool.runs, text)) or 1)
    raise UserError(str(path), f"holds no time that one of {', '.join(TOOLS)} printed",
                    "it may have been cut off: run the tool on that graph again")


def _last(pattern: str, text: str) -> float:
    """The last number that a pattern finds; 0 where there is none."""
    found = re.findall(pattern, text) if pattern else []
    return float(found[-1]) if found else 0.0


def read_outputs(folder: Path, keys: list[str]) -> tuple[str, dict[str, Timing]]:
    """The tool, and the timing of each case, from a folder with a file KEY.txt for each.

    Raises:
        UserError: a file is missing or cannot be read, or they are of several tools.
    """
    missing = [key for key in keys if not (folder / f"{key}.txt").is_file()]
    if missing:
        raise UserError(str(folder), f"lacks {len(missing)} of {len(keys)} outputs, the first {missing[0]}.txt",
                        "run the tool on every graph of the runner's folder")
    found = {key: read_output(folder / f"{key}.txt") for key in keys}
    tools = sorted({tool for tool, _ in found.values()})
    if len(tools) > 1:
        raise UserError(str(folder), f"holds outputs of {' and '.join(tools)}", "keep those of one")
    return tools[0], {key: timing for key, (_, timing) in found.items()}
