"""The verbs of `ofa`. What a verb needs is imported when it runs, so that `ofa --help` is quick."""

from __future__ import annotations

import typer

from onceforall.cli import (
    convert,
    data,
    evaluate,
    export,
    extract,
    finetune,
    fit,
    inspect,
    latency,
    predict,
    predictor,
    profile,
    report,
    search,
    train,
)

app = typer.Typer(
    help="Once-for-All: train one supernet by progressive shrinking, ship a sub-network for every device.",
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    epilog="`--debug` after any command shows a traceback where there is an error.")
VERBS = (fit.fit, data.data, train.train, inspect.inspect, evaluate.evaluate, extract.extract, finetune.finetune,
         export.export, search.search, predict.predict, report.report, convert.convert, profile.profile,
         latency.latency)
for verb in VERBS:
    app.command()(verb)  # under its own name
app.add_typer(predictor.app, name="predictor")
