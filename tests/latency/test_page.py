"""The page that a browser measures by: what it is given, what it sends, and a real browser on a real page."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest

from onceforall.errors import UserError
from onceforall.latency import serve as serving_
from onceforall.latency.job import Job, Settings
from onceforall.latency.measure import serve
from onceforall.latency.serve import RUNTIME, slowed
from onceforall.latency.table import read_table
from onceforall.space import search_space

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(
    resolutions=[16], kernel=[3, 5], expand=[3], depth=[2, 3])
QUICK = Settings(subnets=30, rounds=1, runs=3, seconds=0.002)


@pytest.fixture
def runtime(tmp_path) -> Path:
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in RUNTIME:
        (folder / name).write_text(name)
    (folder / "secret.txt").write_text("secret")
    return folder


class Page:
    """A served page, as a device sees it."""

    def __init__(self, runtime: Path, output: Path, heard: list[dict]) -> None:
        self.addresses: list[str] = []
        self.tables: list = []
        self.thread = Thread(daemon=True, target=lambda: self.tables.append(serve(
            Job(SPACE, 10, QUICK), output, runtime, host="127.0.0.1", port=0, say=self.addresses.append,
            hear=heard.append)))
        self.thread.start()
        while not self.addresses and self.thread.is_alive():
            time.sleep(0.05)

    def ask(self, name: str, body: object = None) -> bytes:
        data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        with urlopen(Request(self.addresses[0] + name, data), timeout=20) as response:
            return response.read()

    def status(self, name: str, body: object = None) -> tuple[int, str]:
        with pytest.raises(HTTPError) as error:
            self.ask(name, body)
        return error.value.code, error.value.read().decode()


@pytest.fixture
def heard() -> list[dict]:
    return []


@pytest.fixture
def page(runtime, tmp_path, heard) -> Page:
    pytest.importorskip("onnx")
    return Page(runtime, tmp_path / "phone.json", heard)


DEVICE = {"device": "a phone", "cores": 8, "tick_ms": 0.1, "version": "1.30.0"}
TIMES = {"ms": 1.5, "spread": 0.25, "n": 7, "pace": 2.0}


def test_the_page_has_its_own_files_alone(page):
    assert b"Latency of this device" in page.ask("")
    assert page.ask("runtime/ort.wasm.min.js") == b"ort.wasm.min.js"
    assert len(page.ask("graphs/part_0000.onnx")) > 100
    for name in ("runtime/secret.txt", "graphs/../job.json", "../dist/secret.txt", "graphs/", "job.json", "x"):
        assert page.status(name)[0] == 404
    for address in (page.addresses[0].rpartition("/")[0][:-3] + "/", page.addresses[0].rsplit("/", 2)[0] + "/"):
        with pytest.raises(HTTPError, match="404"):
            urlopen(address, timeout=20)


def test_a_device_sends_its_times(page, heard, tmp_path):
    begun = json.loads(page.ask("begin", DEVICE))
    assert begun["of"] == len(begun["left"]) == len(begun["shapes"])
    assert begun["shapes"]["subnet_000"] == [1, 3, 16, 16]
    assert begun["reference"] == "subnet_000"
    assert all(name.startswith("numbers") for name in begun["numbers"])
    rng = np.random.default_rng(0)
    for number, key in begun["left"][:10]:
        page.ask("visit", [number, key, TIMES])
    again = json.loads(page.ask("begin", DEVICE))  # the page was loaded again
    assert again["left"] == begun["left"][10:]
    assert "other settings: device" in page.status("begin", {**DEVICE, "device": "a tablet"})[1]
    page.ask("begin", DEVICE)
    assert page.status("end", {"pace": 2.6}) == (400, "there are visits left")
    for number, key in again["left"]:  # the device takes twice as long now
        page.ask("visit", [number, key, {**TIMES, "ms": 2 * (1 + rng.random()), "pace": 4.0}])
    words = page.ask("end", {"pace": 2.6}).decode()
    assert words.startswith("onnxruntime-web 1.30.0 on a phone, 1 thread, batch 1")
    assert "1.30 times as long in the end" in words
    page.thread.join(20)
    (table,) = page.tables
    assert all(1 <= timing.ms < 2 for timing in table.timings.values())  # as at the pace of the beginning
    back = read_table(tmp_path / "phone.json")
    assert back.timings == table.timings
    assert (back.about["device"], back.about["slower"], back.about["tick_ms"]) == ("a phone", 1.3, 0.1)
    assert not (tmp_path / "phone.json.partial.jsonl").exists()
    assert table.of(SPACE, num_classes=10).space.resolutions == (16,)
    assert [record["done"] for record in heard if record["kind"] == "visit"] == list(range(1, begun["of"] + 1))


@pytest.mark.parametrize(("name", "body"), [
    ("visit", [0, "part_0000", TIMES]),  # no page has begun
    ("begin", {**DEVICE, "cores": 0}), ("begin", {**DEVICE, "tick_ms": "x"}), ("begin", {"device": "x"}),
    ("begin", []), ("begin", b"{"), ("begin", b"[" * 60_000), ("end", {"pace": 1})])
def test_what_no_page_sends(page, name, body):
    assert page.status(name, body)[0] == 400
    assert page.status("begin", b" " * 70_000)[0] == 404


@pytest.mark.parametrize("body", [[0, "part_9999", TIMES], [5, "part_0000", TIMES], [0, "part_0000"],
                                  [0, "part_0000", {**TIMES, "ms": -1}], [0, "part_0000", {**TIMES, "ms": 1e400}],
                                  [0, "part_0000", {**TIMES, "n": 0}], [0, "part_0000", {**TIMES, "n": 1e400}],
                                  [0, "part_0000", {**TIMES, "pace": 0}],
                                  [0, ["part_0000"], TIMES]])
def test_times_that_are_none(page, body):
    page.ask("begin", DEVICE)
    assert page.status("visit", body)[0] == 400


def test_a_page_that_falls_silent_is_told_of(page, heard, monkeypatch):
    monkeypatch.setattr(serving_, "_SILENCE", 0.2)
    page.ask("")
    end = time.monotonic() + 20
    while not heard and time.monotonic() < end:
        time.sleep(0.1)
    assert [record["kind"] for record in heard] == ["note"]
    assert "load the page again" in heard[0]["text"]


def test_what_is_missing(runtime, tmp_path):
    job = Job(SPACE, 10, QUICK)
    (runtime / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(UserError, match="--runtime: .* has no ort-wasm-simd-threaded.wasm; it is the folder dist of"):
        serve(job, tmp_path / "t.json", runtime, host="127.0.0.1", port=0, say=print)
    (runtime / "ort-wasm-simd-threaded.wasm").write_text("")
    pytest.importorskip("onnx")
    with pytest.raises(UserError, match="--host: 192.0.2.1:0 cannot be used"):
        serve(job, tmp_path / "t.json", runtime, host="192.0.2.1", port=0, say=print)


def test_a_device_that_slows_down():
    assert slowed({"slower": 1.05}) == slowed({}) == []
    assert "1.40 times as long" in slowed({"slower": 1.4})[0]


@pytest.fixture(scope="session")
def web(tmp_path_factory) -> Path:
    """The npm package onnxruntime-web."""
    folder = tmp_path_factory.mktemp("npm")
    for tool in ("npm", "chromium"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    done = subprocess.run(["npm", "pack", "--silent", "onnxruntime-web"], cwd=folder, check=False, capture_output=True,
                          text=True)
    if done.returncode:
        pytest.skip("npm cannot fetch onnxruntime-web here")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package" / "dist"


@pytest.mark.slow
def test_a_real_browser(web, tmp_path):
    pytest.importorskip("onnx")
    addresses, browsers = [], []

    def opened(address: str) -> None:
        addresses.append(address)
        browsers.append(subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
             "--remote-debugging-port=0", f"{address}?now"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    space = search_space("mobilenet_v3_large_32px").restrict(resolutions=[32], kernel=[3, 7], expand=[6], depth=[2, 4])
    job = Job(space, 10, QUICK)  # the largest sub-network has 2.4 times the MACs of the smallest
    tables = []
    thread = Thread(daemon=True, target=lambda: tables.append(
        serve(job, tmp_path / "browser.json", web, host="127.0.0.1", port=0, say=opened)))
    thread.start()
    try:
        thread.join(300)
    finally:
        for browser in browsers:
            browser.kill()
            browser.wait()
    (table,) = tables
    assert "Chrome" in table.about["device"]
    assert table.about["backend"] == "onnxruntime-web"
    assert all(timing.ms > 0 for timing in table.timings.values())
    small, large = (table.about["subnets"][end]["ms"] for end in (0, -1))
    assert 1.2 * small < large  # on a busy machine; docs/results.md has what an idle one shows
