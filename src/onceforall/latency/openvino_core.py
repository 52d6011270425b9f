"""OpenVINO's Core, one for the whole process."""

from __future__ import annotations

from functools import cache

import openvino


@cache
def core() -> openvino.Core:
    """The process's Core, which stays.

    A Core that has loaded its CPU plugin gives signals a stack of its own, and hands back the one before when it is
    dropped. Where two Cores are dropped in the order in which they were made, the stack handed back is gone: the next
    Ctrl-C or the end of a child process ends the process by SIGSEGV (OpenVINO 2026.4).
    """
    return openvino.Core()
