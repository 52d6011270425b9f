"""Conformance suites: what a search space, a strategy, a target, pictures or a network of one's own have to do.

Each is a function that raises AssertionError where a rule does not hold, for a test of one's own:

    def test_my_space():
        check_space(my_space())
"""

from onceforall.testing.module import check_module
from onceforall.testing.pictures import check_pictures
from onceforall.testing.space import check_space
from onceforall.testing.strategy import check_strategy
from onceforall.testing.target import check_target

__all__ = ["check_module", "check_pictures", "check_space", "check_strategy", "check_target"]
