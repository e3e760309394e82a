"""Curvature at places along many runs: their starts, ends, and some between."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downslope.engines.processes import threads
from downslope.explain.curvature import Curvature
from downslope.explain.lanczos import newton
from downslope.problem import Problem

Array = NDArray[np.float64]

DENSE = 32
"""Parameters up to which whole Hessians are made: that many products show everything."""

_NUMBERS = 2**25
"""Numbers that a block of places may make of its rows, about."""

_SHARED = 2**24
"""Numbers of a block from which on more than one thread pays."""

_CLOSE = 1e-3
"""How closely the extreme eigenvalues of larger models are measured, as a share of the larger."""

_FLAT = 1e-10
"""Curvatures below this share of the largest count as none."""


@dataclass(frozen=True)
class Places:
    """What was measured at places of runs, each (runs, places); NaN where a place is not finite.

    The loss is taken with its sign turned where it is maximised.

    Attributes:
        loss, gradient: the loss over all training rows and its gradient's norm.
        least, largest: eigenvalues of the Hessian.
        fall, distance: how far the loss still falls, and how far its minimum is, if it is the
            quadratic that it looks like there (directions of negative curvature left out).
        steepest: the gradient's part along the direction of largest curvature; NaN where the
            Hessian was not made as a whole.
    """

    loss: Array
    gradient: Array
    least: Array
    largest: Array
    fall: Array
    distance: Array
    steepest: Array

    def part(self, rows: NDArray[np.int64]) -> Places:
        """Those of some runs."""
        return Places(**{name: value[rows] for name, value in vars(self).items()})


def few_threads(problem: Problem) -> AbstractContextManager[None]:
    """One thread for problems so small that more of them would wait for each other."""
    rows = 1 if problem.train is None else len(problem.train)
    size = sum(shape.numel() for shape in problem.shapes.values())
    return threads(1 if size * rows < _SHARED else None)


def measure(
    curvature: Curvature,
    flat: Tensor,
    sign: float = 1.0,
    decay: Array | None = None,
    falls: bool = True,
) -> Places:
    """Curvature at places (runs, places, size); see `Places`.

    Args:
        decay: (runs,), the optimizer's weight decay, which bends what it descends as the loss does.
        falls: whether fall and distance are wanted of models with more than `DENSE` parameters.
    """
    runs, count, size = flat.shape
    rows = flat.reshape(runs * count, size)
    pull = torch.zeros(len(rows), dtype=torch.float64)
    if decay is not None:
        pull = torch.from_numpy(np.repeat(np.asarray(decay, np.float64), count))
    train = curvature.problem.train
    numbers = max(size, 1) * (1 if train is None else len(train))
    step = max(1, min(4096, _NUMBERS // numbers))
    small = min(step, len(rows)) * numbers < _SHARED
    with threads(1 if small else None):
        parts = [
            _measured(curvature, rows[a : a + step], sign, pull[a : a + step], falls)
            for a in range(0, len(rows), step)
        ]
    made = [torch.cat(columns).reshape(runs, count).numpy() for columns in zip(*parts, strict=True)]
    return Places(*made)


def _measured(
    curvature: Curvature, rows: Tensor, sign: float, decay: Tensor, falls: bool
) -> tuple[Tensor, ...]:
    gradients, losses = curvature.gradients(rows)
    gradients = sign * gradients.double() + decay[:, None] * rows.double()
    losses, norms = sign * losses.double(), gradients.norm(dim=1)
    if rows.shape[1] <= DENSE:
        pulled = decay[:, None, None] * torch.eye(rows.shape[1], dtype=torch.float64)
        matrices = sign * curvature.hessian(rows).double() + pulled
        return losses, norms, *_from_matrix(matrices, gradients)
    product = curvature.hessian_product(rows)
    least, largest = curvature.extremes(rows, close=_CLOSE)
    if sign < 0:
        least, largest = -largest, -least
    unknown = torch.full_like(losses, torch.nan)
    least, largest = least.double() + decay, largest.double() + decay
    if not falls:
        return losses, norms, least, largest, unknown, unknown, unknown
    pull = decay[:, None].to(curvature.dtype)
    left, distances = newton(lambda v: sign * product(v) + pull * v, gradients.to(curvature.dtype))
    return losses, norms, least, largest, left, distances, unknown


def _from_matrix(hessians: Tensor, gradients: Tensor) -> tuple[Tensor, ...]:
    """least, largest, fall, distance and steepest out of whole Hessians, (rows,) each."""
    good = hessians.isfinite().all(2).all(1) & gradients.isfinite().all(1)
    symmetric = torch.where(good[:, None, None], (hessians + hessians.mT) / 2, 0.0)
    values, vectors = torch.linalg.eigh(symmetric)
    along = (vectors.mT @ torch.where(good[:, None], gradients, 0.0)[:, :, None])[:, :, 0]
    upward = values > _FLAT * values.abs().amax(1, keepdim=True)
    steps = torch.where(upward, along / torch.where(upward, values, 1.0), 0.0)
    made = (
        values[:, 0],
        values[:, -1],
        (steps * along).sum(1) / 2,
        steps.norm(dim=1),
        along[:, -1].abs(),
    )
    return tuple(torch.where(good, value, torch.nan) for value in made)
