"""Accuracy predictors: top-1 of encoded sub-networks, learned from measured ones (Cai et al. 2020, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from onceforall.cost.features import Features, Floats, features
from onceforall.cost.measured import Errors, Measured, errors
from onceforall.cost.population import Codes, CostTable
from onceforall.space import SearchSpace

if TYPE_CHECKING:
    from torch import Tensor

_EVIDENCE_ROWS = 1500  # more change the variances little and cost their cube
_MEMBERS, _WIDTH, _EPOCHS = 5, 64, 400


class Predictor(Protocol):
    """Predicts top-1 in [0, 1] of a space's sub-networks."""

    @property
    def space(self) -> SearchSpace:
        """The space whose encoding it takes."""

    def of(self, codes: Codes) -> Floats:
        """Top-1 (N,) of sub-networks (N, genes) as `SearchSpace.encode` writes them."""


@dataclass(frozen=True, eq=False)
class Mlp:
    """The mean of several multilayer perceptrons with ReLU on a space's columns.

    `layers`: for each layer the weights (members, outputs, inputs) and the bias (members, outputs); the result is
    times `scale` plus `base`.
    """

    columns: Features
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]
    scale: float = 1.0
    base: float = 0.0

    @property
    def space(self) -> SearchSpace:
        return self.columns.space

    def of(self, codes: Codes) -> Floats:
        x = self.columns.matrix(codes, times_size=False).astype(np.float32)[None]
        for i, (weight, bias) in enumerate(self.layers):
            x = np.maximum(x, 0) if i else x
            x = x @ weight.transpose(0, 2, 1) + bias[:, None]
        return np.asarray(self.base + self.scale * x[:, :, 0].mean(0), np.float64)


Fit = Callable[[SearchSpace, Codes, Floats, int], Predictor]


def fit_linear(space: SearchSpace, codes: Codes, top1: Floats, seed: int) -> CostTable:
    """A linear model of block features, which is a table: good from few rows on.

    Bayesian ridge regression with one prior variance for each group of columns, found by maximising the evidence
    (MacKay 1992), so that the rows decide whether a choice counts alike everywhere or in each slot by itself.
    """
    columns = _columns(space, codes)
    mean, spread = _standard(top1)
    matrix, target = columns.matrix(codes), (top1 - mean) / spread
    some = np.random.default_rng(seed).permutation(len(target))[:_EVIDENCE_ROWS]
    prior, noise = _variances(matrix[some], target[some], columns.groups)
    precision = (matrix.T * noise ** -1) @ matrix + np.diag(1 / prior)
    weights = np.asarray(np.linalg.solve(precision, matrix.T @ target / noise), np.float64)
    return columns.table(weights * spread, mean)


def fit_mlp(space: SearchSpace, codes: Codes, top1: Floats, seed: int) -> Mlp:
    """An ensemble of small perceptrons, the authors' kind of predictor: better than a linear one with many rows."""
    import torch

    columns = _columns(space, codes)
    mean, spread = _standard(top1)
    matrix = torch.from_numpy(columns.matrix(codes, times_size=False)).float()
    target = torch.from_numpy((top1 - mean) / spread).float()
    members = [_perceptron(matrix.shape[1], seed * 1000 + member) for member in range(_MEMBERS)]
    layers = [torch.stack(parts).requires_grad_() for parts in zip(*members, strict=True)]  # weights, bias, weights, ..
    optimizer = torch.optim.AdamW(layers, lr=3e-3, weight_decay=0.1, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=_EPOCHS)
    for _ in range(_EPOCHS):
        out = matrix.expand(_MEMBERS, -1, -1)
        for i in range(0, len(layers), 2):
            out = torch.baddbmm(layers[i + 1][:, None], out.relu() if i else out, layers[i].transpose(1, 2))
        optimizer.zero_grad()
        (out[:, :, 0] - target).square().mean(1).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    arrays = [layer.detach().numpy() for layer in layers]
    return Mlp(columns, tuple(zip(arrays[::2], arrays[1::2], strict=True)), spread, mean)


def _perceptron(inputs: int, seed: int) -> list[Tensor]:
    """Weights and bias of each layer, as torch begins with them."""
    import torch
    from torch import nn

    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(inputs, _WIDTH), nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 1))
    return [parameter.detach() for parameter in net.parameters()]


REGRESSORS: dict[str, Fit] = {"linear": fit_linear, "mlp": fit_mlp}


@dataclass(frozen=True, eq=False)
class Fitted:
    """The regressor that cross-validation found best, fitted on all rows; the errors of each of them, and what the best
    one predicted for each row (N,) without having seen it."""

    predictor: Predictor
    regressor: str
    errors: Mapping[str, Errors]
    left_out: Floats


def fit_best(rows: Measured, *, seed: int = 0, regressors: Sequence[str] = ("linear", "mlp")) -> Fitted:
    """Choose between regressors of REGRESSORS by the error on rows that they were not fitted on.

    A later one is taken only where it is better by more than a standard error: a search goes to where a predictor errs
    upwards, and a flexible one errs further there.
    """
    unseen = {name: cross_validated(REGRESSORS[name], rows.space, rows.codes, rows.top1, seed=seed)
              for name in regressors}
    squares = {name: (values - rows.top1) ** 2 for name, values in unseen.items()}
    best = regressors[0]
    for name in regressors[1:]:
        gain = squares[best] - squares[name]
        if gain.mean() > gain.std() / len(gain) ** 0.5:
            best = name
    return Fitted(REGRESSORS[best](rows.space, rows.codes, rows.top1, seed), best,
                  {name: errors(values, rows) for name, values in unseen.items()}, unseen[best])


def cross_validated(fit: Fit, space: SearchSpace, codes: Codes, top1: Floats, *, seed: int, folds: int = 5) -> Floats:
    """What a regressor predicts for each row (N,) when that row's fold is left out."""
    order = np.random.default_rng(seed).permutation(len(top1))
    out = np.empty(len(top1))
    for part in np.array_split(order, folds):
        rest = np.setdiff1d(order, part)
        out[part] = fit(space, codes[rest], top1[rest], seed).of(codes[part])
    return out


def _columns(space: SearchSpace, codes: Codes) -> Features:
    return features(space, [space.resolutions[i] for i in np.unique(codes[:, 0])])


def _standard(values: Floats) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def _variances(matrix: Floats, target: Floats, groups: NDArray[np.intp]) -> tuple[Floats, float]:
    """The prior variance of each column, and the noise variance, that maximise the evidence."""
    eye = np.eye(len(target))
    kernels = [part @ part.T for part in (matrix[:, groups == g] for g in range(groups.max() + 1))]

    def loss(logs: Floats) -> tuple[float, Floats]:
        parts = [np.exp(log) * kernel for log, kernel in zip(logs, [*kernels, eye], strict=True)]
        factor = cho_factor(sum(parts), lower=True)
        explained, inverse = cho_solve(factor, target), cho_solve(factor, eye)
        slope = inverse - np.outer(explained, explained)
        value = 0.5 * target @ explained + np.log(np.diag(factor[0])).sum()
        return float(value), np.array([0.5 * np.vdot(slope, part) for part in parts])

    start = np.full(len(kernels) + 1, -4.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-14.0, 6.0)] * len(start),
                     options={"maxiter": 60})
    variances = np.exp(found.x)
    return variances[:-1][groups], float(variances[-1])
