"""Whether the parts of a problem fit each other, shown by a pass over a few rows; and casts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from downslope.data import Rows
from downslope.errors import ProblemError
from downslope.losses import check_classes, check_shapes, wants_classes, wants_numbers
from downslope.objective import Objective

if TYPE_CHECKING:
    from downslope.problem import Problem


def cast(problem: Problem) -> Problem:
    """Data in the parameters' dtype, whole numbers where the model or loss wants them so."""
    rows, notes, dtype = problem.train, [], None
    assert rows is not None
    _check_parameters(problem)
    dtype, device = problem.dtype, problem.device
    x, y = rows.x.to(device), rows.y if rows.y is None else rows.y.to(device)
    if (x.is_floating_point() and x.dtype != dtype) or (
        not x.is_floating_point() and not _takes(problem, Rows(x, y))
    ):
        notes.append(f"X was cast from {x.dtype} to the parameters' {dtype}".replace("torch.", ""))
        x = x.to(dtype)
    loss = problem.template.loss
    if y is not None and y.dtype != dtype:
        whole = not y.is_floating_point()
        if whole and wants_classes(loss):
            y = y.to(torch.int64)
        elif not whole or wants_numbers(loss):
            notes.append(
                f"y was cast from {y.dtype} to the parameters' {dtype}".replace("torch.", "")
            )
            y = y.to(dtype)
    if isinstance(loss, nn.Module) and any(
        b.is_floating_point() and b.dtype != dtype for b in loss.buffers()
    ):
        make = problem.make
        problem = replace(problem, make=lambda: make().to(dtype=dtype))
    return replace(problem, train=Rows(x, y), notes=(*problem.notes, *notes))


def _takes(problem: Problem, rows: Rows) -> bool:
    """Whether the model accepts whole-number inputs as they are (embeddings do)."""
    objective = problem.fresh(0).eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            if objective.objective is not None:
                objective(rows[:2].x, rows[:2].y)
            else:
                objective.model(rows.x[:2])
        except (RuntimeError, TypeError, IndexError):
            return False
    return True


def _check_parameters(problem: Problem) -> None:
    parameters = {n: p for n, p in problem.template.named_parameters() if p.requires_grad}
    if not parameters:
        raise ProblemError("the model has no parameter that requires a gradient")
    dtypes = {p.dtype for p in parameters.values()}
    if len(dtypes) > 1 or not next(iter(dtypes)).is_floating_point:
        raise ProblemError(
            "the parameters must share one floating-point dtype, got "
            + ", ".join(sorted(str(d).removeprefix("torch.") for d in dtypes))
        )


def checked(problem: Problem) -> Problem:
    """The problem, after one pass over a few rows that shows its parts fit."""
    _check_parameters(problem)
    objective, rows = problem.fresh(0).eval(), problem.train
    with torch.random.fork_rng(devices=[]):
        try:
            if rows is not None and objective.loss is not None:
                _check_prediction(objective, rows)
            loss = problem.forward(objective, 3)
        except ProblemError:
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            raise ProblemError(f"the problem fails with {type(error).__name__}: {said}") from error
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ProblemError(f"the loss must be a tensor of one number, got {got}")
    if not loss.requires_grad:
        raise ProblemError("the loss does not depend on the parameters through torch operations")
    return problem


def _check_prediction(objective: Objective, rows: Rows) -> None:
    if rows.y is None:
        raise ProblemError("a loss needs targets: give y, or objective= in place of loss=")
    with torch.no_grad():
        prediction = objective.model(rows.x[:3])
        if not isinstance(prediction, Tensor):
            raise ProblemError(
                f"the model must give a tensor, got {type(prediction).__name__}; "
                "for others give objective= in place of loss="
            )
        check_shapes(objective.loss, prediction, rows.y[:3])
        check_classes(objective.loss, prediction, rows.y)
