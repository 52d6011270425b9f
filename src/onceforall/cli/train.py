"""`ofa train`: one stage, or one sub-network, from a configuration file, with NNablaNAS's options."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from onceforall.cli.running import Every, Profile, Threads, compute_of, log_to_stderr, running
from onceforall.errors import UserError


def train(
    config_file: Annotated[Path | None, typer.Option("-f", "--config-file", help="configuration: NNablaNAS's JSON, or "
                                                     "a run's config.json")] = None,
    output_path: Annotated[Path | None, typer.Option("-o", "--output-path", help="folder to write; log/NAME of the "
                                                     "configuration by default")] = None,
    algorithm: Annotated[str | None, typer.Option("-a", "--algorithm", help="OFASearcher (the supernet, by default) "
                                                  "or OFATrainer (one sub-network)")] = None,
    search: Annotated[bool, typer.Option("-s", "--search", help="validate on what train_portion leaves of the "
                                         "training pictures")] = False,
    context: Annotated[str, typer.Option("-c", "--context", help="cpu, cudnn or auto")] = "auto",
    device_id: Annotated[int, typer.Option("-d", "--device-id", min=0, help="which GPU, one process")] = 0,
    type_config: Annotated[str, typer.Option("-t", "--type-config", help="float, half or bfloat16")] = "float",
    save_nnp: Annotated[bool, typer.Option("--save-nnp", help="accepted, without effect")] = False,
    no_visualize: Annotated[bool, typer.Option("--no-visualize", help="accepted, without effect")] = False,
    threads: Threads = None,
    profile: Profile = False,
    checkpoint_every: Every = None,
    print_schema: Annotated[bool, typer.Option("--print-schema", help="show what a configuration may hold")] = False,
) -> None:
    """Train one stage of progressive shrinking, alone or under mpirun, torchrun or srun; resumes a stopped run."""
    from onceforall.interop.nnabla.config import Config, schema

    if print_schema:
        typer.echo(json.dumps(schema(), indent=2))
        return
    if config_file is None:
        raise UserError("--config-file", "is missing", "give -f FILE.json; `ofa train --print-schema` shows its form")
    from onceforall.interop.nnabla.settings import their_places, training_of
    from onceforall.training.engine.distributed import detect
    from onceforall.training.engine.places import read_own
    from onceforall.training.engine.run import train as run

    own = read_own(config_file)
    config = None if own else Config.read(config_file)
    processes = detect(os.environ)
    log_to_stderr(processes)
    for option, given in (("--search", search), ("--algorithm", algorithm)):
        if own is not None and given:
            raise UserError(option, f"stands beside {config_file}, which says it itself", "leave it out")
    algorithm = algorithm or "OFASearcher"
    training = own if config is None else training_of(config, algorithm, search=search)
    assert training is not None  # of one of the two forms
    if processes.first:
        for flag, given in (("--save-nnp", save_nnp), ("--no-visualize", no_visualize)):
            if given:
                typer.echo(f"{flag} has no effect here", err=True)
    compute = compute_of(context, device_id, type_config, processes, option="--context", threads=threads)
    notes = () if config is None else tuple(config.ignored(algorithm))
    with (running(compute, processes, every=checkpoint_every, profile=profile, threads=threads, notes=notes) as options,
          nullcontext() if config is None else their_places(config)):
        run(training, output_path or Path("log") / config_file.stem, options)
