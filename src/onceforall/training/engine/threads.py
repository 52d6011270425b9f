"""Threads: how many of them torch computes with."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from onceforall.training.engine.distributed import Processes

_log = logging.getLogger(__name__)
_MOST = 1024  # --threads takes no more
_LOAD = Path("/proc/loadavg")


def choose_threads(asked: int | None, processes: Processes) -> None:
    """Let torch compute with the threads asked for, else with OMP_NUM_THREADS, else with its share of the free cores.

    All cores are shared by the processes of this machine; where other programs take some of them, one line says so.
    Two threads beside another busy process take longer than one: docs/performance.md has figures.
    """
    if asked is not None:
        torch.set_num_threads(asked)
    elif "OMP_NUM_THREADS" not in os.environ:
        cores, taken = os.cpu_count() or 1, _taken()
        share = torch.get_num_threads() if processes.local_world == 1 else max(1, cores // processes.local_world)
        threads = min(share, max(1, (cores - taken) // processes.local_world))
        if threads < share and processes.first:
            _log.warning("other programs take %d of %d cores: computing with %d thread%s instead of %d; --threads "
                         "changes it", taken, cores, threads, "s" * (threads > 1), share)
        torch.set_num_threads(threads)


def keep_threads(extra: Mapping[str, Any], processes: Processes) -> None:
    """Let torch compute with the threads that a run began with, which its bits depend on; `extra`: its checkpoint's."""
    began = extra.get("made_by", {}).get("threads")
    if extra.get("options", {}).get("processes") != processes.world:
        return  # the bits are others in any case, and so is each process's share of the cores
    if isinstance(began, list) and len(began) == processes.world:
        began = began[processes.rank]
    if not isinstance(began, int) or not 1 <= began <= _MOST or began == torch.get_num_threads():
        return
    torch.set_num_threads(began)
    if processes.first:
        _log.warning("goes on with %d thread%s, as the run began", began, "s" * (began > 1))


def _taken() -> int:
    """Cores that other programs keep busy: the load average, but not more than what runs now, as it lags behind."""
    load = os.getloadavg()[0]
    if _LOAD.exists():
        load = min(load, int(_LOAD.read_text(encoding="ascii").split()[3].split("/")[0]) - 1)  # less this thread
    return round(load)
