"""Measures start-up: `ofa --help`, and `import onceforall`, which must not import torch. Wall time of whole
processes; exit code 1 where a median is not as wanted.

    python benchmarks/startup.py [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

WANTED = {"ofa --help": 0.3, "import onceforall": 0.2}  # seconds
CHECK = "import sys, onceforall; sys.exit('torch' in sys.modules)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    commands = {"ofa --help": [str(Path(sys.executable).with_name("ofa")), "--help"],
                "import onceforall": [sys.executable, "-c", CHECK]}
    cases = []
    for name, command in commands.items():
        seconds = []
        for _ in range(arguments.rounds + 1):  # the first one reads the files from disk
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
        cases.append({"case": name, "ours_s": statistics.median(seconds[1:]), "max_s": max(seconds[1:]),
                      "wanted_s": WANTED[name], "n": arguments.rounds})
    if arguments.json:
        print(json.dumps(cases))
    else:
        for c in cases:
            print(f"{c['case']}: {c['ours_s']:.3f} s, at most {c['max_s']:.3f} (n = {c['n']}; wanted under "
                  f"{c['wanted_s']})")
    sys.exit(any(c["ours_s"] > c["wanted_s"] for c in cases))


if __name__ == "__main__":
    main()
