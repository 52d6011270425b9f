"""What a network takes the pictures of each class for, in words, in model.json, and in what `ofa evaluate` prints."""

from __future__ import annotations

import json

import pytest
import torch

from onceforall.cli import main
from onceforall.export.confusion import ClassRow, by_class
from onceforall.export.description import Answers, read_description
from onceforall.export.folder import _rows_of


def test_rows_name_the_most_frequent_mistakes_first():
    counts = torch.tensor([[5, 1, 3, 1], [0, 4, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]])
    assert by_class(counts, ("ant", "bee", "cat")) == [
        ClassRow("ant", 10, 0.5, {"cat": 3, "bee": 1, "3": 1}),
        ClassRow("bee", 4, 1.0, {}),
        ClassRow("3", 2, 0.0, {"bee": 2})]


def test_counts_are_written_for_up_to_200_classes():
    counts = torch.zeros(200, 200, dtype=torch.int64)
    counts[3, 7] = 2
    assert _rows_of(counts) == [Answers(label=3, answer=7, images=2)]
    assert _rows_of(torch.ones(201, 201, dtype=torch.int64)) == []


def test_a_folder_and_the_command_tell_the_same(folder, capsys):
    about = read_description(folder)
    with pytest.raises(SystemExit) as end:
        main(["evaluate", str(folder), "--json"])
    rows = json.loads(capsys.readouterr().out)["classes"]
    assert end.value.code == 0
    assert [row["name"] for row in rows] == list("0123456789")
    assert sum(row["images"] for row in rows) == 359
    right = sum(found.images for found in about.confusion if found.label == found.answer)
    assert right == round(about.accuracy.top1 * 359) == round(sum(row["top1"] * row["images"] for row in rows))
    seven = {str(found.answer): found.images for found in about.confusion if found.label == 7 and found.answer != 7}
    assert rows[7]["taken_for"] == seven
    with pytest.raises(SystemExit):
        main(["evaluate", str(folder)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-10:]] == list("0123456789")


def test_many_classes_show_the_worst(capsys):
    from onceforall.cli.evaluate import _show
    rows = [ClassRow(f"class-{i}", 10, i / 10, {}) for i in range(30, -1, -1)]
    _show(rows)
    out = capsys.readouterr().out
    assert "the 20 of 31 classes that are told worst" in out
    assert "class-19" in out
    assert "class-20" not in out
