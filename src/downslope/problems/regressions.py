"""Convex problems with data: least squares over condition numbers, and logistic regression.

The regressions are built backwards from their answer. With Q a matrix of orthogonal columns of
length √n, each of mean 0, the mean squared error of X w + b with X = Q S Vᵀ has the Hessian
2 V S² Vᵀ for w and 2 for b: its condition number over w is that of S². The noise is orthogonal to
every column and to 1, so it changes neither where the minimum is nor the curvature; its mean square
is the lowest loss.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from downslope.problem import Problem
from downslope.problems.entry import Entry

ROWS, FEATURES, NOISE = 200, 10, 0.1
WEIGHTS = np.linspace(-1.0, 1.0, FEATURES)
OFFSET = 0.5

Array = NDArray[np.float64]


def regression_rows(condition: float) -> tuple[Array, Array]:
    """X (200, 10) and y (200, 1) whose least squares has this condition number over the weights."""
    generator = np.random.default_rng(0)
    drawn = np.column_stack([np.ones(ROWS), generator.standard_normal((ROWS, FEATURES + 1))])
    columns = np.linalg.qr(drawn)[0][:, 1:] * np.sqrt(ROWS)
    turned = np.linalg.qr(generator.standard_normal((FEATURES, FEATURES)))[0]
    scales = np.geomspace(1 / np.sqrt(condition), 1, FEATURES)
    X = columns[:, :FEATURES] * scales @ turned.T
    y = X @ WEIGHTS + OFFSET + NOISE * columns[:, FEATURES]
    return X, y[:, None]


def logistic_rows(separable: bool) -> tuple[Array, Array]:
    """X (200, 5) and y (200, 1) of zeros and ones: two clouds, with a gap between them or not."""
    generator = np.random.default_rng(1)
    X = generator.standard_normal((ROWS, 5))
    y = (np.arange(ROWS) % 2).astype(float)
    if separable:  # each row is moved out of the gap, to its own side
        X[:, 0] = (0.5 + np.abs(X[:, 0])) * (2 * y - 1)
    else:
        X[:, 0] += 1.5 * (2 * y - 1) / 2
    return X, y[:, None]


def _problem(rows: tuple[Array, Array], loss: nn.Module) -> Problem:
    X, y = (torch.from_numpy(part).to(torch.float32) for part in rows)
    return Problem.from_model(lambda: nn.Linear(X.shape[1], 1), X, y, loss=loss)


def _regression(condition: int) -> Entry:
    return Entry(
        name=f"regression-{condition}",
        about=f"least squares, 200 rows, 10 features, condition number {condition:,}",
        source="by construction (see the module): closed form",
        make=lambda: _problem(regression_rows(condition), nn.MSELoss()),
        optimum=NOISE**2,
        minimisers=((*WEIGHTS.tolist(), OFFSET),),
        batch_size=32,
    )


REGRESSIONS = (
    _regression(1),
    _regression(30),
    _regression(1000),
    Entry(
        name="logistic-overlapping",
        about="logistic regression of two clouds that overlap: one finite minimum",
        source="D. R. Cox, Journal of the Royal Statistical Society B 20 (1958), 215–242; "
        "seeded data",
        make=lambda: _problem(logistic_rows(False), nn.BCEWithLogitsLoss()),
        optimum=0.46848155275010184,  # by Newton's method, as the tests do it again
        minimisers=(
            (1.383466803, -0.299974126, 0.141645373, -0.124666319, -0.179661729, 0.076687908),
        ),
        batch_size=32,
    ),
    Entry(
        name="logistic-separable",
        about="logistic regression of two clouds with a gap: the loss falls to 0, never reached",
        source="Soudry et al., Journal of Machine Learning Research 19 (2018), arXiv 1710.10345; "
        "seeded data",
        make=lambda: _problem(logistic_rows(True), nn.BCEWithLogitsLoss()),
        optimum=0.0,
        batch_size=32,
    ),
)
"""The convex problems with data, in the order in which they are listed."""
