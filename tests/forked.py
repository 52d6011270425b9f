"""Processes of their own that do not import torch anew, which takes seconds: they are forked from one that has.

A child runs its code as `python -c` does, from the first line to the interpreter's end. It can be killed, stopped and
waited for like any other. It has the seed of string hashes in common with its sisters: where the order of sets matters,
use `subprocess`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

SERVER = """
import json, os, random, signal, sys
import numpy, torch, torch._dynamo, torch.distributed
import onceforall.cli.app, onceforall.cli.train, onceforall.recipes, onceforall.training.engine.run
for line in sys.stdin:
    asked = json.loads(line)
    if "code" not in asked:
        pid, status = os.waitpid(asked["pid"], os.WNOHANG)
        print(json.dumps(os.waitstatus_to_exitcode(status) if pid else None), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        break
else:
    sys.exit()
for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
    os.dup2(os.open(path, os.O_RDWR), number)
if asked["session"]:
    os.setsid()
os.chdir(asked["cwd"])
os.environ.clear()
os.environ.update(asked["env"])
signal.signal(signal.SIGINT, signal.default_int_handler if asked["heeds"] else signal.SIG_IGN)
random.seed()
numpy.random.seed()
sys.argv[1:] = asked["words"]
exec(asked["code"], {"__name__": "__main__"})
"""


@cache
def _server() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


def _answer(**asked: Any) -> Any:
    server = _server()
    print(json.dumps(asked), file=server.stdin, flush=True)
    return json.loads(server.stdout.readline())


class Popen:
    """As `subprocess.Popen([sys.executable, "-c", code, ..], text=True)`, with what the tests use of it."""

    def __init__(self, command: list[str], *, env: Mapping[str, str] = os.environ, cwd: Path | str | None = None,
                 start_new_session: bool = False, **_: Any) -> None:
        python, option, code, *words = command
        assert (python, option) == (sys.executable, "-c")
        self.returncode: int | None = None
        self._texts = [tempfile.NamedTemporaryFile("r") for _ in range(2)]  # noqa: SIM115  # closed with this object
        out, err = (file.name for file in self._texts)
        self.pid = _answer(code=code, words=words, env=dict(env), cwd=str(cwd or Path.cwd()), out=out, err=err,
                           session=start_new_session, heeds=signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)

    @property
    def stderr(self) -> Any:
        """What it has printed there."""
        return self._texts[1]

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = _answer(pid=self.pid)
        return self.returncode

    def wait(self, timeout: float = 600) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return code

    def communicate(self, timeout: float = 600) -> tuple[str, str]:
        self.wait(timeout)
        return self._texts[0].read(), self._texts[1].read()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, with texts."""
    process = Popen(command, **options)
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.wait(), out, err)
