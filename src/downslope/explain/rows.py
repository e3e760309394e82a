"""What a problem's rows have to do with a run: scales of columns, numbers that are none."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from downslope.data import Rows
from downslope.problem import Problem

_SHOWN = 3
"""Columns up to which a sample's inputs are written out."""


@dataclass(frozen=True)
class Cell:
    """One number of the data.

    Attributes:
        row: its place among the training rows, from 0.
        column: in words: a feature's name, "column 3", "the target".
    """

    row: int
    column: str
    value: float


def column_name(problem: Problem, column: int) -> str:
    """A feature's name, in words."""
    if problem.table is not None:
        names = problem.table.schema.feature_names
        if column < len(names):
            return f"column {names[column]!r}"
    inputs = 1 if problem.train is None else problem.train.x[0].numel()
    return "x" if inputs == 1 else f"column {column}"


def not_finite(problem: Problem) -> Cell | None:
    """The first number of the training rows that is not finite."""
    for values, where in _numbers(problem):
        bad = (~values.isfinite()).nonzero()
        if len(bad):
            row, column = (int(number) for number in bad[0])
            name = column_name(problem, column) if where == "x" else "the target"
            return Cell(row, name, float(values[row, column]))
    return None


def largest(problem: Problem) -> Cell | None:
    """The largest number of the inputs in size."""
    for values, where in _numbers(problem):
        if where == "x" and values.numel():
            place = int(values.abs().argmax())
            row, column = divmod(place, values.shape[1])
            return Cell(row, column_name(problem, column), float(values[row, column]))
    return None


def _numbers(problem: Problem) -> list[tuple[Tensor, str]]:
    train = problem.train
    if train is None:
        return []
    pairs = [(train.x, "x")] + ([] if train.y is None else [(train.y, "y")])
    return [(v.reshape(len(v), -1).double(), where) for v, where in pairs if v.is_floating_point()]


def column_scales(problem: Problem) -> Tensor | None:
    """Root mean square of each column of the inputs, (columns,); None unless they are numbers in
    columns."""
    train = problem.train
    if train is None or not train.x.is_floating_point() or train.x.ndim > 2:
        return None
    return train.x.reshape(len(train), -1).double().square().mean(0).sqrt()


def standardised(problem: Problem) -> Problem | None:
    """The problem with each column of the inputs moved to mean 0 and scaled to deviation 1; a
    column that does not vary is divided by its size. None unless the inputs are columns."""
    train = problem.train
    if train is None or column_scales(problem) is None:
        return None
    x = train.x.double()
    mean, deviation = x.mean(0), x.std(0, correction=0)
    varies = deviation > 1e-12 * x.abs().amax(0)
    size = torch.where(x.abs().amax(0) > 0, x.abs().amax(0), 1.0)
    made = torch.where(varies, (x - mean) / torch.where(varies, deviation, 1.0), x / size)
    return replace(problem, train=Rows(made.to(train.x.dtype), train.y), given=None)


def without(problem: Problem, rows: list[int]) -> Problem:
    """The problem without these training rows."""
    assert problem.train is not None
    kept = torch.ones(len(problem.train), dtype=torch.bool)
    kept[rows] = False
    index = kept.nonzero()[:, 0]
    return replace(problem, train=problem.train[index], given=None)


def sample_in_words(problem: Problem, row: int) -> str:
    """A sample by its number, and its inputs where they are few."""
    train = problem.train
    if train is None:
        return f"sample {row}"
    x = train.x[row].reshape(-1)
    if len(x) > _SHOWN or not x.is_floating_point():
        return f"sample {row}"
    numbers = ", ".join(f"{value:.4g}".replace("-", "\N{MINUS SIGN}") for value in x.tolist())
    return f"sample {row} (x = {numbers})" if len(x) == 1 else f"sample {row} (x = ({numbers}))"


def bad_rows(problem: Problem) -> list[int]:
    """The training rows that hold a number that is not finite."""
    bad = np.zeros(0 if problem.train is None else len(problem.train), dtype=bool)
    for values, _ in _numbers(problem):
        bad |= ~values.isfinite().all(1).numpy()
    return [int(row) for row in np.flatnonzero(bad)]
