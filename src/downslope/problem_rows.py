"""A problem's rows: kept apart for validation, in blocks for evaluation, in double precision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from downslope.data import Rows, as_tensor
from downslope.errors import InputError, ProblemError
from downslope.problem import Problem
from downslope.randomness import borrowed

EVALUATED_ROWS = 8192
"""Rows evaluated at once where the loss of all rows can be put together from blocks."""


def checked(problem: Any) -> Problem:
    """What was given as a problem, if it is one.

    Raises:
        InputError: if it is not, with what makes one of it.
    """
    if isinstance(problem, Problem):
        return problem
    made = "Problem.from_model, from_function or from_table makes one"
    if isinstance(problem, str):
        made = f"downslope.problems.make({problem!r}) makes one out of a name of the collection"
    elif isinstance(problem, nn.Module):
        made = "Problem.from_model(model, X, y, loss=...) makes one out of a model and data"
    elif callable(problem):
        made = "Problem.from_function(function, start=...) makes one out of a function"
    raise InputError(f"problem must be a downslope.Problem, got {type(problem).__name__}: {made}")


def order_is_drawn(problem: Problem, size: int | str | None, order: str | None) -> bool:
    """Whether the seed decides which samples make which step.

    Args:
        size: the batch size; order: how samples are drawn, or None for the problem's own.
    """
    if problem.loader is not None:
        return True
    order = order or problem.order
    if problem.train is None or size in ("full", None) or order == "cyclic":
        return False
    return order == "replacement" or int(size or 0) < len(problem.train)


def in_double_precision(problem: Problem) -> Problem:
    """The problem in float64, unless its own code insists on another dtype."""
    exact = problem.to(dtype=torch.float64)
    try:
        with borrowed(problem.device):
            exact.forward(exact.fresh(0), 2)
    except RuntimeError:  # dtypes that do not go together
        return problem
    return exact


def row_blocks(problem: Problem, rows: Rows) -> list[tuple[slice, float]]:
    """The blocks in which a loss over `rows` is evaluated, each with its weight."""
    count = len(rows)
    if problem.joined == "whole" or count <= EVALUATED_ROWS:
        return [(slice(0, count), 1.0)]
    edges = range(0, count, EVALUATED_ROWS)
    blocks = [slice(a, min(a + EVALUATED_ROWS, count)) for a in edges]
    if problem.joined == "sum":
        return [(block, 1.0) for block in blocks]
    return [(block, (block.stop - block.start) / count) for block in blocks]


def with_validation(problem: Problem, validation: Any) -> Problem:
    """The problem with rows kept apart: a share of the training rows (the same whenever it is
    asked for), or a pair of tensors.

    Raises:
        InputError: if the share or the shapes do not fit.
    """
    if problem.train is None:
        raise ProblemError("a function without data has no rows for validation")
    if isinstance(validation, float | int) and not isinstance(validation, bool):
        count, share = len(problem.train), float(validation)
        kept_apart = round(share * count)
        if not 0 < share < 1 or not 0 < kept_apart < count:
            raise InputError(
                f"validation must be a share of the rows between 0 and 1 that leaves some of the "
                f"{count} rows on both sides, got {validation!r}"
            )
        mixed = torch.from_numpy(np.random.Generator(np.random.Philox(key=0)).permutation(count))
        apart, rest = mixed[:kept_apart].sort().values, mixed[kept_apart:].sort().values
        if problem.loader is not None:
            raise InputError(
                "the DataLoader draws its batches in a way of its own, so no share of its rows can "
                "be kept apart: give validation=(X, y)"
            )
        train, given = problem.train, problem.given
        return replace(
            problem,
            train=train[rest],
            given=None if given is None else given[rest],
            validation=train[apart],
        )
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise InputError("validation must be a share of the rows, or a pair (X, y)")
    like = problem.train
    x, y = as_tensor(validation[0], "validation X"), as_tensor(validation[1], "validation y")
    if len(x) != len(y) or x.shape[1:] != like.x.shape[1:] or like.y is None:
        raise InputError(
            f"validation rows have shapes {tuple(x.shape)} and {tuple(y.shape)}; the training "
            f"rows have {tuple(like.x.shape)} and {() if like.y is None else tuple(like.y.shape)}"
        )
    if y.shape[1:] != like.y.shape[1:]:
        raise InputError(
            f"validation targets have shape {tuple(y.shape)}, training targets "
            f"{tuple(like.y.shape)}"
        )
    rows = Rows(x.to(like.x.device, like.x.dtype), y.to(like.y.device, like.y.dtype))
    return replace(problem, validation=rows)
