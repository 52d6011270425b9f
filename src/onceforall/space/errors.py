"""The error a person's mistake becomes: one line with place, value, rule and remedy."""


class UserError(ValueError):
    """A mistake in what the user gave: `place` names where, `problem` the value and the rule it breaks.

    The command line prints it as one line and ends with exit code 2.
    """

    def __init__(self, place: str, problem: str, remedy: str = "") -> None:
        self.place, self.problem, self.remedy = place, problem, remedy
        super().__init__(f"{place}: {problem}" + (f"; {remedy}" if remedy else ""))
