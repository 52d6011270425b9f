"""Polish: the saved sub-networks of a finished run, each trained alone for some epochs from its weights there."""

from __future__ import annotations

from pathlib import Path

from onceforall.deploy.description import ABOUT, Description, read_description
from onceforall.deploy.folder import Scored, save_subnet
from onceforall.errors import UserError
from onceforall.nn import Subnet
from onceforall.recipes.summary import SUMMARY, read_summary, write_summary
from onceforall.space import Arch
from onceforall.training.engine.output import check_output, finished
from onceforall.training.engine.run import train
from onceforall.training.evaluate import Evaluator
from onceforall.training.setup import Options, data_of
from onceforall.training.stage import Stage, Training
from onceforall.weights.nets import open_weights, weights_file

POLISHED = "polished"  # the folder in a run's
RATE = 0.5  # of the last stage's learning rate


def polishing(last: Training, stage: Path, arch: Arch, *, epochs: int) -> Training:
    """What trains a sub-network alone: on the last stage's pictures, with its optimiser at half of its rate.

    The last stage's teacher teaches, or the largest sub-network of the run where that stage has none.

    Args:
        last: the run's last stage.
        stage: its folder.
        arch: the sub-network.
        epochs: how often every picture is seen.
    """
    weights, was = str(weights_file(stage)), last.stage
    teacher = last.teacher or last.as_teacher(weights)
    optimizer = was.optimizer.model_copy(update={"lr": RATE * was.optimizer.lr})
    return Training(
        data=last.data, network=last.network.model_copy(update={"weights": weights, "arch": str(arch)}),
        stage=Stage(epochs=epochs, optimizer=optimizer, teacher=teacher,
                    loss=was.loss.model_copy(update={"kd_weight": 1.0}), mixing=was.mixing, batches=was.batches,
                    safety=was.safety, validate_every=epochs, seed=was.seed))


def polish_all(last: Training, stage: Path, run: Path, options: Options, *, epochs: int) -> None:
    """Train each sub-network that a finished run has saved, and add what it reached to the summary.

    Args:
        last: the run's last stage.
        stage: its folder.
        run: the run's folder.
        options: how to run, in one process.
        epochs: of each.

    Raises:
        UserError: one of the sub-networks was polished otherwise before.
    """
    summary = read_summary(run / SUMMARY)
    for row in summary["subnets"]:
        training = polishing(last, stage, Arch.parse(last.network.space, row["arch"]), epochs=epochs)
        output = run / POLISHED / Path(row["path"]).name
        accuracy = _polished(training, output, options).accuracy
        assert accuracy is not None  # of a sub-network that was scored
        row["polished"] = {"epochs": epochs, "top1": accuracy.top1, "path": f"{POLISHED}/{output.name}"}
    write_summary(summary, run)


def _polished(training: Training, output: Path, options: Options) -> Description:
    """Train a sub-network in a folder, resuming what is there, and describe it there."""
    try:
        check_output(training, output, options)
    except UserError as error:
        raise UserError(error.place, error.problem, f"delete {output} to polish it anew") from None
    done = finished(output) and (output / ABOUT).exists()
    train(training, output, options)
    if not done:
        net, arch = open_weights(output).net, training.network.subnet
        assert isinstance(net, Subnet)  # a sub-network's training wrote it
        assert arch is not None
        options.compute.place(net)
        evaluator = Evaluator(data_of(training.data), options.compute, workers=training.data.workers)
        found = Scored.of(evaluator, net, training.network.space, arch)
        how = {"epochs": training.stage.epochs, "lr": training.stage.optimizer.lr}
        save_subnet(found.extracted, output, source=Path(str(training.network.weights)), finetuned=how)
    return read_description(output)
