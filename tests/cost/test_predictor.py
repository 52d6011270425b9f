"""Accuracy predictors: on real ImageNet accuracies, against the authors' own, and what they refuse."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from onceforall.cli import main
from onceforall.cost.features import features
from onceforall.cost.measured import errors, read_rows
from onceforall.cost.population import CostTable
from onceforall.cost.predictor import cross_validated, fit_linear, fit_mlp
from onceforall.cost.predictor_file import load, save
from onceforall.errors import UserError
from onceforall.space import search_space
from onceforall.weights.torch_file import loaded

SPACE = search_space("mobilenet_v3_large")
SMALL = search_space("mobilenet_v3_large_32px").restrict(depth=(2, 3))


@pytest.fixture(scope="module")
def rows(reference_data):
    return read_rows(reference_data / "ofa_mbv3_imagenet_top1.jsonl", SPACE)


def drawn(space, count, seed=0):
    rng = random.Random(seed)
    return np.array([space.encode(space.sample(rng)) for _ in range(count)])


def test_a_linear_model_of_the_columns_is_a_table():
    columns = features(SMALL, [12, 20])
    codes, rng = drawn(SMALL, 200), np.random.default_rng(0)
    weights = rng.normal(size=len(columns.groups))
    np.testing.assert_allclose(columns.table(weights, 0.3).of(codes), columns.matrix(codes) @ weights + 0.3, rtol=1e-9)


@pytest.mark.slow
def test_what_decides_the_accuracy_is_found():
    """Kernel 3 in the second stage costs accuracy, resolution brings it; nothing else matters."""
    codes = drawn(SMALL, 300)
    columns = features(SMALL, [12])
    truth = 0.6 + 0.01 * codes[:, 0] - 0.05 * (columns.blocks[3, :, :].any(1)[0] + (codes[:, 9] == 0))
    predicted = fit_linear(SMALL, codes[:200], truth[:200], 0).of(codes[200:])
    assert np.corrcoef(predicted, truth[200:])[0, 1] > 0.99
    other = fit_mlp(SMALL, codes[:200], truth[:200], 0).of(codes[200:])
    assert np.corrcoef(other, truth[200:])[0, 1] > 0.8


@pytest.mark.slow
def test_on_real_accuracies(rows):
    """Half the rows fitted, half tested (one split; ten are in the benchmark)."""
    order = np.random.default_rng(0).permutation(len(rows.top1))
    a, b = order[:700], order[700:]
    model = fit_linear(SPACE, rows.codes[a], rows.top1[a], 0)
    score = errors(model.of(rows.codes), rows)
    tested = errors(model.of(rows.codes[b]), type(rows)(SPACE, rows.codes[b], rows.top1[b]))
    assert tested.tau > 0.895
    assert np.mean(list(tested.tau_within.values())) > 0.735
    assert score.tau > tested.tau
    assert list(tested.tau_within) == ["128", "160", "192"]


def test_cross_validation_leaves_out(rows):
    """A regressor that knows its rows by heart is no better than chance on those left out."""
    def by_heart(space, codes, top1, seed):
        known = {tuple(code): value for code, value in zip(codes.tolist(), top1, strict=True)}

        class Model:
            def of(self, asked):
                return np.array([known.get(tuple(code), 0.0) for code in asked.tolist()])
        return Model()

    assert not cross_validated(by_heart, SPACE, rows.codes, rows.top1, seed=0).any()


def test_the_authors_predictor(reference_data):
    """Their network on one-hot vectors, put together here by hand."""
    path = reference_data / "mit" / "ofa_mbv3_w1.2_acc_predictor.pth"
    space = search_space("mobilenet_v3_large", width_mult=1.2)
    model, state = load(path, space=space), loaded(path)
    assert model.space.resolutions == (128, 144, 160, 176, 192, 208, 224)
    rng = random.Random(3)
    for arch in [model.space.sample(rng) for _ in range(30)]:
        values, x = arch.to_dict(model.space), torch.zeros(128)
        for slot in range(20):
            if slot % 4 < values["d"][slot // 4]:
                x[3 * slot + (3, 5, 7).index(values["ks"][slot])] = 1
                x[60 + 3 * slot + (3, 4, 6).index(values["e"][slot])] = 1
        x[120 + (arch.resolution - 112) // 16] = 1
        for i in (0, 2, 4, 6):
            x = torch.relu(x) if i else x
            x = state[f"{i}.weight"] @ x + state[f"{i}.bias"]
        assert model.of(np.array([model.space.encode(arch)]))[0] == pytest.approx(x.item(), abs=1e-6)
    with pytest.raises(UserError, match="does not fit mobilenet_v3_large_32px"):
        load(path, space=search_space("mobilenet_v3_large_32px"))


@pytest.mark.parametrize("fit", [fit_linear, fit_mlp])
def test_a_predictor_comes_back(tmp_path, fit):
    codes = drawn(SMALL, 60)
    model = fit(SMALL, codes, codes[:, 0] / 10, 0)
    save(model, tmp_path / "p", about={"regressor": "x"})
    back = load(tmp_path / "p", space=SMALL.restrict(resolutions=(12,)))
    assert type(back) is type(model)
    assert np.array_equal(back.of(codes), model.of(codes))
    with pytest.raises(UserError, match="predicts for mobilenet_v3_large_32px, not for mobilenet_v3_large"):
        load(tmp_path / "p", space=SPACE)


def test_the_linear_model_is_fast():
    assert isinstance(fit_linear(SMALL, drawn(SMALL, 30), np.linspace(0, 1, 30), 0), CostTable)


@pytest.mark.slow
def test_on_the_command_line(tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["predictor", *map(str, arguments)])
        return end.value.code, *capsys.readouterr()

    rng, lines = random.Random(0), []
    for _ in range(60):
        arch = SPACE.sample(rng)
        values = {"arch": str(arch)} if rng.random() < 0.5 else arch.to_dict(SPACE)
        lines.append(json.dumps({**values, "top1": arch.resolution / 400}))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    code, out, err = run("fit", path, "-o", tmp_path / "p", "--json")
    assert code == 0, err
    assert json.loads(out)["regressor"] == "linear"
    code, out, _ = run("test", tmp_path / "p", path, "--json")
    score = json.loads(out)
    assert list(score) == ["rows", "rmse", "tau", "tau_within"]
    assert score["rows"] == 60
    assert score["tau"] > 0.95
    bad = tmp_path / "bad.jsonl"
    for text, message in [
            ("", "has 0 rows"), ("{", "bad.jsonl:1: is not JSON"), ('{"top1": 0.5}', "bad.jsonl:1: arch.d: is missing"),
            ('{"ks": 3, "e": 3, "d": 2, "top1": 70}', "top1: 70 is not within 0..1"),
            ('{"ks": 3, "e": 3, "d": 2}', "top1: is missing"), ("[1]", "top1: is missing"),
            ('{"ks": 9, "e": 3, "d": 2, "top1": 0.5}', "kernel 9 is not one of 3, 5, 7")]:
        bad.write_text(text)
        code, _, err = run("fit", bad, "-o", tmp_path / "q")
        assert (code, err.count("\n")) == (2, 1), text
        assert message in err
        assert not (tmp_path / "q").exists()
    code, _, err = run("fit", path, "-o", "/proc/p")
    assert (code, err.count("\n")) == (2, 1)
    assert "/proc/p: cannot be written" in err
    for predictor in (path, bad, tmp_path / "nothing"):
        code, _, err = run("test", predictor, path)
        assert (code, err.count("\n")) == (2, 1)
        assert str(predictor) in err
