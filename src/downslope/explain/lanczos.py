"""The least and the largest eigenvalue of many symmetric matrices at once, from products alone.

C. Lanczos, "An iteration method for the solution of the eigenvalue problem" (1950), every new
direction made orthogonal to all before it. (Power iteration would find the eigenvalue that is
largest in size, which may be the negative one.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""(runs, size) -> (runs, size): each run's matrix times its vector."""

PRODUCTS = 60
"""Products that are made, at most."""

CLOSE = 1e-9
"""Relative change of both eigenvalues at which no further product is made, twice in a row."""

_NOTHING = 1e-10
"""Length of a new direction, against the largest eigenvalue, that is rounding alone: all that the
matrix makes of the first direction has been seen."""


def extremes(
    product: Product,
    size: int,
    runs: int,
    *,
    dtype: torch.dtype,
    products: int = PRODUCTS,
    close: float = CLOSE,
) -> tuple[Tensor, Tensor]:
    """The least and the largest eigenvalue of each run's matrix, (runs,) each; NaN where products
    are.

    Args:
        products: how many are made at most.
        close: relative change of both eigenvalues at which no further product is made, twice in a
            row.

    >>> matrix = torch.diag(torch.tensor([-3.0, 1.0, 2.0, 5.0], dtype=torch.float64))
    >>> least, largest = extremes(lambda v: v @ matrix, 4, 1, dtype=torch.float64)
    >>> round(float(least), 9), round(float(largest), 9)
    (-3.0, 5.0)
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(size, generator=generator, dtype=dtype).expand(runs, size)
    least = torch.full((runs,), torch.nan, dtype=dtype)
    largest, steady = least.clone(), 0
    for tridiagonal, ended in _growing(product, first, products):
        values = torch.linalg.eigvalsh(tridiagonal)
        size_of = values.abs().amax(1)
        moved = torch.maximum((values[:, 0] - least).abs(), (values[:, -1] - largest).abs())
        least = torch.where(ended, least, values[:, 0])
        largest = torch.where(ended, largest, values[:, -1])
        steady = steady + 1 if bool((ended | (moved <= close * size_of)).all()) else 0
        if steady > 1:
            break
    return least, largest


def newton(product: Product, gradients: Tensor, products: int = 20) -> tuple[Tensor, Tensor]:
    """How far a quadratic with these gradients still falls, and how far away its minimum is.

    ½ gᵀ H⁺ g and |H⁺ g| on the directions that products from g on reach, and in which the
    matrix is positive.

    Args:
        gradients: (runs, size).

    Returns:
        (runs,) each; NaN where gradients or products are.
    """
    lengths = gradients.norm(dim=1)
    falls = torch.where(lengths > 0, torch.nan, lengths)
    distances = falls.clone()
    for tridiagonal, ended in _growing(product, gradients, products):
        values, vectors = torch.linalg.eigh(tridiagonal)
        upward = values > _NOTHING * values.abs().amax(1, keepdim=True)
        step = torch.where(upward, vectors[:, 0] * lengths[:, None] / values, 0.0)
        going = ~ended & (lengths > 0)
        fall = (step * vectors[:, 0]).sum(1) * lengths / 2
        falls = torch.where(going, fall, falls)
        distances = torch.where(going, step.norm(dim=1), distances)
    return falls, distances


def _growing(product: Product, first: Tensor, products: int) -> Iterator[tuple[Tensor, Tensor]]:
    """After each product: the tridiagonal matrices so far, (runs, k, k), and which runs have seen
    all that their matrix makes of the first direction before this product."""
    runs, size = first.shape
    length = first.norm(dim=1)
    ended = ~(length > 0)
    unit = torch.where(ended[:, None], 0.0, first / torch.where(ended, 1.0, length)[:, None])
    basis = unit[:, None]
    tridiagonal = first.new_zeros(runs, products, products)
    for k in range(min(products, size)):
        image = product(basis[:, k])
        ended = ended | ~image.isfinite().all(1)
        image = torch.where(ended[:, None], 0.0, image)
        tridiagonal[:, k, k] = (image * basis[:, k]).sum(1)
        for _ in range(2):  # once leaves too much of the others
            image = image - ((basis @ image[:, :, None]).mT @ basis)[:, 0]
        yield tridiagonal[:, : k + 1, : k + 1], ended
        if k + 1 == min(products, size):
            return
        length = image.norm(dim=1)
        bound = tridiagonal[:, : k + 1, : k + 1].abs().sum(2).amax(1)  # no eigenvalue is larger
        ended = ended | (length <= _NOTHING * bound)
        if bool(ended.all()):
            return
        tridiagonal[:, k, k + 1] = tridiagonal[:, k + 1, k] = length
        next_one = image / torch.where(length > 0, length, 1.0)[:, None]
        basis = torch.cat([basis, next_one[:, None]], 1)
