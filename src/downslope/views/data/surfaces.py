"""The loss at many places that no run need have been at, for a cost that is bounded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from downslope.data import Rows
from downslope.explain.places import few_threads
from downslope.objective import MODEL_PREFIX
from downslope.problem import Problem
from downslope.problem_rows import row_blocks
from downslope.randomness import all_borrowed
from downslope.views.data.losses import Floats

_MOST_ROWS = 20_000_000
"""Rows that are evaluated for a surface, at most, all its places together."""

_MOST_OPERATIONS = 2.5e10
"""Multiplications and additions for a surface, at most: a few seconds."""

_FEWEST, _FINEST = 15, 61
"""Places along each side of a surface."""


@dataclass(frozen=True)
class Effort:
    """What a surface may cost.

    Attributes:
        side: places along each side.
        rows: training rows the loss is taken over, spread evenly; all of them where that is
            possible, or where a loss of some rows says nothing of all.
    """

    side: int
    rows: int


def effort(problem: Problem) -> Effort:
    """How fine a surface can be, and over how many rows."""
    if problem.train is None:
        return Effort(_FINEST, 0)
    count = len(problem.train)
    affordable = min(_MOST_ROWS, _MOST_OPERATIONS / _operations(problem))
    side = int(np.clip((affordable / count) ** 0.5, _FEWEST, _FINEST))
    if problem.joined == "whole":
        return Effort(side, count)
    return Effort(side, int(np.clip(affordable / side**2, min(count, 200), count)))


def _operations(problem: Problem) -> float:
    """Multiplications and additions for one row's loss, about."""
    few = min(len(problem.train or ()), 8)
    with all_borrowed(problem.device), torch.no_grad(), FlopCounterMode(display=False) as counter:
        problem.forward(problem.fresh(0).eval(), few)
    numbers = sum(shape.numel() for shape in problem.shapes.values())
    return max(counter.get_total_flops() / few, 2.0 * numbers, 1.0)


def loss_at(
    problem: Problem,
    points: Floats | Iterable[Floats],
    state: Mapping[str, Tensor] | None = None,
    rows: int = 0,
) -> Floats:
    """The loss over all training rows, in evaluation mode, at parameters (points, numbers).

    Args:
        state: parameters that are not descended, and buffers, by name, for all points; by default
            those that the problem starts with.
        rows: how many rows to take instead, spread evenly; 0 for all.

    Returns:
        (points,).
    """
    objective = problem.fresh(0).eval()
    model = objective.model
    values = [objective.get_parameter(MODEL_PREFIX + name) for name in problem.names]
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    train, scale = _some(problem, rows)
    blocks = [(slice(0, 0), 1.0)] if train is None else row_blocks(problem, train)
    found = []
    with few_threads(problem), all_borrowed(problem.device), torch.no_grad():
        for name, value in (state or {}).items():
            named[name].copy_(value)
        for point in points:
            flat = torch.from_numpy(point).split([v.numel() for v in values])
            for value, given in zip(values, flat, strict=True):
                value.copy_(given.reshape(value.shape))
            if train is None:
                found.append(float(objective()))
            else:
                parts = [w * float(objective(train[b].x, train[b].y)) for b, w in blocks]
                found.append(scale * sum(parts))
    return np.asarray(found, dtype=np.float64)


def _some(problem: Problem, rows: int) -> tuple[Rows | None, float]:
    """Some of the training rows, and what their loss is to be multiplied by."""
    train = problem.train
    if train is None or not 0 < rows < len(train):
        return train, 1.0
    chosen = np.unique(np.linspace(0, len(train) - 1, rows).round().astype(np.int64))
    scale = len(train) / len(chosen) if problem.joined == "sum" else 1.0
    return train[torch.from_numpy(chosen).to(train.x.device)], scale
