"""The error a person's mistake becomes: one line with place, value, rule and remedy."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """A mistake in what the user gave: `place` names where, `problem` the value and the rule it breaks.

    The command line prints it as one line and ends with exit code 2.
    """

    def __init__(self, place: str, problem: str, remedy: str = "") -> None:
        self.place, self.problem, self.remedy = place, problem, remedy
        super().__init__(printable(f"{place}: {problem}" + (f"; {remedy}" if remedy else "")))


@contextmanager
def within(place: str) -> Iterator[None]:
    """Put a place before that of every UserError that is raised inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error.place}", error.problem, error.remedy) from None


def printable(text: str) -> str:
    """Text on one line that no terminal obeys: control characters, and bytes of a file name that are no text, as
    Python writes them in a string."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
