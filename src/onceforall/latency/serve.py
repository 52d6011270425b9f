"""A page that measures a job on a phone or another device by its browser, with onnxruntime-web."""

from __future__ import annotations

import json
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from onceforall.errors import UserError, printable
from onceforall.latency import runner
from onceforall.latency.runner import Visits
from onceforall.space import Plan
from onceforall.space.parts import Part, input_shape

if TYPE_CHECKING:
    from onceforall.latency.runner import Hear, Values

RUNTIME = {"ort.wasm.min.js": "text/javascript", "ort-wasm-simd-threaded.mjs": "text/javascript",
           "ort-wasm-simd-threaded.wasm": "application/wasm"}
BACKEND = "onnxruntime-web"
PAGE = Path(__file__).with_name("page.html")
_SLOWER = 1.1  # from which on a device is said to have slowed down
_MOST = 1 << 16  # bytes of a message
_SILENCE = 60.0  # seconds
_PACE = -1, "pace"  # of the row that holds the pace at the first visit
_BYTES = "application/octet-stream"


def check_runtime(folder: Path) -> None:
    """Raise UserError where a folder lacks a file of onnxruntime-web."""
    missing = [name for name in RUNTIME if not (folder / name).is_file()]
    if missing:
        raise UserError("--runtime", f"{folder} has no {missing[0]}", "it is the folder dist of the npm package "
                        "onnxruntime-web: npm pack onnxruntime-web, and unpack it")


@dataclass
class Served:
    """What a page measures, and what came back.

    Args:
        job: as `Job.values` gives it.
        shapes: of each case's input, by its key.
        graphs: the folder of graphs and numbers.
        runtime: the folder of onnxruntime-web.
        partial: the file of timings.
        hear: hears of progress.
        table: the finished table; None until then.
    """

    job: Values
    shapes: dict[str, list[int]]
    graphs: Path
    runtime: Path
    partial: Path
    hear: Hear
    table: Values | None = None
    _visits: Visits | None = None
    _tick: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def file(self, name: str) -> tuple[str, bytes] | None:
        """A file that the page may have, and its kind."""
        folder, _, rest = name.partition("/")
        if name == "":
            return "text/html; charset=utf-8", PAGE.read_bytes()
        if folder == "runtime" and rest in RUNTIME:
            return RUNTIME[rest], (self.runtime / rest).read_bytes()
        if folder == "graphs" and rest in self._names:
            return _BYTES, (self.graphs / rest).read_bytes()
        return None

    @property
    def _names(self) -> set[str]:
        return {f"{key}.onnx" for key in self.shapes} | set(self.job["numbers"])

    def begin(self, said: Values) -> Values:
        """What is left to visit, on the device that the page says it is on."""
        number = {key: float(said[key]) for key in ("cores", "tick_ms")}
        if not all(0 < value < 1e6 for value in number.values()):
            raise ValueError(f"{number} are no cores and no clock")
        about = {"device": printable(str(said["device"]))[:300], "cores": int(number["cores"]), "threads": 1,
                 "clock": "wall", "backend": BACKEND,
                 "versions": {BACKEND: printable(str(said["version"]))[:50]}}
        with self._lock:
            visits = self._visits = Visits(self.job, about, self.partial)
            self._tick = number["tick_ms"]
        self.hear({**visits.begin(), "seconds": 0.0})
        return {"left": visits.left, "of": visits.of, "numbers": list(self.job["numbers"]), "shapes": self.shapes,
                "repetitions": visits.about["repetitions"], "reference": self.job["subnets"][0]["key"]}

    def visit(self, said: Any) -> Values:
        """Keep what a visit measured, as it would be at the pace that the device had at the first one.

        `pace`: milliseconds that a reference case took around the visit. Devices slow down as they grow warm, and as
        other programs compute.
        """
        number, key, times = said
        ms, spread, pace = (float(times[name]) for name in ("ms", "spread", "pace"))
        n = int(times["n"])
        with self._lock:
            visits = self._begun()
            if (number, key) not in set(visits.left) or not (0 <= ms < 1e9 and 0 <= spread < 1e9 and 0 < n < 1e9):
                raise ValueError("that is no visit of this job")
            at_first = self._first_pace(visits, pace) / pace
            visits.note(number, key, (at_first * ms, at_first * spread, n))
            self.hear({"kind": "visit", "key": key, "of": visits.of, "done": len(visits.found) - 1})
        return {}

    @staticmethod
    def _first_pace(visits: Visits, pace: float) -> float:
        """The pace at the first visit, which is a row of its own in the file of timings."""
        if not 0 < pace < 1e9:
            raise ValueError(f"{pace} is no pace")
        if _PACE not in visits.found:
            visits.note(*_PACE, (pace, 0.0, 1))
        return visits.found[_PACE][0]

    def end(self, said: Values) -> Values:
        """Make the table; `pace`: in the end."""
        with self._lock:
            visits = self._begun()
            if len(visits.found) <= visits.of:
                raise ValueError("there are visits left")
            slower = float(said["pace"]) / self._first_pace(visits, float(said["pace"]))
            visits.about.update(slower=round(slower, 3), tick_ms=self._tick)
            self.table = visits.table()
        return {}

    def _begun(self) -> Visits:
        if self._visits is None:
            raise ValueError("no page has begun")
        return self._visits

    def words(self) -> str:
        """What the page shows in the end."""
        assert self.table is not None  # `end` made it
        return "\n".join([*runner.report(self.table), *slowed(self.table["about"]), "Done: this page can be closed."])


def slowed(about: Values) -> list[str]:
    """A line that says how much a device slowed down while it was measured; none where it did not."""
    slower = about.get("slower", 1.0)
    return [f"the device took {slower:.2f} times as long in the end as at the beginning; the times are those of the "
            "beginning"] if slower > _SLOWER else []


def shapes_of(cases: Mapping[str, Part | Plan], batch: int) -> dict[str, list[int]]:
    """The shape of each case's input."""
    return {key: [batch, *input_shape(case)] for key, case in cases.items()}


class _Server(ThreadingHTTPServer):
    """Says once when a page that has begun is not heard of for a while."""

    daemon_threads = True
    heard, said = 0.0, False
    hear: Hear

    def process_request(self, *request: Any) -> None:
        self.heard, self.said = time.monotonic(), False
        super().process_request(*request)

    def service_actions(self) -> None:
        if self.heard and not self.said and time.monotonic() > self.heard + _SILENCE:
            self.said = True
            self.hear({"kind": "note", "text": f"nothing heard of the page for {_SILENCE:.0f} s: wake the device, and "
                       "load the page again; it goes on where it stopped"})


class _Handler(BaseHTTPRequestHandler):
    """Answers under the address's token alone, with the page's own files alone."""

    timeout = 60  # seconds that a connection may be silent
    served: Served
    token: str
    done: Callable[[], None]

    def do_GET(self) -> None:
        found = self.served.file(name) if (name := self._name()) is not None else None
        if found is None:
            self._say(404, "text/plain", b"no such file")
        else:
            self._say(200, *found)

    def do_POST(self) -> None:
        act = {"begin": self.served.begin, "visit": self.served.visit, "end": self.served.end}.get(self._name() or "")
        length = self.headers.get("Content-Length", "")
        if act is None or not re.fullmatch(r"[0-9]{1,6}", length) or int(length) > _MOST:
            self._say(404, "text/plain", b"no such message")
            return
        try:
            out = act(json.loads(self.rfile.read(int(length))))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, OSError) as error:
            self._say(400, "text/plain; charset=utf-8", str(error).encode())
            return
        if self.served.table is None:
            self._say(200, "application/json", json.dumps(out).encode())
            return
        self._say(200, "text/plain; charset=utf-8", self.served.words().encode())
        self.done()

    def _name(self) -> str | None:
        """What is asked for below the token; None where the address has another."""
        path = self.path.partition("?")[0]
        begin = f"/{self.token}/"
        return path[len(begin):] if secrets.compare_digest(path[:len(begin)].encode(), begin.encode()) else None

    def _say(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


@contextmanager
def serving(served: Served, host: str, port: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """Serve a page; gives its address, and a function that answers until the table is there.

    Raises UserError where the address cannot be used.
    """
    token = secrets.token_urlsafe(9)
    handler = type("Handler", (_Handler,), {"served": served, "token": token})
    try:
        server = _Server((host, port), handler)
    except OSError as error:
        raise UserError("--host", f"{host}:{port} cannot be used ({error.strerror or error})",
                        "give another --host or --port") from None
    server.hear = served.hear

    def stop() -> None:
        Thread(target=server.shutdown).start()  # which waits for the loop

    handler.done = staticmethod(stop)  # type: ignore[attr-defined]
    with server:
        yield f"http://{_shown(host)}:{server.server_port}/{token}/", server.serve_forever


def _shown(host: str) -> str:
    """The host as another device reaches it."""
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # of documentation; nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()
