"""Worker processes: however a run ends, they end with it; and what they load arrives, or is missed in one line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from onceforall.data import Augment, Batch, FilePictures, Loader, TrainBatches, eval_batches, serve
from onceforall.errors import UserError

ENDINGS = {  # what a run does with its first batch, its exit code, and the last line that it prints
    "raise RuntimeError('mine')": (1, "RuntimeError: mine"),
    "raise MemoryError": (1, "MemoryError"),
    "raise KeyboardInterrupt": (-signal.SIGINT, "KeyboardInterrupt"),
    "sys.exit(3)": (3, ""),
    "os._exit(4)": (4, ""),
    "os.kill(os.getpid(), signal.SIGTERM)": (-signal.SIGTERM, ""),
    "os.kill(os.getpid(), signal.SIGKILL)": (-signal.SIGKILL, ""),
    # more workers, which only half start: they must end without the thread that they lack
    "threading.Thread.start = lambda _: 1 / 0; next(run())": (1, "ZeroDivisionError: division by zero"),
    # the other worker must end, too, and without a word
    """try:
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    threading.Event().wait(60)
except RuntimeError:
    sys.exit("one died")
""": (1, "one died"),
    # as a scheduler and a terminal send them, to all processes, any number of times; the run still needs the others
    """[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT)]
for n in (signal.SIGTERM, signal.SIGINT) * 3:
    os.killpg(os.getpid(), n)
assert len(list(batches)) == 2
""": (0, ""),
}
RUN = """
import json, multiprocessing, os, signal, sys, threading
from pathlib import Path
import torch
from onceforall.data import Augment, FilePictures, Loader, TrainBatches
torch.set_num_threads(1)

def run():
    pictures = FilePictures(tuple(paths), torch.arange(len(paths)))
    return TrainBatches(pictures, [16], augment=Augment(), loader=Loader(4, workers=workers), seed=0).epoch(0)

if __name__ == "__main__":
    method, workers, endings, folder, *paths = sys.argv[1:]
    workers = int(workers)
    multiprocessing.set_start_method(method)
    for number, ending in enumerate(json.loads(endings)):
        if method == "fork" and os.fork():  # a process for each ending, and one that has imported torch for them all
            continue
        os.setsid()
        os.dup2(os.open(f"{folder}/{number}.err", os.O_CREAT | os.O_WRONLY), 2)
        batches = run()
        for images in batches:
            found = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
            Path(folder, f"{number}.part").write_text(json.dumps(found))
            Path(folder, f"{number}.part").rename(f"{folder}/{number}.json")
            exec(ending)
        sys.exit(0)
    for _ in range(len(json.loads(endings))):
        process, status = os.wait()
        Path(folder, f"{process}.code").write_text(str(os.waitstatus_to_exitcode(status)))
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def ended(tmp_path: Path, temporary: Path, pictures: FilePictures, endings: list[str], *, method: str = "fork",
          workers: int = 2) -> list[tuple[int, str]]:
    """Exit code and stderr of runs that have to end in seconds, as have their workers."""
    script = tmp_path / "run.py"
    script.write_text(RUN)
    run = subprocess.Popen([sys.executable, str(script), method, str(workers), json.dumps(endings), str(tmp_path),
                            *pictures.paths], env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(temporary)})
    try:
        run.wait(90)
    finally:
        run.kill()
        found = [json.loads(path.read_text()) for n in range(len(endings)) if (path := tmp_path / f"{n}.json").exists()]
        left = [process for group in found for process in group[1:] if alive(process)]
        for process in [group[0] for group in found if alive(group[0])] + left:
            os.kill(process, signal.SIGKILL)
    assert not left
    assert [len(group) for group in found] == [1 + workers] * len(endings)
    codes = [int((tmp_path / f"{group[0]}.code").read_text()) if method == "fork" else run.returncode
             for group in found]
    return list(zip(codes, ((tmp_path / f"{n}.err").read_text() for n in range(len(endings))), strict=True))


def alive(process: int) -> bool:
    """Whether it still is, a moment later."""
    for _ in range(100):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_however_a_run_ends_its_workers_do(tmp_path, temporary, file_pictures):
    for (ending, (code, last)), (found, errors) in zip(
            ENDINGS.items(), ended(tmp_path, temporary, file_pictures, list(ENDINGS)), strict=True):
        assert found == code, f"{ending}: {errors}"
        assert errors.strip().splitlines()[-1:] == ([last] if last else []), ending


@pytest.mark.slow
def test_however_they_were_started(tmp_path, temporary, file_pictures):
    """As Python starts them from 3.14 on: the run is not the parent of its workers."""
    ((code, errors),) = ended(tmp_path, temporary, file_pictures, ["raise RuntimeError('mine')"], method="forkserver",
                              workers=1)
    assert code == 1
    assert errors.strip().endswith("RuntimeError: mine")
    assert list(temporary.iterdir()) == []


def test_a_worker_that_runs_out_of_memory(file_pictures, monkeypatch):
    def greedy(*_: object, **__: object) -> None:
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 20, before[1]))
        try:
            bytearray(1 << 40)  # more than the heap has free, whatever ran in this process before
        finally:  # the worker still has to start a thread that tells of it
            resource.setrlimit(resource.RLIMIT_AS, before)
    monkeypatch.setattr("onceforall.data.training._load_each", greedy)
    with pytest.raises((MemoryError, RuntimeError, UserError)):
        list(batches(file_pictures))


def batches(pictures: FilePictures):
    return TrainBatches(pictures, [16], augment=Augment(), loader=Loader(4, workers=1), seed=0).epoch(0)


def test_a_batch_that_gets_lost_is_missed(file_pictures, monkeypatch):
    """What fails in the thread that hands batches over would otherwise be waited for without end."""
    monkeypatch.setattr(Batch, "__reduce__", lambda self: 1 / 0)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"data\.workers: DataLoader worker .*; use fewer workers"):
        list(batches(file_pictures))
    assert time.monotonic() - began < 30


def test_a_bus_error_is_one_line(file_pictures, monkeypatch, capfd):
    monkeypatch.setattr("onceforall.data.training._load_each", lambda *_, **__: os.kill(os.getpid(), signal.SIGBUS))
    with pytest.raises(UserError) as caught:
        list(batches(file_pictures))
    message = str(caught.value)
    assert "\n" not in message
    assert [words for words in ("Bus error", "/dev/shm", "--shm-size", "fewer workers") if words not in message] == []
    assert capfd.readouterr().err == ""


def test_a_temporary_folder_with_too_long_a_path(tmp_path, file_pictures, monkeypatch):
    folder = tmp_path / ("long" * 25)
    monkeypatch.setattr(serve, "get_temp_dir", lambda: str(folder))
    with pytest.raises(UserError, match=r"data\.workers: cannot be started: .*long is too long; set TMPDIR"):
        list(batches(file_pictures))
    assert len(list(eval_batches(file_pictures, 24, batch=4, workers=0))) == 4


def test_workers_that_cannot_be_started(file_pictures, monkeypatch):
    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", no_room)
    with pytest.raises(UserError, match=r"data\.workers: cannot be started: No space left .*/dev/shm"):
        list(batches(file_pictures))


@pytest.fixture
def fresh():
    """The warning, which is said once a process, is due."""
    serve._say_piped.cache_clear()
    yield
    serve._say_piped.cache_clear()


def full(_: torch.Tensor) -> None:
    raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")


@pytest.mark.usefixtures("fresh")
def test_without_room_in_shared_memory_the_pictures_come_by_pipe(file_pictures, monkeypatch, caplog):
    alone, shared = (list(eval_batches(file_pictures, 24, batch=4, workers=count)) for count in (0, 2))
    assert caplog.text == ""
    assert all(batch.images.is_shared() for batch in shared)
    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    for _ in range(2):
        piped = list(eval_batches(file_pictures, 24, batch=4, workers=2))
        assert not any(batch.images.is_shared() for batch in piped)
        assert [b.images.tolist() for b in piped] == [b.images.tolist() for b in alone]
        assert [(b.labels.tolist(), b.resolution) for b in piped] == [(b.labels.tolist(), b.resolution) for b in alone]
    assert len(caplog.records) == 1
    assert all(words in caplog.text for words in ("/dev/shm", "--shm-size", "fewer workers"))


def test_another_fault_of_sharing_is_no_lack_of_room(file_pictures, monkeypatch):
    def fail(_: torch.Tensor) -> None:
        raise RuntimeError("unable to mmap 9 bytes from file </torch_1>: Cannot allocate memory (12)")
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    with pytest.raises(RuntimeError, match="Cannot allocate memory"):
        list(eval_batches(file_pictures, 24, batch=4, workers=1))


SMALL_SHM = """
import sys, torch
from onceforall.data import FilePictures, eval_batches
torch.set_num_threads(1)
pictures = FilePictures(tuple(sys.argv[1:]), torch.arange(len(sys.argv[1:])))
kept = [list(eval_batches(pictures, 224, batch=4, workers=count)) for count in (0, 1)]  # keeping what was sent, too
assert all(torch.equal(a.images, b.images) for a, b in zip(*kept, strict=True))
print(sum(batch.images.is_shared() for batch in kept[1]), len(kept[1]))
"""


@pytest.mark.slow
def test_a_small_dev_shm(tmp_path, file_pictures):
    """As docker gives one: here 1 MiB, which one batch of four pictures of 224 pixels fits into."""
    mount = "mount -t tmpfs -o size=1m tmpfs /dev/shm"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "sh", "-c", mount], check=False,
                                                         capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    (tmp_path / "run.py").write_text(SMALL_SHM)
    done = subprocess.run(["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable,
                           str(tmp_path / "run.py"), *file_pictures.paths], check=False, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    shared, sent = map(int, done.stdout.split())
    assert 0 < shared < sent == 4
    assert done.stderr.count("\n") == 1
    assert "/dev/shm is full" in done.stderr
