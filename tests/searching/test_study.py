"""Measuring, learning and searching with a supernet: cached, resumable, shared between processes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onceforall.cost import macs
from onceforall.data import ArrayPictures, DataSet
from onceforall.errors import UserError
from onceforall.nn import Supernet
from onceforall.searching import score
from onceforall.searching.costs import costs
from onceforall.searching.evolution import Evolution
from onceforall.searching.record import front_arch, read_record
from onceforall.searching.score import Scorer
from onceforall.searching.search import Request, search
from onceforall.searching.study import Plan, study
from onceforall.space import search_space
from onceforall.training.evaluate import Evaluator

SPACE = search_space("mobilenet_v3_large_32px", width_mult=0.25).restrict(resolutions=(12, 16))


def pictures(count, seed):
    rng = torch.Generator().manual_seed(seed)
    return ArrayPictures(torch.randint(0, 256, (count, 3, 16, 16), generator=rng, dtype=torch.uint8),
                         torch.randint(0, 4, (count,), generator=rng))


DATA = DataSet(pictures(40, 0), pictures(30, 1), pictures(20, 2), tuple("abcd"), (0.5,) * 3, (0.3,) * 3)


@pytest.fixture(scope="module")
def net():
    return Supernet(SPACE, 4, generator=torch.Generator().manual_seed(0)).eval()


def archs(count):
    rng = random.Random(5)
    return [SPACE.sample(rng) for _ in range(count)]


class Counting(Evaluator):
    """How often something is scored."""

    scored = 0

    def score(self, *args):
        self.scored += 1
        return super().score(*args)


def test_scores_are_measured_once_and_kept(net, tmp_path):
    evaluator = Counting(DATA, calibration_images=20)
    first = Scorer(net, evaluator, tmp_path).scores(archs(4), split="held_out")
    assert first == [evaluator.score(net, arch, DATA.held_out).top1 for arch in archs(4)]
    evaluator.scored = 0
    file = tmp_path / "held_out.jsonl"
    file.write_text(file.read_text() + '{"arch": "16:k3e')  # torn by a stop
    again = Scorer(net, evaluator, tmp_path)
    assert again.scores([*archs(5), archs(1)[0]], split="held_out")[:4] == first
    assert evaluator.scored == 1
    assert len(file.read_text().splitlines()) == 5
    assert again.scores(archs(1), split="test") == [evaluator.score(net, archs(1)[0], DATA.test).top1]


def test_other_weights_are_measured_anew(net, tmp_path):
    evaluator = Counting(DATA, calibration_images=20)
    Scorer(net, evaluator, tmp_path).scores(archs(1), split="test")
    other = Supernet(SPACE, 4, generator=torch.Generator().manual_seed(1)).eval()
    Scorer(other, evaluator, tmp_path).scores(archs(1), split="test")
    assert evaluator.scored == 2
    row = json.loads((tmp_path / "test.jsonl").read_text().splitlines()[0])
    for broken in ([], {**row, "top1": 97}, {**row, "top1": float("nan")}, {**row, "top1": "0.5"}, {**row, "arch": 5}):
        (tmp_path / "test.jsonl").write_text("\n" + json.dumps(broken) + "\n")
        with pytest.raises(UserError, match=r"test\.jsonl:2: is no measured row .*; delete the line"):
            Scorer(net, evaluator, tmp_path)


def test_other_pictures_are_measured_anew(net, tmp_path):
    for data in (DATA, replace(DATA, test=ArrayPictures(255 - DATA.test.images, DATA.test.labels)),
                 replace(DATA, mean=(0.1,) * 3)):
        evaluator = Counting(data, calibration_images=20)
        Scorer(net, evaluator, tmp_path).scores(archs(1), split="test")
        assert evaluator.scored == 1
    assert len((tmp_path / "test.jsonl").read_text().splitlines()) == 3


def test_another_calibration_is_measured_anew(net, tmp_path, monkeypatch):
    def scored(data=DATA, images=20):
        evaluator = Counting(data, calibration_images=images)
        Scorer(net, evaluator, tmp_path).scores(archs(1), split="test")
        return evaluator.scored

    assert [scored(), scored(), scored(images=19), scored(images=19)] == [1, 0, 1, 0]
    # pictures that calibrate decide, not all that train
    drawn = DATA.calibration(20)
    assert scored(replace(DATA, train=replace(DATA.train, images=255 - DATA.train.images))) == 1
    assert scored(replace(DATA, train=drawn)) == 1  # another order of the same pictures
    monkeypatch.setattr(score, "CALIBRATION", score.CALIBRATION + 1)
    assert [scored(), scored()] == [1, 0]


@pytest.mark.parametrize(("request_", "message"), [
    (Request(objectives=("accuracy", "speed")), "objective speed: there is no such value here"),
    (Request(objectives=("accuracy",)), "objectives: accuracy: a front has two different ones or more"),
    (Request(limits={"macs": 1}), "limit on macs: no sub-network has 1 or less"),
    (Request(limits={"macs": 1e12, "params": 1}), "limit on params: no sub-network has 1 or less"),
])
def test_what_is_impossible_is_said_before_anything_is_measured(net, tmp_path, request_, message):
    with pytest.raises(UserError, match=message):
        search(SPACE, request_, num_classes=4, scorer=Scorer(net, Evaluator(DATA), tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("sizes", [(12, 16), (16,)])
def test_a_space_too_small_to_learn_from(net, tmp_path, sizes):
    """All of it is measured, and what was measured makes the front."""
    part = SPACE.restrict(kernel=(7,), expand=(6,), depth=(4,), resolutions=sizes)
    record = search(part, Request(), num_classes=4, scorer=Scorer(net, Evaluator(DATA), tmp_path))
    measured = {row.arch: row.measured for row in record.sampled}
    assert set(measured) == {part.largest.at(size) for size in sizes}
    assert record.front and all(row.predicted == measured[row.arch] for row in record.front)
    assert record.fitted is None
    record.write(tmp_path)
    assert read_record(tmp_path)["predictor"] is None


class Told(Scorer):
    """Accuracies that follow from the arch alone, no picture looked at."""

    def _measured(self, split, part):
        arch = part[0]
        blocks = [block for stage in arch.stages for block in stage]
        return 0.5 + sum(block["kernel"] * block["expand"] for block in blocks) / 3000 + arch.resolution / 400


@pytest.mark.slow
def test_a_study_learns_what_matters(net, tmp_path):
    priced = costs(SPACE, {}, num_classes=4)
    scorer = Told(net, Evaluator(DATA), tmp_path)
    learned = study(priced, ("accuracy", "macs"), (), scorer=scorer, plan=Plan(60, rounds=1, each=10),
                    evolution=Evolution(population=100, generations=30))
    assert len(learned.rows.top1) == 70
    found = [priced.space.decode(code) for code in learned.found.codes.tolist()]
    truth = np.array([scorer._measured("", [arch]) for arch in found])
    assert np.abs(truth + learned.found.values[:, 0]).mean() < 0.01
    limit = macs(SPACE, SPACE.largest, num_classes=4) // 2
    best = max(t for t, v in zip(truth, learned.found.values, strict=True) if v[1] <= limit)
    rng = random.Random(0)
    drawn = [arch for arch in (SPACE.sample(rng) for _ in range(2000)) if macs(SPACE, arch, num_classes=4) <= limit]
    assert best > max(scorer._measured("", [arch]) for arch in drawn)


@pytest.mark.slow
def test_search_of_a_net_writes_a_front_that_others_read(net, tmp_path):
    scorer = Told(net, Evaluator(DATA), tmp_path)
    request = Request(limits={"params": 2e5}, plan=Plan(20, rounds=1), measure=3, baseline=True,
                      evolution=Evolution(population=60, generations=10))
    record = search(SPACE, request, num_classes=4, scorer=scorer)
    record.write(tmp_path)
    values = json.loads((tmp_path / "front.json").read_text())
    assert values == json.loads(json.dumps(record.to_dict()))
    assert read_record(tmp_path) == read_record(tmp_path / "front.json")
    front = values["front"]
    assert read_record(tmp_path)["front"] == front
    assert [r["accuracy_predicted"] for r in front] == sorted(r["accuracy_predicted"] for r in front)
    assert sum(r["accuracy_measured"] is not None for r in front) == 3
    assert all(r["costs"]["params"] <= 2e5 for r in front)
    assert 20 < len(values["sampled"]) <= 36
    assert all(r["accuracy_measured"] is not None for r in values["sampled"])
    assert values["baseline"]
    for i in (0, len(front) - 1):
        arch = front_arch(tmp_path, i, SPACE)
        assert arch.to_genotype(SPACE) == front[i]["foreign"]["nnablanas"]["genotype"]
        assert macs(SPACE, arch, num_classes=4) == front[i]["costs"]["macs"]
    with pytest.raises(UserError, match="is a front of .*0.25, not of mobilenet_v3_large; search this one"):
        front_arch(tmp_path, 0, search_space("mobilenet_v3_large"))
    for change, message in (({"front": [1]}, r"is no front \(front.0: Input should be"),
                            ({"front": [{**front[0], "arch": 5}]}, r"is no front \(front.0.arch: Input should be"),
                            ({"objectives": None}, r"is no front \(objectives: Input should be a valid array\)"),
                            ({"front": [{**front[0], "arch": "16:k9e9"}]}, "row 0: arch: 1 stages are given")):
        (tmp_path / "broken.json").write_text(json.dumps({**values, **change}))
        with pytest.raises(UserError, match=message):
            front_arch(tmp_path / "broken.json", 0, SPACE)
    older = [{**{key: value for key, value in row.items() if key != "foreign"}, **row["foreign"]["nnablanas"]}
             for row in front]
    (tmp_path / "older.json").write_text(json.dumps({**values, "front": older}))
    assert read_record(tmp_path / "older.json")["front"] == front
    older[0]["genotype"] = older[0]["genotype"][::-1]
    (tmp_path / "older.json").write_text(json.dumps({**values, "front": older}))
    with pytest.raises(UserError, match="row 0: arch: .* is not what the genotype beside it says"):
        front_arch(tmp_path / "older.json", 1, SPACE)
    with pytest.raises(UserError, match=rf"--row: {len(front)} is not a row of .*; it has 0..{len(front) - 1}"):
        front_arch(tmp_path, len(front), SPACE)


def test_too_few_to_learn_from():
    with pytest.raises(UserError, match="--collect: 19 are too few to learn from; give 20 or more"):
        Plan(19)


@pytest.mark.slow
def test_two_processes_share_the_work(net, tmp_path):
    """Each measures every other sub-network; the rows are those of one process."""
    script = tmp_path / "score.py"
    script.write_text(textwrap.dedent(f"""
        import os, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        import torch
        from test_study import *
        from onceforall.searching.score import shared
        from onceforall.training.engine.distributed import detect, joined
        torch.set_num_threads(1)
        net = Supernet(SPACE, 4, generator=torch.Generator().manual_seed(0)).eval()
        processes = detect(os.environ)
        with joined(processes, torch.device("cpu")):
            scorer = Scorer(net, Counting(DATA, calibration_images=20), Path({str(tmp_path)!r}), processes=processes)
            with shared(scorer) as first:
                assert first == (processes.rank == 0)
                if first:
                    scorer.scores(archs(5), split="held_out")
                    scorer.scores(archs(2), split="test")
            Path({str(tmp_path)!r}, f"count{{processes.rank}}").write_text(str(scorer._evaluator.scored))
    """))
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(script)], check=True,
                   timeout=120)
    assert [int((tmp_path / f"count{rank}").read_text()) for rank in (0, 1)] == [4, 3]
    rows = [json.loads(line) for line in (tmp_path / "held_out.jsonl").read_text().splitlines()]
    alone = Scorer(net, Evaluator(DATA, calibration_images=20), tmp_path / "alone").scores(archs(5), split="held_out")
    assert {row["arch"]: row["top1"] for row in rows} == dict(zip(map(str, archs(5)), alone, strict=True))
