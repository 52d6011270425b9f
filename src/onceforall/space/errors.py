"""The error a person's mistake becomes: one line with place, value, rule and remedy."""


class UserError(ValueError):
    """A mistake in what the user gave: `place` names where, `problem` the value and the rule it breaks.

    The command line prints it as one line and ends with exit code 2.
    """

    def __init__(self, place: str, problem: str, remedy: str = "") -> None:
        self.place, self.problem, self.remedy = place, problem, remedy
        line = f"{place}: {problem}" + (f"; {remedy}" if remedy else "")
        # what the user gave may hold line breaks, and characters that a terminal obeys
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))
