"""The least and the largest eigenvalue of many symmetric matrices at once, from products alone.

C. Lanczos, "An iteration method for the solution of the eigenvalue problem" (1950), every new
direction made orthogonal to all before it. (Power iteration would find the eigenvalue that is
largest in size, which may be the negative one.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""(runs, size) -> (runs, size): each run's matrix times its vector."""

PRODUCTS = 60
"""Products that are made, at most."""

_CLOSE = 1e-9
"""Relative change of both eigenvalues at which no further product is made, twice in a row."""

_NOTHING = 1e-10
"""Length of a new direction, against the largest eigenvalue, that is rounding alone: all that the
matrix makes of the first direction has been seen."""


def extremes(
    product: Product, size: int, runs: int, *, dtype: torch.dtype, products: int = PRODUCTS
) -> tuple[Tensor, Tensor]:
    """The least and the largest eigenvalue of each run's matrix, (runs,) each; NaN where products
    are.

    >>> matrix = torch.diag(torch.tensor([-3.0, 1.0, 2.0, 5.0], dtype=torch.float64))
    >>> least, largest = extremes(lambda v: v @ matrix, 4, 1, dtype=torch.float64)
    >>> round(float(least), 9), round(float(largest), 9)
    (-3.0, 5.0)
    """
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(size, generator=generator, dtype=dtype)
    basis = (first / first.norm()).expand(runs, 1, size).clone()
    tridiagonal = torch.zeros(runs, products, products, dtype=dtype)
    least = torch.full((runs,), torch.nan, dtype=dtype)
    largest, ended, steady = least.clone(), torch.zeros(runs, dtype=torch.bool), 0
    for k in range(min(products, size)):
        image = product(basis[:, k])
        ended |= ~image.isfinite().all(1) | image.isnan().any(1)
        image = torch.where(ended[:, None], 0.0, image)
        tridiagonal[:, k, k] = (image * basis[:, k]).sum(1)
        for _ in range(2):  # once leaves too much of the others
            image = image - ((basis @ image[:, :, None]).mT @ basis)[:, 0]
        values = torch.linalg.eigvalsh(tridiagonal[:, : k + 1, : k + 1])
        size_of = values.abs().amax(1)
        moved = torch.maximum((values[:, 0] - least).abs(), (values[:, -1] - largest).abs())
        least = torch.where(ended, least, values[:, 0])
        largest = torch.where(ended, largest, values[:, -1])
        steady = steady + 1 if bool((ended | (moved <= _CLOSE * size_of)).all()) else 0
        length = image.norm(dim=1)
        ended |= length <= _NOTHING * size_of
        if steady > 1 or bool(ended.all()) or k + 1 == min(products, size):
            break
        tridiagonal[:, k, k + 1] = tridiagonal[:, k + 1, k] = length
        next_one = image / torch.where(length > 0, length, 1.0)[:, None]
        basis = torch.cat([basis, next_one[:, None]], 1)
    return least, largest
