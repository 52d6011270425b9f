"""What a network takes the pictures of each class for, in words, in model.json, and in what `ofa evaluate` prints."""

from __future__ import annotations

import json

import pytest
import torch

from onceforall.cli import main
from onceforall.deploy.confusion import ClassRow, by_class
from onceforall.deploy.description import Answers, read_description
from onceforall.deploy.folder import _rows_of
from onceforall.report import classes
from onceforall.report.gather import Run
from onceforall.report.page import write


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


def test_the_report_shows_the_most_accurate_sub_network(folder, tmp_path):
    about = read_description(folder)
    worse = about.model_copy(update={"accuracy": about.accuracy.model_copy(update={"top1": 0.0})})
    unknown = about.model_copy(update={"accuracy": about.accuracy.model_copy(update={"top1": 1.0}), "confusion": []})
    hostile = about.model_copy(update={"classes": ["<b>0", *about.classes[1:]]})
    subnets = {"a": worse, "b": hostile, "c": unknown}
    name, best = classes.most_accurate(subnets)
    assert name == "b"
    figure = classes.heatmap(best).data[0]
    counts = {(found.label, found.answer): found.images for found in about.confusion}
    assert [[int(cell or 0) for cell in row] for row in figure.text] == [
        [counts.get((i, j), 0) for j in range(10)] for i in range(10)]
    assert figure.x[0] == "&lt;b&gt;0"
    rows = list(classes.table(best))
    assert [int(row[1]) for row in rows] == [sum(counts.get((i, j), 0) for j in range(10)) for i in range(10)]
    write(Run("run", {}, None, subnets), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "Accuracy of each class" in page
    assert "<b>0" not in page
    write(Run("run", {}, None, {"c": unknown}), tmp_path / "report.html")
    assert "Accuracy of each class" not in (tmp_path / "report.html").read_text()
