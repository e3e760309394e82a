"""Small networks on real data that comes with scikit-learn, and two matrix problems.

Features and numeric targets are standardised. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from downslope.problem import Problem
from downslope.problems.entry import Entry, function_entry

Array = NDArray[np.float64]

DIGITS = 300
"""Rows of the digits that are used: the first ones."""


def _bundled(name: str) -> tuple[Array, Array]:
    """X (rows, features) and y (rows,) of a data set inside scikit-learn."""
    datasets = import_module("sklearn.datasets")  # when it is needed: it takes a while
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return np.asarray(X, dtype=float), np.asarray(y)


def _standard(values: Array) -> Array:
    """Mean 0 and deviation 1 in every column that is not constant."""
    deviation = values.std(0)
    return (values - values.mean(0)) / np.where(deviation > 0, deviation, 1.0)


def _digits() -> tuple[Array, Array]:
    """Digits as 16 numbers: the 8 × 8 images averaged over squares of 2 × 2."""
    X, y = _bundled("digits")
    images = X[:DIGITS].reshape(-1, 4, 2, 4, 2).mean((2, 4))
    return _standard(images.reshape(-1, 16)), y[:DIGITS]


def _mlp(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def _single(values: Array) -> Tensor:
    return torch.from_numpy(values).to(torch.float32)


def _diabetes() -> Problem:
    X, y = _bundled("diabetes")
    X, y = _standard(X), _standard(y[:, None])
    return Problem.from_model(lambda: _mlp(10, 8, 1), _single(X), _single(y), loss=nn.MSELoss())


def _breast_cancer() -> Problem:
    X, y = _bundled("breast_cancer")
    target = _single(y[:, None].astype(float))
    loss = nn.BCEWithLogitsLoss()
    return Problem.from_model(lambda: _mlp(30, 4, 1), _single(_standard(X)), target, loss=loss)


def _wine() -> Problem:
    X, y = _bundled("wine")
    target = torch.from_numpy(y.astype(np.int64))
    loss = nn.CrossEntropyLoss()
    return Problem.from_model(lambda: _mlp(13, 8, 3), _single(_standard(X)), target, loss=loss)


def _digits_classes() -> Problem:
    X, y = _digits()
    target = torch.from_numpy(y.astype(np.int64))
    return Problem.from_model(
        lambda: _mlp(16, 12, 10), _single(X), target, loss=nn.CrossEntropyLoss()
    )


def _digits_autoencoder() -> Problem:
    X = _single(_digits()[0])
    return Problem.from_model(lambda: _mlp(16, 4, 16), X, X, loss=nn.MSELoss())


def _sine() -> Problem:
    X = np.linspace(-np.pi, np.pi, 64)[:, None]
    make: Callable[[], nn.Module] = lambda: _mlp(1, 16, 1)  # noqa: E731
    return Problem.from_model(make, _single(X), _single(np.sin(X)), loss=nn.MSELoss())


def deep_linear_rows() -> tuple[Array, Array]:
    """X (64, 4), orthogonal columns of mean square 1, and y = X A of singular values 2, 1, ½, ¼."""
    generator = np.random.default_rng(2)
    X = np.linalg.qr(generator.standard_normal((64, 4)))[0] * 8.0
    left, _, right = np.linalg.svd(generator.standard_normal((4, 4)))
    return X, X @ (left * [2.0, 1.0, 0.5, 0.25] @ right)


def _deep_linear() -> Problem:
    X, y = deep_linear_rows()

    def net() -> nn.Module:
        return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))

    return Problem.from_model(net, _single(X), _single(y), loss=nn.MSELoss())


def _factors() -> tuple[Array, Array]:
    """Factors (8, 2) and (8, 2) of the matrix to be factorised."""
    generator = np.random.default_rng(3)
    return generator.standard_normal((8, 2)), generator.standard_normal((8, 2))


def factorisation(x: Tensor) -> Tensor:
    """Mean square of U Vᵀ − M, with U and V (8, 2) in x (32,), one after the other."""
    left, right = (torch.from_numpy(factor) for factor in _FACTORS)
    U, V = x[:16].reshape(8, 2), x[16:].reshape(8, 2)
    return ((U @ V.T - left @ right.T) ** 2).mean()


_FACTORS = _factors()
_START = np.random.default_rng(4).standard_normal(32).round(3).tolist()

NETWORKS = (
    Entry(
        name="diabetes",
        about="10-8-1 tanh network, 442 patients' disease progression",
        source="Efron, Hastie, Johnstone and Tibshirani, Annals of Statistics 32 (2004), 407–499",
        make=_diabetes,
        batch_size=32,
    ),
    Entry(
        name="breast-cancer",
        about="30-4-1 tanh network, 569 tumours, benign or malignant",
        source="W. N. Street, W. H. Wolberg and O. L. Mangasarian, SPIE 1905 (1993), 861–870",
        make=_breast_cancer,
        batch_size=32,
    ),
    Entry(
        name="wine",
        about="13-8-3 tanh network, 178 wines of three growers",
        source="M. Forina et al., PARVUS (1991); UCI Machine Learning Repository",
        make=_wine,
        batch_size=32,
    ),
    Entry(
        name="digits",
        about="16-12-10 tanh network, 300 handwritten digits of 4 × 4 pixels",
        source="E. Alpaydin and C. Kaynak, UCI Machine Learning Repository (1998)",
        make=_digits_classes,
        batch_size=32,
    ),
    Entry(
        name="digits-autoencoder",
        about="16-4-16 autoencoder of 300 handwritten digits of 4 × 4 pixels",
        source="G. E. Hinton and R. R. Salakhutdinov, Science 313 (2006), 504–507; data as digits",
        make=_digits_autoencoder,
        batch_size=32,
    ),
    Entry(
        name="sine",
        about="1-16-1 tanh network, one period of a sine, full batches",
        source="by construction",
        make=_sine,
    ),
    Entry(
        name="deep-linear",
        about="four linear layers of width 4 in a row: plateaus without any curvature of its own",
        source="A. M. Saxe, J. L. McClelland and S. Ganguli, ICLR 2014, arXiv 1312.6120",
        make=_deep_linear,
        optimum=0.0,
    ),
    function_entry(
        "matrix-factorisation",
        factorisation,
        _START,
        about="an 8 × 8 matrix of rank 2 as a product of two factors",
        source="Y. Koren, R. Bell and C. Volinsky, Computer 42 (2009), 30–37; seeded matrix",
        minimisers=(tuple(np.concatenate([f.ravel() for f in _FACTORS]).tolist()),),
    ),
)
"""The networks and matrix problems, in the order in which they are listed."""
