"""Polynomials whose largest error is least, and the rounding of their coefficients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp

KINDS = {"f32": np.float32, "f64": np.float64}
Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Fit:
    """A function to approximate by a polynomial.

    Attributes:
        name: what the coefficients are called.
        words: which function it is, in a comment.
        function: of the polynomial's own variable.
        weight: what an error counts; of the same variable.
        ends: the interval, for each kind of number.
        degrees: of the polynomial, for each kind of number.
    """

    name: str
    words: str
    function: Function
    weight: Function
    ends: dict[str, tuple[Any, Any]]
    degrees: dict[str, int]


def remez(function: Function, weight: Function, grid: list[Any], degree: int) -> tuple[Any, Any]:
    """The polynomial whose largest weighted error on the grid is least, and that error.

    Returns:
        Its coefficients (degree + 1,), the constant first, and the error.
    """
    wanted, weights = [function(t) for t in grid], [abs(weight(t)) for t in grid]
    last, count = len(grid) - 1, degree + 2
    chosen = [round(last * (1 - np.cos(np.pi * k / (count - 1))) / 2) for k in range(count)]
    for _ in range(15):
        matrix, right = mp.matrix(count, count), mp.matrix(count, 1)
        for row, place in enumerate(chosen):
            for power in range(degree + 1):
                matrix[row, power] = weights[place] * grid[place] ** power
            matrix[row, count - 1] = (-1) ** row
            right[row] = weights[place] * wanted[place]
        solved = mp.lu_solve(matrix, right)
        coefficients = [solved[k] for k in range(degree + 1)]
        errors = [
            w * (mp.polyval(coefficients[::-1], t) - f)
            for t, w, f in zip(grid, weights, wanted, strict=True)
        ]
        largest = max(abs(error) for error in errors)
        peaks = _peaks(errors)
        while len(peaks) > count:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) < count or largest < 1.01 * abs(solved[count - 1]):
            break
        chosen = peaks
    return coefficients, largest


def _peaks(errors: list[Any]) -> list[int]:
    """Where each run of errors of one sign is largest."""
    runs: list[list[int]] = [[0]]
    for place in range(1, len(errors)):
        if (errors[place] > 0) == (errors[place - 1] > 0):
            runs[-1].append(place)
        else:
            runs.append([place])
    return [max(run, key=lambda place: abs(errors[place])) for run in runs]


def rounded_fit(fit: Fit, kind: str) -> tuple[list[float], Any]:
    """The coefficients as numbers of that kind, and the largest weighted error with them."""
    low, high = fit.ends[kind]
    count = 26 * (fit.degrees[kind] + 2)  # even, so that 0 is never in the middle
    nodes = [mp.cos(mp.pi * (k + mp.mpf(1) / 2) / count) for k in range(count)]
    grid = [(low + high) / 2 - (high - low) / 2 * node for node in nodes]
    made, _ = remez(fit.function, fit.weight, grid, fit.degrees[kind])
    for power in range(len(made)):
        rounded = mp.mpf(float(KINDS[kind](float(made[power]))))
        lost, made[power] = made[power] - rounded, rounded
        shares = _shared_out(lost, power, len(made), fit.weight, grid)
        made[power + 1 :] = [c + d for c, d in zip(made[power + 1 :], shares, strict=True)]
    error = max(abs(fit.weight(t) * (mp.polyval(made[::-1], t) - fit.function(t))) for t in grid)
    return [float(c) for c in made], error


def _shared_out(lost: Any, power: int, count: int, weight: Function, grid: list[Any]) -> list[Any]:
    """What the higher powers should take over of lost × t^power: a weighted least-squares fit."""
    if power == count - 1:
        return []
    nodes = grid[:: len(grid) // (3 * count)]
    rows = [[weight(t) * t**k for k in range(power, count)] for t in nodes]
    matrix = mp.matrix([row[1:] for row in rows])
    right = mp.matrix([lost * row[0] for row in rows])
    return list(mp.lu_solve(matrix, right))  # of more equations than unknowns: least squares
