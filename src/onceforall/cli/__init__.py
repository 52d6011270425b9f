"""The command `ofa`: a thin file a verb, each parses, calls the library, prints."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `ofa` with these arguments (the command line's by default) and end the process.

    A user's mistake is one line on stderr and exit code 2, with a traceback only under --debug.
    """
    import typer

    from onceforall.cli.app import app
    from onceforall.space import UserError

    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        code = app([w for w in words if w != "--debug"], standalone_mode=False)
    except UserError as error:
        if debug:
            raise
        print(f"ofa: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        where = error.filename or "the output"
        print(f"ofa: {where}: cannot be written: {error.strerror}; free some space", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:  # only dead workers and click's own usage errors are answered here
        if isinstance(error, RuntimeError) and (worker := _dead_worker(error)) and not debug:
            print(f"ofa: {worker}", file=sys.stderr)  # noqa: T201
            sys.exit(2)
        if not hasattr(error, "exit_code") or not hasattr(error, "format_message"):
            raise
        print(f"ofa: {error.format_message()}; see `ofa --help`", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    if code == 130:  # of Ctrl-C, which typer's versions answer with this code, or with Abort
        print("ofa: stopped; the same command again goes on from the last checkpoint", file=sys.stderr)  # noqa: T201
    sys.exit(code or 0)


def _dead_worker(error: RuntimeError) -> Exception | None:
    from onceforall.data.serve import died  # imports torch

    return died(error)
