"""The command `ofa`: a thin file a verb, each parses, calls the library, prints."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `ofa` with these arguments (the command line's by default) and end the process.

    A user's mistake is one line on stderr and exit code 2, with a traceback only under --debug.
    """
    import typer

    from onceforall.cli.app import app
    from onceforall.cli.ending import line_of
    from onceforall.errors import UserError
    from onceforall.files import known, unwritable
    from onceforall.training.engine.stop import Stop

    _show_all_names()
    if "" not in sys.path:
        sys.path.append("")  # functions of the user's own, as module:name, may lie in the working directory
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug, stop = "--debug" in words, Stop()
    try:
        with stop:
            code = app([w for w in words if w != "--debug"], standalone_mode=False)
    except UserError as error:
        if debug:
            raise
        print(f"ofa: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except OSError as error:
        if debug or not known(error):
            raise
        verb = "used" if isinstance(error, PermissionError) else "written"
        print(f"ofa: {unwritable(error.filename or 'the output', error, verb=verb)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:  # only what `line_of` knows and click's own usage errors are answered here
        if not debug and (line := line_of(error)) is not None:
            print(f"ofa: {line}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        if not hasattr(error, "exit_code") or not hasattr(error, "format_message"):
            raise
        print(f"ofa: {error.format_message()}; see `ofa --help`", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    if stop.asked is not None:  # outside training, which has a line and a code of its own
        code = 128 + stop.asked
        print(f"ofa: stopped by {stop.asked.name}", file=sys.stderr)  # noqa: T201
    elif code == 130:  # of Ctrl-C, which typer's versions answer with this code, or with Abort
        print("ofa: stopped", file=sys.stderr)  # noqa: T201
    sys.exit(code or 0)


def _show_all_names() -> None:
    """Let the terminal show characters that its encoding lacks as Python writes them in a string."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
