"""Which rows train, which validate, which test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from downslope.errors import TableError

from .words import counted


@dataclass(frozen=True)
class Split:
    """Row indices, int64 and sorted; together they are every row once.

    Attributes:
        train: (training rows,).
        validation: (validation rows,).
        test: (test rows,).
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def split_rows(n: int, seed: int, *, validation: float = 0.2, test: float = 0.2) -> Split:
    """Divide rows at random; the same arguments give the same rows on any machine.

    The test rows do not depend on the fraction for validation, so that changing it never lets a
    former test row train (while there are rows enough for all).

    Args:
        n: the number of rows.
        seed: a whole number from 0 on.
        validation: the fraction of rows to validate with; at least one row unless it is 0.
        test: the fraction of rows to test with; at least one row unless it is 0.

    Raises:
        TableError: a fraction or the seed out of range, or too few rows for a row of each.

    >>> rows = split_rows(10, seed=0)
    >>> rows.train.size, rows.validation.size, rows.test.size
    (6, 2, 2)
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0 <= fraction < 1:
            raise TableError(f"{name} is a fraction from 0 to below 1; got {fraction}")
    if validation + test >= 1:
        raise TableError(
            f"validation and test must leave rows to train with; together they are "
            f"{validation + test:g} of the rows"
        )
    if not 0 <= seed < 2**128:
        raise TableError(f"a seed is a whole number from 0 to 2**128 - 1; got {seed}")
    parts = 1 + (validation > 0) + (test > 0)
    if n < parts:
        raise TableError(f"{counted(n, 'row')} cannot be divided into {parts} parts")
    testing = max(1, round(n * test)) if test else 0
    validating = max(1, round(n * validation)) if validation else 0
    # Rounding up both may take the last training row of a small table.
    if testing + validating >= n:
        testing = min(testing, n - parts + 1)
        validating = min(validating, n - testing - 1)
    # Raw Philox words are fixed for good; Generator.permutation may change between versions.
    words = np.random.Philox(key=seed).random_raw(n)
    order = np.argsort(words, kind="stable").astype(np.int64)
    return Split(
        train=np.sort(order[testing + validating :]),
        validation=np.sort(order[testing : testing + validating]),
        test=np.sort(order[:testing]),
    )
