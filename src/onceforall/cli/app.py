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
app.command("fit")(fit.fit)
app.command("data")(data.data)
app.command("train")(train.train)
app.command("inspect")(inspect.inspect)
app.command("evaluate")(evaluate.evaluate)
app.command("extract")(extract.extract)
app.command("finetune")(finetune.finetune)
app.command("export")(export.export)
app.command("search")(search.search)
app.command("predict")(predict.predict)
app.command("report")(report.report)
app.command("convert")(convert.convert)
app.command("profile")(profile.profile)
app.add_typer(predictor.app, name="predictor")
