"""The report of what was exported."""

from __future__ import annotations

import json

import pytest

from onceforall.deploy.export import Request, export
from onceforall.report.gather import gather
from onceforall.report.page import figures, write

HOSTILE = "a <img src=x> & net"


@pytest.mark.slow
def test_a_report_shows_exports(folder, digits, tmp_path):
    place = tmp_path / "run" / "subnets" / HOSTILE
    place.parent.mkdir(parents=True)
    folder.rename(place)
    ((_, made),) = export(place, Request("torch-export"), digits).items()
    ((_, half),) = export(place, Request("torch-export", "fp16", max_loss=100), digits).items()
    for run in (gather(tmp_path / "run"), gather(place)):
        ((_, about),) = run.shipped.items()
        assert list(about.exports) == ["model.pt2", "model_fp16.pt2"]
        _, figure = figures(run)["Exports"]
        own = next(trace for trace in figure.data if trace.name == "fp32")
        assert list(own.x) == [made.verification.latency.ms]
        beside = next(trace for trace in figure.data if trace.name == "fp32 in the same runtime")
        assert list(beside.x) == [half.verification.latency.fp32_ms]
        torch_ms = figure.data[-1]
        assert torch_ms.x[0] == made.verification.latency.torch_ms
    write(gather(tmp_path / "run"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "<img" not in page
    assert "a &lt;img src=x&gt; &amp; net/model_fp16.pt2" in page
    assert f"{made.verification.pictures.same_top1} of 359 pictures" in page
    assert f"{half.verification.latency.fp32_ms:.3f}" in page
    assert ", ".join(half.verification.instructions) in page


@pytest.mark.slow
def test_descriptions_of_other_versions_are_left_out(folder, tmp_path, caplog):
    export(folder, Request("torch-export"))
    other = tmp_path / "subnets" / "old"
    other.mkdir(parents=True)
    (other / "model.json").write_text(json.dumps({"format": 1}))
    with caplog.at_level("WARNING", "onceforall"):
        assert list(gather(tmp_path).shipped) == [f"{tmp_path.name}/subnet"]
    assert "left out: " in caplog.text
    assert list(gather(tmp_path / "subnets", [folder]).shipped) == [str(folder)]
