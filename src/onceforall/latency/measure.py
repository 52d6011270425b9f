"""From a job to a latency table of this machine, or to a folder that measures another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from onceforall.errors import UserError
from onceforall.files import parse_json, read_text, unwritable
from onceforall.latency import runner
from onceforall.latency.job import Job
from onceforall.latency.outputs import read_outputs
from onceforall.latency.serve import Served, check_runtime, serving, shapes_of
from onceforall.latency.table import LatencyTable, Timing, write_table

if TYPE_CHECKING:
    from onceforall.latency.runner import Hear, Open, Run, Values

Opened = tuple["Values", "Open", "Values"]  # the job's values, what opens its cases, what is said of the machine


def profile(job: Job, output: Path, hear: Hear = lambda record: None) -> LatencyTable:
    """Time the job's cases on this machine, and write the table.

    Timings are kept beside the table until it is written: the same call goes on after a stop.

    Args:
        job: what is timed.
        output: the table's file, .json; or .csv, which holds the timings alone.
        hear: hears of progress.

    Returns:
        The table.

    Raises:
        UserError: a setting is not possible, a package is missing, or timings of other settings are there.
    """
    partial = _partial(job, output)
    with _BACKENDS[job.settings.backend](job) as (values, open_case, about):
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            found = runner.measure(values, open_case, about, partial, hear)
        except runner.RefusedError as error:
            raise UserError(*error.args) from None
        except OSError as error:
            raise unwritable(error.filename or output, error) from None
    return _written(found, output, partial)


def serve(job: Job, output: Path, runtime: Path, *, host: str, port: int, say: Callable[[str], None],
          hear: Hear = lambda record: None) -> LatencyTable:
    """Serve a page that times the job's cases in the browser that opens it, and write the table that comes back.

    Args:
        job: what is timed.
        output: as of `profile`.
        runtime: the folder of onnxruntime-web's files.
        host: the address to listen at; 0.0.0.0: all of this machine's.
        port: 0: a free one.
        say: is told the page's address.
        hear: hears of progress.

    Returns:
        The table.

    Raises:
        UserError: as of `profile`; or a file of the runtime is missing; or the address cannot be used.
    """
    partial = _partial(job, output)
    check_runtime(runtime)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _graphs(job) as (values, graphs):
        served = Served(values, shapes_of(job.cases, job.settings.batch), graphs, runtime, partial, hear)
        with serving(served, host, port) as (address, run):
            say(address)
            run()
    assert served.table is not None  # it ends with it
    return _written(served.table, output, partial)


def imported(folder: Path, outputs: Path, output: Path, *, threads: int = 1) -> LatencyTable:
    """Make a table of what a runtime's benchmark tool printed on another device.

    Args:
        folder: as `make_runner` wrote it. The tool was run on each of its graphs.
        outputs: a folder with what it printed, KEY.txt for the graph KEY.onnx. Its name is that of the device.
        output: as of `profile`.
        threads: that the tool computed with.

    Returns:
        The table.

    Raises:
        UserError: an output is missing, was cut off, or is of another tool; or the folder is no runner's.
    """
    _check_output(output)
    try:
        values = parse_json(read_text(folder / runner.JOB, missing="`ofa profile --runner` writes one"), str(folder))
        cases = [case["key"] for case in values["parts"] + values["subnets"]]
    except (KeyError, TypeError):
        raise UserError(str(folder), "is no runner's folder", "`ofa profile --runner` writes one") from None
    tool, timings = read_outputs(outputs, cases)
    about = {**values["about"], "device": outputs.resolve().name, "cores": None, "threads": threads, "clock": "wall",
             "backend": tool, "versions": {**values["about"]["versions"], tool: ""}}
    found = runner.table_of(values, about, {(0, key): (t.ms, t.spread_ms, t.n) for key, t in timings.items()})
    return _written(found, output)


def _partial(job: Job, output: Path) -> Path:
    """The file of timings beside a table; raises UserError for settings or an output that are not possible."""
    job.settings.check()
    _check_output(output)
    return output.with_name(output.name + ".partial.jsonl")


def _check_output(output: Path) -> None:
    if output.suffix not in (".json", ".csv"):
        raise UserError("--output", f"{output} ends neither in .json nor in .csv", "a table is JSON or CSV")
    if output.is_dir():
        raise UserError("--output", f"{output} is a folder", "name a file in it")


def _written(found: Values, output: Path, partial: Path | None = None) -> LatencyTable:
    """Write a table, and remove the file of timings that it is made of."""
    table = LatencyTable({(row["resolution"], row["layer"]): Timing(row["ms"], row["spread_ms"], row["n"])
                          for row in found["timings"]}, found["about"], found["scale"], found["offset_ms"])
    write_table(table, output)
    if partial is not None:
        partial.unlink()
    return table


def make_runner(job: Job, folder: Path) -> None:
    """Write a folder whose run.py measures the job where it is run, with onnxruntime."""
    job.settings.check()
    if job.settings.backend != "onnxruntime":
        raise UserError("--runner", f"{job.settings.backend} does not run there", "take --backend onnxruntime")
    _needed("onnx", "onnx")
    from onceforall.latency.folder import write_folder
    try:
        write_folder(job, folder)
    except OSError as error:
        raise unwritable(error.filename or folder, error) from None


@contextmanager
def _onnxruntime(job: Job) -> Iterator[Opened]:
    _needed("onnxruntime", "onnx")
    threads = job.settings.threads
    with _graphs(job) as (values, graphs):
        yield values, runner.opener(graphs, threads), runner.machine(threads, "numpy", "onnxruntime")


@contextmanager
def _openvino(job: Job) -> Iterator[Opened]:
    openvino = _needed("openvino", "openvino")
    from onceforall.latency.openvino_core import core
    options = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": job.settings.threads}
    with _graphs(job) as (values, graphs):

        def open_case(key: str) -> Run:
            request = core().compile_model(graphs / f"{key}.onnx", "CPU", options).create_infer_request()
            request.set_input_tensor(openvino.Tensor(runner.pictures(request.get_input_tensor().shape)))
            infer: Run = request.infer
            return infer

        yield values, open_case, runner.machine(job.settings.threads, "numpy", "openvino")


@contextmanager
def _torch(job: Job) -> Iterator[Opened]:
    import torch

    from onceforall.latency.torch_cases import device_of, opener, threads
    device = device_of(job.settings.device)
    about = runner.machine(job.settings.threads, "numpy", "torch")
    if device.type == "cuda":
        about |= {"device": torch.cuda.get_device_name(device), "clock": "wall"}
    with threads(job.settings.threads):
        yield job.values(), opener(job.cases, device, job.settings.batch), about


_BACKENDS: dict[str, Callable[[Job], AbstractContextManager[Opened]]] = {
    "onnxruntime": _onnxruntime, "openvino": _openvino, "torch": _torch}


@contextmanager
def _graphs(job: Job) -> Iterator[tuple[Values, Path]]:
    """The job's values, and a folder with its graphs, which is removed afterwards."""
    _needed("onnx", "onnx")
    from onceforall.latency.folder import write_folder
    with TemporaryDirectory(prefix="ofa-profile-") as name:
        values = write_folder(job, Path(name))
        graphs = Path(name) / runner.GRAPHS
        runner.write_numbers(graphs, values["numbers"])
        yield values, graphs


def _needed(package: str, extra: str) -> Any:
    try:
        return import_module(package)
    except ImportError:
        raise UserError("--backend", f"the package {package} is not installed",
                        f"pip install 'onceforall[{extra}]'") from None
