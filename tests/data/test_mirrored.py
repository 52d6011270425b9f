"""Class names that tell of mirror images."""

from __future__ import annotations

import pytest

from onceforall.data import mirrored_classes


@pytest.mark.parametrize(("classes", "found"), [
    (("left", "right"), ("left", "right")),
    (("ant", "Turn-Right", "turn-left"), ("Turn-Right", "turn-left")),
    (("leftarrow", "rightarrow", "up"), ("leftarrow", "rightarrow")),
    (("northeast", "northwest"), ("northeast", "northwest")),
    (("clockwise", "counterclockwise"), ("clockwise", "counterclockwise")),
    (("anticlockwise", "clockwise", "still"), ("anticlockwise", "clockwise")),
    (("b", "d", "other"), ("b", "d")),
    (("letter_p", "letter_q"), ("letter_p", "letter_q")),
    (("hand l", "hand r"), ("hand l", "hand r")),
    (tuple("0123456789"), tuple("0123456789")),
    (("10", "20", "300"), ("10", "20", "300")),
    (("one", "two", "seven"), ("one", "two", "seven")),
    (("A", "C", "5"), ("A", "C", "5")),
    (("ant", "bee"), ()),
    (("bright", "dark"), ()),
    (("left", "up"), ()),
    (("bad", "dab"), ()),
    (("7", "cat"), ()),
])
def test_names(classes, found):
    assert mirrored_classes(classes) == found
